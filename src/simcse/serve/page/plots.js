// The two plots. Text of the corpus is always set as text, never as markup.
"use strict";

/** Scatter plot on a canvas, which zooms, moves, and reports the dot under the pointer. */
class EmbeddingMap {
  constructor(canvas, show) {
    this.canvas = canvas;
    this.show = show;
    this.points = [];
    this.pointers = new Map();
    this.chosen = -1;
    this.reset();
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.offsetX, event.offsetY);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
      canvas.setPointerCapture(event.pointerId);
      this.point(event.offsetX, event.offsetY);
    });
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    canvas.addEventListener("keydown", (event) => this.pressed(event));
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  set(points) {
    this.points = points;
    this.reset();
    this.draw();
  }

  reset() {
    this.scale = 1;
    this.left = 0;
    this.top = 0;
  }

  /** Position of a point on the canvas, in CSS pixels. */
  position(point) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    return [
      width / 2 + this.left + point.x * this.scale * (width / 2 - 16),
      height / 2 + this.top - point.y * this.scale * (height / 2 - 16),
    ];
  }

  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const before = this.scale;
    this.scale = Math.min(200, Math.max(1, before * factor));
    const by = this.scale / before;
    const [middleX, middleY] = [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2];
    this.left = x - middleX - (x - middleX - this.left) * by;
    this.top = y - middleY - (y - middleY - this.top) * by;
    this.draw();
  }

  moved(event) {
    const before = this.pointers.get(event.pointerId);
    const here = [event.offsetX, event.offsetY];
    if (!before) return this.point(...here);
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId);
    if (others.length) {
      const other = others[0][1];
      const distance = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]);
      this.zoom(distance(here) / Math.max(1, distance(before)), other[0], other[1]);
    } else {
      this.left += here[0] - before[0];
      this.top += here[1] - before[1];
      this.draw();
    }
    this.pointers.set(event.pointerId, here);
  }

  pressed(event) {
    const steps = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
    if (event.key === "+" || event.key === "=") this.zoom(1.4);
    else if (event.key === "-") this.zoom(1 / 1.4);
    else if (event.key === "0") this.all();
    else if (steps[event.key]) {
      this.left += steps[event.key][0];
      this.top += steps[event.key][1];
      this.draw();
    } else return;
    event.preventDefault();
  }

  all() {
    this.reset();
    this.draw();
  }

  point(x, y) {
    let best = 15;
    let chosen = -1;
    this.points.forEach((point, at) => {
      const [left, top] = this.position(point);
      const distance = Math.hypot(left - x, top - y);
      if (distance < best) [best, chosen] = [distance, at];
    });
    if (chosen < 0 || chosen === this.chosen) return;
    this.chosen = chosen;
    this.show(this.points[chosen]);
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const dense = window.devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * dense;
    canvas.height = canvas.clientHeight * dense;
    const ink = canvas.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    ink.scale(dense, dense);
    ink.fillStyle = style.getPropertyValue("--mark");
    ink.globalAlpha = this.points.length > 300 ? 0.55 : 0.85;
    for (const point of this.points) this.dot(ink, point, 3);
    ink.globalAlpha = 1;
    ink.fillStyle = style.getPropertyValue("--ink");
    if (this.points[this.chosen]) this.dot(ink, this.points[this.chosen], 6);
  }

  dot(ink, point, radius) {
    const [x, y] = this.position(point);
    ink.beginPath();
    ink.arc(x, y, radius, 0, 2 * Math.PI);
    ink.fill();
  }
}

/** Create an SVG element with attributes. */
function svg(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** Plot models by alignment and uniformity, as Wang and Isola (2020) do; dots are numbered. */
function alignmentPlot(models, available) {
  const [width, height, edge] = [Math.max(300, Math.min(available, 900)), 380, 56];
  const range = (values) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const margin = (high - low || 1) * 0.2;
    return [low - margin, high + margin];
  };
  const [left, right] = range(models.map((model) => model.uniformity));
  const [low, high] = range(models.map((model) => model.alignment));
  const x = (value) => edge + ((value - left) / (right - left)) * (width - 2 * edge);
  const y = (value) => height - edge - ((value - low) / (high - low)) * (height - 2 * edge);
  const plot = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": "Models by uniformity and alignment" });
  plot.append(
    svg("line", { x1: edge, x2: width - edge, y1: height - edge, y2: height - edge, class: "axis" }),
    svg("line", { x1: edge, x2: edge, y1: edge, y2: height - edge, class: "axis" }),
    svg("text", { x: width / 2, y: height - 12, "text-anchor": "middle", class: "soft" }, "uniformity"),
    svg("text", { x: 16, y: height / 2, "text-anchor": "middle", class: "soft",
      transform: `rotate(-90 16 ${height / 2})` }, "alignment"),
  );
  for (const value of [left, (left + right) / 2, right]) {
    plot.append(svg("text", { x: x(value), y: height - edge + 20, "text-anchor": "middle",
      class: "soft" }, value.toFixed(2)));
  }
  for (const value of [low, (low + high) / 2, high]) {
    plot.append(svg("text", { x: edge - 8, y: y(value) + 4, "text-anchor": "end", class: "soft" },
      value.toFixed(2)));
  }
  const labels = [];  // positions of numbers, so that those of overlapping dots stay apart
  for (const [at, model] of models.entries()) {
    const [across, down] = [x(model.uniformity) + 9, y(model.alignment) + 4];
    const before = labels.filter(([a, d]) => Math.abs(a - across) < 40 && Math.abs(d - down) < 14);
    labels.push([across, down]);
    plot.append(
      svg("circle", { cx: x(model.uniformity), cy: y(model.alignment), r: 5 }),
      svg("text", { x: across + 18 * before.length, y: down }, String(at + 1)),
    );
  }
  return plot;
}
