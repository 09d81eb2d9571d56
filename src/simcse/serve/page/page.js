// The page. Text of the corpus is always set as text, never as markup.
"use strict";

const find = (id) => document.getElementById(id);
const views = [...document.querySelectorAll("[role=tab]")];
const filters = new Map(); // field -> value
let index = null;

/** Create an element with text and children. */
function make(name, { text, style, title } = {}, ...children) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (style) element.className = style;
  if (title) element.title = title;
  element.append(...children);
  return element;
}

const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function showError(message) {
  find("problem").textContent = message;
  find("problem").hidden = !message;
}

/** Send a request; if a key is missing, show the form for it. */
async function request(path, body, signal) {
  const headers = {};
  const key = sessionStorage.getItem("key");
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  const options = { headers, signal, method: body ? "POST" : "GET" };
  if (body) options.body = JSON.stringify(body);
  const response = await fetch(path, options);
  const answer = await response.json();
  if (response.status === 401) find("key-form").hidden = false;
  if (!response.ok) throw Object.assign(new Error(answer.error.message), { status: response.status });
  return answer;
}

/** Run work shortly after the last call; a run that has not ended is aborted. */
function debounce(work, wait = 150) {
  let timer;
  let running;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      running?.abort();
      running = new AbortController();
      try {
        await work(running.signal);
        showError("");
      } catch (error) {
        if (error.name !== "AbortError") showError(error.message);
      }
    }, wait);
  };
}

// Views

const opened = new Set();
const openers = { map: openMap, models: openModels, api: openApi };

function showView(name, focus = false) {
  for (const tab of views) {
    const on = tab.getAttribute("aria-controls") === name;
    tab.setAttribute("aria-selected", on);
    tab.tabIndex = on ? 0 : -1;
    find(tab.getAttribute("aria-controls")).hidden = !on;
    if (on && focus) tab.focus();
  }
  history.replaceState(null, "", `#${name}`);
  if (openers[name] && !opened.has(name)) {
    opened.add(name);
    openers[name]().catch((error) => {
      opened.delete(name);
      showError(error.message);
    });
  }
}

views.forEach((tab, at) => {
  tab.addEventListener("click", () => showView(tab.getAttribute("aria-controls")));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = views[(at + step + views.length) % views.length];
    showView(next.getAttribute("aria-controls"), true);
  });
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, textarea, select");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    showView("search");
    find("query").focus();
  }
});

find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", find("key").value);
  find("key").value = "";
  find("key-form").hidden = true;
  showError("");
  start();
});

// Search

const search = debounce(async (signal) => {
  const query = find("query").value.trim();
  if (!query) {
    find("hits").replaceChildren();
    find("search-state").textContent = "";
    return;
  }
  const body = { query, k: Number(find("k").value) || 10, truncate: true };
  if (find("threshold").value !== "") body.threshold = Number(find("threshold").value);
  if (filters.size) body.where = Object.fromEntries(filters);
  const begun = performance.now();
  const hits = (await request("/v1/search", body, signal)).results[0];
  const took = Math.round(performance.now() - begun);
  find("search-state").textContent = `${hits.length} of ${index.rows.toLocaleString()} rows, ${took} ms`;
  find("hits").replaceChildren(...hits.map(hitItem));
});

function hitItem(hit) {
  const bar = make("i");
  bar.style.width = `${Math.max(0, hit.score) * 100}%`;
  const line = make("div", { style: "score" },
    make("b", { text: hit.score.toFixed(3) }), make("span", { style: "track" }, bar));
  if (hit.percentile != null) {
    line.append(make("span", { text: `above ${hit.percentile.toFixed(1)} % of random pairs` }));
  }
  if (hit.probability != null) {
    line.append(make("span", { text: `match ${(100 * hit.probability).toFixed(0)} %` }));
  }
  for (const [field, value] of Object.entries(hit.metadata)) {
    const on = filters.get(field) === value;
    const tag = make("button", { text: `${field}: ${shown(value)}`, style: on ? "tag on" : "tag",
      title: on ? "Remove this filter" : "Show only rows with this value" });
    tag.addEventListener("click", () => (on ? unfilter(field) : filter(field, value)));
    line.append(tag);
  }
  const item = make("li", {}, make("div", { text: hit.text }), line);
  item.tabIndex = 0;
  return item;
}

find("hits").addEventListener("keydown", (event) => {
  const item = event.target.closest("li");
  const next = { ArrowDown: item?.nextElementSibling, ArrowUp: item?.previousElementSibling };
  if (!(event.key in next)) return;
  event.preventDefault();
  (next[event.key] || (event.key === "ArrowUp" ? find("query") : item)).focus();
});
find("query").addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown") {
    event.preventDefault();
    find("hits").firstElementChild?.focus();
  }
});
for (const id of ["query", "k", "threshold"]) find(id).addEventListener("input", search);

// Filters

function filter(field, value) {
  filters.set(field, value);
  drawFilters();
}

function unfilter(field) {
  filters.delete(field);
  drawFilters();
}

function drawFilters() {
  find("filters").replaceChildren(...[...filters].map(([field, value]) => {
    const button = make("button", { text: `${field}: ${shown(value)} ×`, title: "Remove" });
    button.addEventListener("click", () => unfilter(field));
    return make("li", {}, button);
  }));
  search();
}

