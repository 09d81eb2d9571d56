"""Grids: a table or figure of the paper, or one's own ablation, as a small TOML file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from simcse.config import build, merge
from simcse.errors import ConfigError, UsageError
from simcse.io.settings import read_toml
from simcse.paper.measures import DEV, check_measure
from simcse.train.presets import find_preset
from simcse.train.settings import TrainConfig

GRIDS = Path(__file__).with_name("tables")
Figure = Literal["differences", "path", "plane", "density", "spectrum", "neighbors"]
Make = Literal["rows", "crop", "delete", "delete-one", "synonym", "mlm", "neighbors", "nli"]


@dataclass(frozen=True)
class Material:
    """How a row's training file is made from the grid's corpus.

    Attributes:
        make: ``rows`` takes the corpus as it is; the augmentations of `simcse.data.augment` pair
            each sentence with a changed one; ``neighbors`` pairs it with one that follows
            (`simcse.data.neighbors`); ``nli`` makes pairs or triplets of labeled rows
            (`simcse.data.nli`).
        rate: share of the words that an augmentation changes.
        ahead: for ``neighbors``, of how many sentences that follow one is drawn.
        positives: for ``nli``, the label of the hypotheses that become positives, or ``all``.
        hard_negatives: for ``nli``, the labels of those that become hard negatives.
    """

    make: Make = "rows"
    rate: float | None = None
    ahead: int | None = None
    positives: str | None = None
    hard_negatives: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.ahead is not None) is not (self.make == "neighbors"):
            raise ConfigError("data.ahead goes with make = neighbors, and it needs one")
        if (self.positives is not None) is not (self.make == "nli"):
            raise ConfigError("data.positives goes with make = nli, and it needs one")
        if self.hard_negatives and self.make != "nli":
            raise ConfigError("data.hard_negatives goes with make = nli")


@dataclass(frozen=True)
class Row:
    """One row of a grid: what it changes, and what was published for it.

    Attributes:
        name: as the report shows it.
        group: rows of one group are compared with one another; by default all are.
        baseline: whether it is the row that the others of its group are compared with.
        published: scores by measure.
        preset: the recipe, where it is not the grid's.
        corpus: the training file, where it is not the grid's.
        data: what is made of the corpus.
        start: the start model itself is measured, nothing is trained.
        postprocess: fitted to the model's embeddings of its training rows.
        missing: why the row cannot be run.
        settings: of `TrainConfig`, nested; what the row changes.
    """

    name: str
    group: str = ""
    baseline: bool = False
    published: Mapping[str, float] = field(default_factory=dict)
    preset: str | None = None
    corpus: str | None = None
    data: Material = field(default_factory=Material)
    start: bool = False
    postprocess: Literal["none", "whitening", "all-but-the-top", "flow"] = "none"
    missing: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
    """Rows that are run alike but for what each one changes.

    Attributes:
        name: of the file.
        title: what the rows vary.
        source: the table or figure of the paper.
        claim: what the paper says of it in words, above all where it gives no figures.
        note: what a reader must know of how it is rerun.
        measures: what rows are ranked by; see `simcse.paper.measures`.
        also: what else is measured and shown.
        figure: what is drawn.
        backbone: the start model, where it is not the preset's.
        preset: the recipe of the paper.
        corpus: the training file, a path of this folder or below the data folder.
        settings: of every row.
        search: for ``neighbors``, the pairs that are searched; a path as ``corpus``.
        queries: for ``neighbors``, sentences whose nearest ones there are looked up.
        rows: at least one.
    """

    name: str
    title: str
    source: str = ""
    claim: str = ""
    note: str = ""
    measures: tuple[str, ...] = (DEV,)
    also: tuple[str, ...] = ()
    figure: Figure = "differences"
    backbone: str | None = None
    preset: str | None = None
    corpus: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    search: str | None = None
    queries: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()

    @property
    def slug(self) -> str:
        """What its files are called."""
        return f"table-{self.name}" if self.name.isdecimal() else self.name

    @property
    def wanted(self) -> tuple[str, ...]:
        """Everything that is measured."""
        drawn = {
            "path": (),
            "differences": (),
            "plane": ("alignment", "uniformity"),
            "density": ("cosines",),
            "spectrum": ("singular_values",),
            "neighbors": ("neighbors",),
        }[self.figure]
        return tuple(dict.fromkeys((*self.measures, *self.also, *drawn)))

    def baseline(self, group: str) -> Row | None:
        """Return what the rows of a group are compared with, if there is such a row."""
        return next((row for row in self.rows if row.group == group and row.baseline), None)

    def find_backbone(self) -> str:
        """Return the start model where none is named."""
        names = (self.preset, *(row.preset for row in self.rows))
        presets = [find_preset(name).backbone for name in names if name]
        return self.backbone or next(iter(presets), "mini")


def grid_from(stored: Mapping[str, Any]) -> Grid:
    """Return a grid that `dataclasses.asdict` made plain.

    Raises:
        ConfigError: it is none.
    """
    plain = {key: value for key, value in stored.items() if key not in ("name", "rows")}
    return _grid(stored["name"], {**plain, "row": stored["rows"]})


def list_grids() -> list[str]:
    """Return the names of the paper's grids, in the paper's order."""
    return sorted((path.stem for path in GRIDS.glob("*.toml")), key=paper_order)


def paper_order(name: str) -> tuple[int, str]:
    """Sort by it: numbered tables first, in their order."""
    return (int(name), "") if name.isdecimal() else (100, name)


def paper_grid(name: str) -> Grid:
    """Return a table or figure of the paper.

    Raises:
        UsageError: there is none of that name.
    """
    known = list_grids()
    if name not in known:
        raise UsageError(f"no table {name!r}; there are {', '.join(known)}")
    return read_grid(GRIDS / f"{name}.toml")


def read_grid(path: Path) -> Grid:
    """Read a grid and build the settings of every row, so that a misspelled one fails at once.

    Raises:
        ConfigError: the file is missing or no TOML; a key or value is wrong; rows share a name.
    """
    values = read_toml(path)
    try:
        grid = _grid(path.stem, values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    for row in grid.rows:
        try:
            row_config(grid, row, {})
        except ConfigError as error:
            raise ConfigError(f"{path}: row {row.name!r}: {error}") from error
    return grid


def row_config(grid: Grid, row: Row, overrides: Mapping[str, Any]) -> TrainConfig:
    """Return a row's settings: preset, grid, what was typed, and over all that what it changes.

    Raises:
        ConfigError: a setting is unknown or has a wrong value.
    """
    name = row.preset or grid.preset
    values: dict[str, Any] = dict(find_preset(name).settings) if name else {}
    for more in (grid.settings, overrides, row.settings):
        values = merge(values, more)
    return build(TrainConfig, values)


def _grid(name: str, values: Mapping[str, Any]) -> Grid:
    rows, settings = values.get("row", []), _settings(values)
    plain = {key: value for key, value in values.items() if key not in ("row", "settings")}
    if unknown := plain.keys() & {"name", "rows"}:
        raise ConfigError(f"unknown setting {min(unknown)!r}; a row is a [[row]]")
    if not (isinstance(rows, list | tuple) and rows and all(isinstance(row, dict) for row in rows)):
        raise ConfigError("expected one [[row]] or more")
    grid = build(Grid, {"name": name, **plain})
    for measure in (*grid.measures, *grid.also):
        check_measure(measure)
    if (grid.figure == "neighbors") is not (grid.search is not None):
        raise ConfigError("search goes with figure = neighbors, and it needs one")
    if not grid.measures:
        raise ConfigError("measures names nothing to rank rows by")
    grid = replace(
        grid, settings=settings, rows=tuple(_row(values, grid.measures[0]) for values in rows)
    )
    _check_rows(grid)
    return grid


def _settings(values: Mapping[str, Any]) -> Mapping[str, Any]:
    settings: Any = values.get("settings", {})
    if not isinstance(settings, Mapping):
        raise ConfigError(f"settings is a section, got the value {settings!r}")
    return settings


def _row(values: Mapping[str, Any], measure: str) -> Row:
    settings, published = _settings(values), values.get("published", {})
    if not isinstance(published, Mapping):
        published = {measure: published}
    for name, score in published.items():
        check_measure(name)
        if isinstance(score, bool) or not isinstance(score, int | float):
            raise ConfigError(f"published must be a number, got {score!r}")
    plain = {key: value for key, value in values.items() if key not in ("settings", "published")}
    row = replace(build(Row, plain), settings=settings, published=published)
    if row.missing and (settings or row.start):
        raise ConfigError(f"row {row.name!r}: one that is missing has nothing to set")
    return row


def _check_rows(grid: Grid) -> None:
    names = [row.name for row in grid.rows]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two rows are called {twice!r}")
    for group in dict.fromkeys(row.group for row in grid.rows):
        marked = [row.name for row in grid.rows if row.group == group and row.baseline]
        if len(marked) > 1:
            raise ConfigError(f"one row of a group is its baseline, got {', '.join(marked)}")
    for row in grid.rows:
        if not (row.missing or row.start or row.corpus or grid.corpus):
            raise ConfigError(f"row {row.name!r} has no corpus to train on")
