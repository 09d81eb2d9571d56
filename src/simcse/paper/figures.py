"""The paper's own figures, from the results of a grid's runs."""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from simcse.io.files import Source
from simcse.io.records import stream_examples
from simcse.paper.evaluation import cosines_of
from simcse.paper.grid import Grid
from simcse.paper.metrics import find_score
from simcse.paper.training_files import find_file
from simcse.report import plots
from simcse.report.plots import (
    PlanePoint,
    alignment_uniformity_plane,
    rating_densities,
    spectrum,
)
from simcse.report.sections import Picture, Section
from simcse.report.tables import Column, Table

Result = Mapping[str, Any]
Results = Mapping[str, Mapping[int, Result]]  # by row, then by seed
FIRST_SEED = "The figure shows the first seed of each row."


def grid_figure(grid: Grid, results: Results, *, quote: bool = False) -> Iterator[Section]:
    """Yield the section of a grid's figure, from the first seed of each row.

    ``quote`` shows the nearest sentences themselves, which belong to the data set.

    Raises:
        DataError: ``quote`` needs a file that is missing.
    """
    runs = {row.name: results.get(row.name) for row in grid.rows}  # in the grid's order
    first = {name: found[min(found)] for name, found in runs.items() if found}
    draw = {
        "path": _paths,
        "plane": _plane,
        "density": _densities,
        "spectrum": _spectrum,
    }.get(grid.figure)
    picture = draw(first) if draw else None
    if picture is not None:
        yield Section("The figure", [FIRST_SEED, picture])
    if grid.figure == "neighbors" and grid.search is not None:
        tables = [_neighbors(query, first, grid.search, quote) for query in grid.queries]
        yield Section("Nearest sentences", [FIRST_SEED, *tables])


def _paths(rows: Mapping[str, Result]) -> Picture | None:
    paths = [
        plots.Trajectory(
            name,
            [(each["dev_alignment"], each["dev_uniformity"]) for each in row["evaluations"]],
        )
        for name, row in rows.items()
        if row.get("evaluations") and "dev_alignment" in row["evaluations"][0]
    ]
    text = "Alignment and uniformity of STS-B dev during training, one path per row"
    return Picture(alignment_uniformity_plane([], trajectories=paths), text) if paths else None


def _plane(rows: Mapping[str, Result]) -> Picture | None:
    points = [
        PlanePoint(name, scores["alignment"], scores["uniformity"], find_score(row, "sts_avg"))
        for name, row in rows.items()
        if (scores := row["scores"]).get("alignment") is not None
    ]
    text = "Alignment and uniformity on STS-B test; in brackets the STS average"
    return Picture(alignment_uniformity_plane(points), text, text) if points else None


def _densities(rows: Mapping[str, Result]) -> Picture | None:
    found = {name: cosines_of(row["cosines"]) for name, row in rows.items() if row.get("cosines")}
    text = "Cosines of STS-B test pairs by their human rating; a short line is the median"
    return Picture(rating_densities(found), text, text) if found else None


def _spectrum(rows: Mapping[str, Result]) -> Picture | None:
    found = {
        name: row["singular_values"] for name, row in rows.items() if row.get("singular_values")
    }
    text = "Singular values of the STS-B test embeddings, the largest scaled to 1"
    return Picture(spectrum(found), text, text) if found else None


def _neighbors(query: str, rows: Mapping[str, Result], search: str, quote: bool) -> Table:
    """Return the nearest sentences of one query, one rank per row and one model per column."""
    found = {name: row["neighbors"][query] for name, row in rows.items() if "neighbors" in row}
    wanted = {int(line) for neighbors in found.values() for line, _, _ in neighbors}
    texts = _read_texts(find_file(Path(search)), wanted) if quote else {}
    columns = [
        [f"{_text(texts, int(line), int(column))} ({cosine:.2f})" for line, column, cosine in each]
        for each in found.values()
    ]
    ranked = tuple((rank, *cells) for rank, cells in enumerate(zip(*columns, strict=True), 1))
    titles = (Column("Rank"), *(Column(name) for name in found))
    return Table(f"Nearest to “{query}” in {Path(search).name}, with the cosine", titles, ranked)


def _text(texts: Mapping[int, tuple[str, str]], line: int, column: int) -> str:
    return texts[line][column - 1] if texts else f"line {line}, column {column}"


def _read_texts(path: Path, wanted: set[int]) -> dict[int, tuple[str, str]]:
    rows = islice(stream_examples(Source(path)), max(wanted, default=0))
    return {row.line: (row.anchor, row.positive or "") for row in rows if row.line in wanted}
