"""From the results in a folder to the pages of its grids; nothing is trained or encoded here."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simcse.errors import ArtifactError, ConfigError
from simcse.io.files import atomic_path, write_text
from simcse.io.results import read_results
from simcse.paper.figures import grid_figure
from simcse.paper.grid import Grid, grid_from, paper_order
from simcse.paper.measures import DEV, score, shown_as, title
from simcse.paper.results import Store
from simcse.paper.runner import GRID, RESULTS
from simcse.report.grid import GridComparison, GridReport, RowScores, compare_rows
from simcse.report.sections import Link, Section, to_html, to_text
from simcse.report.tables import Column, Table, Value

INDEX = "index"


@dataclass(frozen=True)
class GridResults:
    """What is there of a grid that was run in a folder.

    Attributes:
        grid: the rows, as they were run.
        values: what was asked of it; see `simcse.paper.plan.plan_values`.
        results: by row, then by seed; those that are there.
    """

    grid: Grid
    values: Mapping[str, Any]
    results: Mapping[str, Mapping[int, Mapping[str, Any]]]

    @property
    def all(self) -> list[Mapping[str, Any]]:
        """Every result once."""
        found = {each["key"]: each for row in self.results.values() for each in row.values()}
        return list(found.values())


def read_grids(folder: Path) -> list[GridResults]:
    """Read what was run in a folder.

    Raises:
        ArtifactError: there is nothing, or a file is damaged.
    """
    store = Store(folder / RESULTS)
    found = [_read(path, store) for path in folder.glob(f"*{GRID}")]
    if not found:
        raise ArtifactError(
            f"{folder} holds no grid; `simcse paper run` and `simcse sweep` make one"
        )
    return sorted(found, key=lambda each: paper_order(each.grid.name))


def write_pages(folder: Path, *, quote: bool = False) -> list[GridReport]:
    """Write a page for every grid of a folder, as HTML and as Markdown, and an index of them.

    Raises:
        ArtifactError: there is nothing, or a file is damaged.
        ResourceError: a page cannot be written.
    """
    grids = read_grids(folder)
    reports = [grid_report(each, quote=quote) for each in grids]
    for each, report in zip(grids, reports, strict=True):
        _write(folder, each.grid.slug, report.title, report.sections())
    made = "Made by simcse paper and simcse sweep; not edited by hand."
    named = zip(grids, reports, strict=True)
    links = [Link(report.title, each.grid.slug) for each, report in named]
    sections = [Section("", [made, *links]), Section("Verdicts", [index_table(grids, reports)])]
    _write(folder, INDEX, "Tables and figures, rerun", sections)
    return reports


def grid_report(found: GridResults, *, quote: bool = False) -> GridReport:
    """Return the page of one grid; see `grid_figure` for ``quote``."""
    grid = found.grid
    comparisons = list(_comparisons(found))
    more = [*grid_figure(grid, found.results, quote=quote), *_other_measures(found), _time(found)]
    left_out = {**found.values["left_out"], **_failures(found), **_unfinished(found)}
    return GridReport(
        _heading(grid),
        grid.source,
        grid.claim,
        grid.note,
        comparisons,
        left_out,
        more,
        _scale(found),
    )


def index_table(grids: Sequence[GridResults], reports: Sequence[GridReport]) -> Table:
    """Return one verdict a row."""
    rows: list[tuple[Value, ...]] = []
    for each, report in zip(grids, reports, strict=True):
        for comparison in report.comparisons:
            rows.append(
                (
                    report.title,
                    comparison.title,
                    _size(each.values),
                    comparison.seeds,
                    comparison.summary,
                )
            )
    titles = ("Grid", "Measure", "Rows trained on", "Seeds", "Verdict")
    return Table("Verdicts", tuple(Column(text) for text in titles), tuple(rows))


def _read(path: Path, store: Store) -> GridResults:
    values = read_results(path)
    try:
        grid = grid_from(values["grid"])
        keys = {
            row: {int(s): key for s, key in runs.items()} for row, runs in values["runs"].items()
        }
        tests = list(values["tests"])
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise ArtifactError(f"{path} is not a grid that was run here: {error!r}") from error
    results = {
        row: {s: result for s, key in runs.items() if (result := store.find(key, tests))}
        for row, runs in keys.items()
    }
    return GridResults(grid, values, results)


def _comparisons(found: GridResults) -> Iterator[GridComparison]:
    grid = found.grid
    groups = dict.fromkeys(row.group for row in grid.rows)
    for measure in grid.measures:
        for group in groups:
            rows = [each for each in _scores(found, measure) if each.group == group]
            if rows:
                named = f"{_title(found, measure)}, {group}" if group else _title(found, measure)
                column = shown_as(measure, "Ours")
                yield compare_rows(named, rows, setting=_place(found), column=column)


def _scores(found: GridResults, measure: str) -> list[RowScores]:
    """Return the rows that have a score, in the grid's order."""
    rows = []
    for row in found.grid.rows:
        by_seed = {
            seed: value
            for seed, result in found.results.get(row.name, {}).items()
            if (value := score(result, measure)) is not None
        }
        if row.start and by_seed:  # measured once, the same for every seed
            by_seed = dict.fromkeys(_seeds(found), next(iter(by_seed.values())))
        if by_seed:
            theirs = row.published.get(measure)
            rows.append(
                RowScores(row.name, by_seed, theirs, row.group, row.baseline, not row.start)
            )
    return rows


