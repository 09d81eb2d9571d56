"""The paper's own figures, from the results of a grid's runs."""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from simcse.io.files import Source
from simcse.io.records import stream_examples
from simcse.paper.evaluation import cosines_of
from simcse.paper.grid import Grid
from simcse.paper.materials import find_file
from simcse.paper.measures import score
from simcse.report import plots
from simcse.report.plots import (
    PlanePoint,
    alignment_uniformity_plane,
    rating_densities,
    spectrum,
)
from simcse.report.sections import Picture, Section
from simcse.report.tables import Column, Table

Results = Mapping[str, Mapping[int, Mapping[str, Any]]]


def grid_figure(grid: Grid, results: Results, *, quote: bool = False) -> Iterator[Section]:
    """Yield the section of the figure that a grid asks for, drawn of each row's first seed.

    ``quote`` shows the nearest sentences themselves: they are the data set's, not ours.

    Raises:
        DataError: they are to be quoted, and the file is not here.
    """
    there = {row.name: results.get(row.name) for row in grid.rows}  # in the grid's order
    first = {name: runs[min(runs)] for name, runs in there.items() if runs}
    drawn = {
        "path": _paths,
        "plane": _plane,
        "density": _densities,
        "spectrum": _spectrum,
    }.get(grid.figure)
    picture = drawn(first) if drawn else None
    if picture is not None:
        yield Section("The figure", ["Each row's first seed.", picture])
    if grid.figure == "neighbors" and grid.search is not None:
        blocks = [_nearest(query, first, grid.search, quote) for query in grid.queries]
        yield Section("Nearest sentences", ["Each row's first seed.", *blocks])


def _paths(rows: Mapping[str, Mapping[str, Any]]) -> Picture | None:
    paths = [
        plots.Path(name, [(look["dev_alignment"], look["dev_uniformity"]) for look in row["looks"]])
        for name, row in rows.items()
        if row.get("looks") and "dev_alignment" in row["looks"][0]
    ]
    if not paths:
        return None
    png = alignment_uniformity_plane([], paths=paths)
    return Picture(png, "Alignment and uniformity of STS-B dev along training, a path a row")


def _plane(rows: Mapping[str, Mapping[str, Any]]) -> Picture | None:
    points = [
        PlanePoint(
            name, row["scores"]["alignment"], row["scores"]["uniformity"], score(row, "sts_avg")
        )
        for name, row in rows.items()
        if row["scores"].get("alignment") is not None
    ]
    if not points:
        return None
    png = alignment_uniformity_plane(points)
    text = "Alignment and uniformity on STS-B test; in brackets the STS average"
    return Picture(png, text, text)


def _densities(rows: Mapping[str, Mapping[str, Any]]) -> Picture | None:
    kept = {name: cosines_of(row["cosines"]) for name, row in rows.items() if row.get("cosines")}
    text = "Cosines of STS-B test pairs by the rating people gave them; a short line is the median"
    return Picture(rating_densities(kept), text, text) if kept else None


def _spectrum(rows: Mapping[str, Mapping[str, Any]]) -> Picture | None:
    lines = {
        name: row["singular_values"] for name, row in rows.items() if row.get("singular_values")
    }
    text = "Singular values of the STS-B test embeddings, the largest scaled to 1"
    return Picture(spectrum(lines), text, text) if lines else None


def _nearest(query: str, rows: Mapping[str, Mapping[str, Any]], search: str, quote: bool) -> Table:
    """Return the nearest sentences of one query, a rank a row and a model a column."""
    found = {name: row["neighbors"][query] for name, row in rows.items() if "neighbors" in row}
    wanted = {int(line) for places in found.values() for line, _, _ in places}
    lines = _lines(find_file(Path(search)), wanted) if quote else {}
    columns = [
        [f"{_text(lines, int(line), int(column))} ({cosine:.2f})" for line, column, cosine in each]
        for each in found.values()
    ]
    ranks = zip(*columns, strict=True)
    body = tuple((rank, *texts) for rank, texts in enumerate(ranks, 1))
    titles = (Column("Rank"), *(Column(name) for name in found))
    return Table(f"Nearest to “{query}” in {Path(search).name}, with the cosine", titles, body)


def _text(lines: Mapping[int, tuple[str, str]], line: int, column: int) -> str:
    return lines[line][column - 1] if lines else f"line {line}, column {column}"


def _lines(path: Path, wanted: set[int]) -> dict[int, tuple[str, str]]:
    rows = islice(stream_examples(Source(path)), max(wanted, default=0))
    return {row.line: (row.anchor, row.positive or "") for row in rows if row.line in wanted}
