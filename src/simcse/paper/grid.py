"""Grids of experiments: a table or figure of the paper, or one's own ablation, as a TOML file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from simcse.config import build, merge
from simcse.errors import ConfigError, UsageError
from simcse.io.settings import read_toml
from simcse.paper.metrics import DEV, check_metric
from simcse.train.presets import find_preset
from simcse.train.settings import TrainConfig

GRIDS = Path(__file__).with_name("tables")
Figure = Literal["differences", "path", "plane", "density", "spectrum", "neighbors"]
DRAWN: Mapping[Figure, tuple[str, ...]] = {  # the metrics that a figure shows
    "plane": ("alignment", "uniformity"),
    "density": ("cosines",),
    "spectrum": ("singular_values",),
    "neighbors": ("neighbors",),
}


@dataclass(frozen=True)
class TrainingFileSpec:
    """How the training file of a row is made from the corpus."""

    # "rows" uses the corpus itself. The augmentations of `simcse.data.augment` pair each sentence
    # with a changed one, "neighbors" with a following one (`simcse.data.neighbors`), and "nli"
    # makes pairs or triplets of labeled rows (`simcse.data.nli`).
    make: Literal["rows", "crop", "delete", "delete-one", "synonym", "mlm", "neighbors", "nli"] = (
        "rows"
    )
    rate: float | None = None  # share of the words that an augmentation changes
    ahead: int | None = None  # for neighbors, the number of following sentences to choose from
    # For nli, the label of the hypotheses that become positives, or all.
    positives: str | None = None
    hard_negatives: tuple[str, ...] = ()  # for nli, the labels of those that become hard negatives

    def __post_init__(self) -> None:
        if (self.ahead is not None) is not (self.make == "neighbors"):
            raise ConfigError("data.ahead is required with make = neighbors, and only goes with it")
        if (self.positives is not None) is not (self.make == "nli"):
            raise ConfigError("data.positives is required with make = nli, and only goes with it")
        if self.hard_negatives and self.make != "nli":
            raise ConfigError("data.hard_negatives only goes with make = nli")


@dataclass(frozen=True)
class GridRow:
    """One row of a grid: the settings that it changes, and its published scores."""

    name: str  # as the report shows it
    group: str = ""  # rows of one group are compared with each other; by default all are
    baseline: bool = False  # whether the other rows of its group are compared with it
    published: Mapping[str, float] = field(default_factory=dict)  # scores by metric
    preset: str | None = None  # the recipe, in place of the grid's
    corpus: str | None = None  # the training file, in place of the grid's
    # How the training file is made from the corpus.
    data: TrainingFileSpec = field(default_factory=TrainingFileSpec)
    start: bool = False  # whether the start model itself is evaluated, without training
    # Layer that is fitted to the model's embeddings of the training rows.
    postprocess: Literal["none", "whitening", "all-but-the-top", "flow"] = "none"
    missing: str = ""  # why the row cannot be run
    # Of `TrainConfig`, nested; only those that the row changes.
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
    """Experiments that differ only in what each row changes."""

    name: str  # of the file
    title: str  # what the rows vary
    source: str = ""  # the table or figure of the paper
    claim: str = ""  # the statement of the paper
    note: str = ""  # what a reader must know about the rerun
    metrics: tuple[str, ...] = (DEV,)  # what rows are ranked by; see `simcse.paper.metrics`
    extra_metrics: tuple[str, ...] = ()  # further metrics that are shown
    figure: Figure = "differences"  # the figure that is drawn
    backbone: str | None = None  # the start model, in place of the preset's
    preset: str | None = None  # the recipe of the paper
    corpus: str | None = None  # the training file, a path here or below the data folder
    settings: Mapping[str, Any] = field(default_factory=dict)  # of every row
    search: str | None = None  # for neighbors, the pairs that are searched; a path like corpus
    queries: tuple[str, ...] = ()  # for neighbors, the sentences whose neighbors are shown
    rows: tuple[GridRow, ...] = ()  # at least one

    @property
    def slug(self) -> str:
        """Name of its files."""
        return f"table-{self.name}" if self.name.isdecimal() else self.name

    @property
    def all_metrics(self) -> tuple[str, ...]:
        """Names of everything that is computed."""
        drawn = DRAWN.get(self.figure, ())
        return tuple(dict.fromkeys((*self.metrics, *self.extra_metrics, *drawn)))

    def find_backbone(self) -> str:
        """Return the start model of the grid or its preset."""
        names = (self.preset, *(row.preset for row in self.rows))
        presets = [find_preset(name).backbone for name in names if name]
        return self.backbone or next(iter(presets), "mini")


def grid_from(stored: Mapping[str, Any]) -> Grid:
    """Return a grid from the plain values of `dataclasses.asdict`.

    Raises:
        ConfigError: they are not those of a grid.
    """
    plain = {key: value for key, value in stored.items() if key not in ("name", "rows")}
    return _grid(stored["name"], {**plain, "row": stored["rows"]})


def list_grids() -> list[str]:
    """Return the names of the paper's grids, in the paper's order."""
    return sorted((path.stem for path in GRIDS.glob("*.toml")), key=paper_order)


def paper_order(name: str) -> tuple[int, str]:
    """Return a sort key: numbered tables come first, in their order."""
    return (int(name), "") if name.isdecimal() else (100, name)


def paper_grid(name: str) -> Grid:
    """Return a table or figure of the paper.

    Raises:
        UsageError: there is none of that name.
    """
    known = list_grids()
    if name not in known:
        raise UsageError(f"no table {name!r}; the tables are {', '.join(known)}")
    return read_grid(GRIDS / f"{name}.toml")


def read_grid(path: Path) -> Grid:
    """Read a grid and build the settings of every row, so that a wrong one fails at once.

    Raises:
        ConfigError: the file is missing or not TOML; a key or value is wrong; rows share a name.
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