find("field").addEventListener("change", () => {
  const values = index.fields[find("field").value] || [];
  find("value").replaceChildren(make("option", { text: "…" }),
    ...values.map((value, at) => Object.assign(make("option", { text: shown(value) }), { value: at })));
  find("value-label").hidden = !values.length;
  find("typed").hidden = values.length > 0 || !find("field").value;
});
find("value").addEventListener("change", () => {
  const values = index.fields[find("field").value];
  filter(find("field").value, values[Number(find("value").value)]);
});
find("typed").addEventListener("change", () => {
  const text = find("typed").value;
  filter(find("field").value, text.trim() !== "" && !Number.isNaN(Number(text)) ? Number(text) : text);
});

// Compare

const compare = debounce(async (signal) => {
  const [first, second] = [find("first").value.trim(), find("second").value.trim()];
  if (!first || !second) return find("cosine").replaceChildren();
  const body = { first: [first], second: [second], truncate: true };
  const [[score]] = (await request("/v1/similarity", body, signal)).scores;
  find("cosine").replaceChildren("Cosine ", make("b", { text: score.toFixed(4) }));
});

const heat = debounce(async (signal) => {
  const lines = find("list").value.split("\n").map((line) => line.trim()).filter(Boolean).slice(0, 50);
  if (!lines.length) return find("heat").replaceChildren();
  const { scores } = await request("/v1/similarity", { first: lines, truncate: true }, signal);
  const head = make("tr", {}, make("th"), ...lines.map((line, at) =>
    make("th", { text: String(at + 1), title: line })));
  const rows = scores.map((row, at) => make("tr", {},
    make("th", { text: `${at + 1}  ${lines[at]}`, title: lines[at] }), ...row.map(heatCell)));
  find("heat").replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
}, 300);

function heatCell(score) {
  const cell = make("td", { text: score.toFixed(2) });
  const depth = Math.max(0, Math.min(1, score));
  cell.style.backgroundColor = `rgb(11 92 173 / ${depth})`;
  if (depth > 0.55) cell.style.color = "#fff";
  return cell;
}

for (const id of ["first", "second"]) find(id).addEventListener("input", compare);
find("list").addEventListener("input", heat);

// Map, models, API

async function openMap() {
  const drawn = await request("/v1/index/map");
  const map = new EmbeddingMap(find("map-canvas"), (point) => {
    find("map-text").textContent = point.text;
  });
  map.set(drawn.points);
  find("zoom-in").addEventListener("click", () => map.zoom(1.5));
  find("zoom-out").addEventListener("click", () => map.zoom(1 / 1.5));
  find("zoom-all").addEventListener("click", () => map.all());
  const share = Math.round(100 * drawn.explained);
  find("map-info").append(` ${drawn.points.length.toLocaleString()} of ` +
    `${drawn.rows.toLocaleString()} rows; the two directions explain ${share} % of the variance.`);
}

async function openModels() {
  const [model] = (await request("/v1/models")).data;
  find("model-info").textContent = `Model ${model.id}: ${model.dimensions} dimensions, at most ` +
    `${model.max_tokens} tokens, fingerprint ${model.fingerprint.slice(0, 12)}.`;
  const { models } = await request("/v1/alignment-uniformity");
  if (!models.length) return find("alignment").replaceChildren(make("p", { text: "No models yet." }));
  find("alignment").replaceChildren(alignmentPlot(models, find("alignment").clientWidth), alignmentTable(models));
}

/** The model of each number in the plot. */
function alignmentTable(models) {
  const row = (cell, ...texts) => make("tr", {}, ...texts.map((text) => make(cell, { text })));
  return make("div", { style: "scroll" }, make("table", {},
    row("th", "", "model", "alignment", "uniformity"),
    ...models.map((model, at) => row("td", String(at + 1), model.model,
      model.alignment.toFixed(3), model.uniformity.toFixed(3)))));
}

async function openApi() {
  find("base-url").textContent = `${location.origin}/v1`;
  const described = await request("/openapi.json");
  const blocks = Object.entries(described.paths).flatMap(([path, methods]) =>
    Object.entries(methods).flatMap(([method, route]) => [
      make("h2", { text: `${method.toUpperCase()} ${path}` }),
      make("p", { text: route.description.replaceAll("``", "") }),
      make("pre", {}, make("code", { text: example(path, method, route, described) })),
    ]));
  find("routes").replaceChildren(...blocks);
}

/** Return a curl command for a route, from the examples in its schema. */
function example(path, method, route, described) {
  const url = `${location.origin}${path}`;
  const schema = route.requestBody?.content["application/json"].schema.$ref;
  if (!schema) return `curl ${url}`;
  const fields = described.components.schemas[schema.split("/").pop()].properties;
  const body = {};
  for (const [name, field] of Object.entries(fields)) {
    if (field.examples) body[name] = field.examples[0];
  }
  return `curl ${url} -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(body)}'`;
}

// Start

async function start() {
  try {
    index = await request("/v1/index");
    find("index-info").textContent = `over ${index.rows.toLocaleString()} sentences`;
    const fields = Object.keys(index.fields);
    find("field").replaceChildren(...["", ...fields].map((field) => new Option(field || "none", field)));
    find("field-label").hidden = !fields.length;
    search();
  } catch (error) {
    if (error.status === 404) {
      find("query").disabled = true;
      find("search-state").textContent = "No index is loaded. Start the server with simcse serve --index INDEX.";
    } else showError(error.message);
  }
  compare();
}

showView(find(location.hash.slice(1))?.getAttribute("role") === "tabpanel" ? location.hash.slice(1) : "search");
start();