def _seeds(found: GridResults) -> list[int]:
    trained = [row.name for row in found.grid.rows if not row.start]
    seeds = {seed for name in trained for seed in found.results.get(name, {})}
    return sorted(seeds) or [0]


def _other_measures(found: GridResults) -> Iterator[Section]:
    """Yield what else was measured, one measure a column."""
    if not found.grid.also:
        return
    columns: list[dict[str, Value]] = []
    for measure in found.grid.also:
        columns.append({each.name: each.shown for each in _scores(found, measure)})
    rows = tuple(
        (row.name, *(column.get(row.name) for column in columns))
        for row in found.grid.rows
        if any(row.name in column for column in columns)
    )
    titles = (replace(shown_as(name, _title(found, name)), best=None) for name in found.grid.also)
    table = Table(
        "Also measured, mean ± standard deviation over seeds", (Column("Row"), *titles), rows
    )
    theirs = tuple(
        (row.name, *(row.published.get(name) for name in found.grid.also))
        for row in found.grid.rows
        if any(name in row.published for name in found.grid.also)
    )
    published = [Table("The same, as published", table.columns, theirs)] if theirs else []
    yield Section("Also measured", [table, *published])


def _failures(found: GridResults) -> dict[str, str]:
    """Return rows whose training broke off, with the seeds and what was said."""
    failed = {}
    for name, results in found.results.items():
        said = {seed: each["failed"] for seed, each in results.items() if "failed" in each}
        if said:
            seeds = ", ".join(map(str, said))
            failed[name] = f"seed {seeds}: {next(iter(said.values()))}"
    return failed


def _unfinished(found: GridResults) -> dict[str, str]:
    waiting = {}
    for name, keys in found.values["runs"].items():
        missing = [seed for seed in keys if int(seed) not in found.results[name]]
        if missing:
            waiting[name] = f"seed {', '.join(missing)}: not run yet; the same command goes on"
    return waiting


def _time(found: GridResults) -> Section:
    """Return what the runs took, and what was not done twice."""
    results = found.all
    own = [each for each in results if each["grid"] == found.grid.slug]
    others = sorted({each["grid"] for each in results} - {found.grid.slug})
    seconds = sum(sum(each["seconds"].values()) for each in results)
    shared = seconds - sum(sum(each["seconds"].values()) for each in own)
    made = [each["data"] for each in results if each["data"].get("seconds")]
    files = {data["sha256"]: data["seconds"] for data in made}
    again = sum(data["seconds"] for data in made) - sum(files.values())
    rows = [("Training and measuring all runs", _minutes(seconds))]
    if others:
        there = f"{len(results) - len(own)} of {len(results)} runs, by {', '.join(others)}"
        rows.append((f"... of which were there already: {there}", _minutes(shared)))
    if files:
        named = f"{len(files)} training file{'s' if len(files) > 1 else ''}"
        rows.append((f"Making {named}", _minutes(sum(files.values()))))
        rows.append((f"... not made again for {len(made) - len(files)} runs", _minutes(again)))
    return Section("Time", [Table("Wall time", (Column("What"), Column("Time")), tuple(rows))])


def _scale(found: GridResults) -> dict[str, str]:
    values, results = found.values, found.all
    hashes = {
        each["data"]["sha256"][:12]: each["data"]["corpus"] for each in results if each["data"]
    }
    codes = sorted({each["code_sha256"][:12] for each in results})
    machines = sorted(
        {f"{each['hardware']['processor']}, {each['hardware']['device']}" for each in results}
    )
    changed = ", ".join(f"{name}={value}" for name, value in values["settings"].items())
    return {
        "Command": values["command"],
        "Backbone": values["model"],
        "Rows trained on": _size(values),
        "Seeds": str(values["seeds"]),
        f"{_title(found, DEV)} before training": _start(results),
        "Settings beside the grid's": changed or "none",
        "Corpora": ", ".join(values["corpora"]),
        "Training files (SHA-256)": ", ".join(f"{name} {sha}" for sha, name in hashes.items()),
        "Code (SHA-256)": ", ".join(codes),
        "Machine": "; ".join(machines),
        "Versions": ", ".join(f"{name} {each}" for name, each in values["versions"].items()),
    }


def _start(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the dev scores of the untouched start, one for each way it was set up."""
    scores = {each["start"][DEV] for each in results if each.get("start", {}).get(DEV) is not None}
    return ", ".join(f"{score:.2f}" for score in sorted(scores)) or "not measured"


def _heading(grid: Grid) -> str:
    """Return what a page is called: figure2 is Figure 2 and its title, which may name it itself."""
    name = re.sub(r"(?<=[a-z])-?(?=\d)", " ", grid.slug).capitalize()
    return grid.title if name.lower() in grid.title.lower() else f"{name}: {grid.title}"


def _place(found: GridResults) -> str:
    return f"on {found.values['model']} with {_size(found.values)} rows"


def _size(values: Mapping[str, Any]) -> str:
    return "all" if values["sentences"] is None else f"{values['sentences']:,}"


def _title(found: GridResults, measure: str) -> str:
    dev = found.values["dev"]
    return f"{Path(dev).stem} (eval.dev)" if measure == DEV and dev != "stsb" else title(measure)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def _write(folder: Path, slug: str, name: str, sections: Sequence[Section]) -> None:
    write_text(folder / f"{slug}.html", to_html(name, sections))
    text, pictures = to_text(name, sections, slug=slug)
    for file, png in pictures.items():
        with atomic_path(folder / file) as temporary:
            temporary.write_bytes(png)
    write_text(folder / f"{slug}.md", text)