def row_config(grid: Grid, row: GridRow, overrides: Mapping[str, Any]) -> TrainConfig:
    """Return a row's settings: preset < grid < overrides < what the row changes.

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
        raise ConfigError(f"unknown setting {min(unknown)!r}; write each row as [[row]]")
    if not (isinstance(rows, list | tuple) and rows and all(isinstance(row, dict) for row in rows)):
        raise ConfigError("expected one [[row]] or more")
    grid = build(Grid, {"name": name, **plain})
    for metric in (*grid.metrics, *grid.extra_metrics):
        check_metric(metric)
    if (grid.figure == "neighbors") is not (grid.search is not None):
        raise ConfigError("search is required with figure = neighbors, and only goes with it")
    if not grid.metrics:
        raise ConfigError("metrics is empty; name one to rank the rows by")
    grid = replace(
        grid, settings=settings, rows=tuple(_row(values, grid.metrics[0]) for values in rows)
    )
    _check_rows(grid)
    return grid


def _settings(values: Mapping[str, Any]) -> Mapping[str, Any]:
    settings: Any = values.get("settings", {})
    if not isinstance(settings, Mapping):
        raise ConfigError(f"expected settings as a section, got the value {settings!r}")
    return settings


def _row(values: Mapping[str, Any], metric: str) -> GridRow:
    settings, published = _settings(values), values.get("published", {})
    if not isinstance(published, Mapping):
        published = {metric: published}
    for name, score in published.items():
        check_metric(name)
        if isinstance(score, bool) or not isinstance(score, int | float):
            raise ConfigError(f"published must be a number, got {score!r}")
    plain = {key: value for key, value in values.items() if key not in ("settings", "published")}
    row = replace(build(GridRow, plain), settings=settings, published=published)
    if row.missing and (settings or row.start):
        raise ConfigError(f"row {row.name!r} is missing, so it cannot have settings or start")
    return row


def _check_rows(grid: Grid) -> None:
    names = [row.name for row in grid.rows]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two rows have the name {twice!r}")
    for group in dict.fromkeys(row.group for row in grid.rows):
        marked = [row.name for row in grid.rows if row.group == group and row.baseline]
        if len(marked) > 1:
            raise ConfigError(f"expected one baseline per group, got {', '.join(marked)}")
    for row in grid.rows:
        if not (row.missing or row.start or row.corpus or grid.corpus):
            raise ConfigError(f"row {row.name!r} has no corpus to train on")
