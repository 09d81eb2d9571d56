"""From a grid and the options of a command to the runs that it needs."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from simcse.errors import ConfigError, DataError, UsageError
from simcse.evaluate.classifier import FAST, FULL, Protocol
from simcse.io.files import ReadCounts
from simcse.io.records import Example
from simcse.paper.grid import Grid, GridRow, row_config
from simcse.paper.metrics import families
from simcse.paper.results import Recipe
from simcse.paper.training_files import MissingDataError, TrainingFile, TrainingFiles, find_corpus
from simcse.train.order import count_steps
from simcse.train.provenance import dev_files, flat, model_sha256
from simcse.train.settings import TrainConfig
from simcse.train.training_data import read_training_rows

MIN_EVALUATIONS = 4  # of a run that is too short for several at the paper's interval


@dataclass(frozen=True)
class GridOptions:
    """Options of a command that runs a grid."""

    backbone: str | None = None  # the start model; None for the grid's
    corpus: Path | None = None  # the training file of rows that name none; None for the grid's
    # Number of rows to train on, from the start of the file; None for all.
    sentences: int | None = None
    seeds: int = 3  # number of runs per row, from the setting seed upward
    rows: tuple[str, ...] = ()  # names of the rows to run; empty for all
    # Nested, laid over the grid's and under each row's own.
    settings: Mapping[str, Any] = field(default_factory=dict)
    fast: bool = False  # whether the transfer tasks use SentEval's quick variant
    save_models: bool = False  # whether the models of finished runs stay
    masked_model: str | None = None  # predicts the words of the augmentation mlm

    @property
    def protocol(self) -> Protocol:
        """The training of the transfer classifiers."""
        return FAST if self.fast else FULL


@dataclass(frozen=True)
class GridRun:
    """One row with one seed."""

    row: GridRow  # the row
    config: TrainConfig  # all settings, with the seed
    data: TrainingFile | None  # the training file; None where none is read
    recipe: Recipe  # everything that its scores depend on
    steps: int  # number of updates; 0 where nothing is trained


@dataclass(frozen=True)
class GridPlan:
    """The runs of a grid in the order of their seeds, so that a stopped grid has all rows."""

    model: str  # the start model
    runs: tuple[GridRun, ...]  # all runs, whether their results exist or not
    left_out: Mapping[str, str]  # reasons by row, for rows that are not run
    tests: tuple[str, ...]  # what is evaluated besides the dev set


def plan_grid(grid: Grid, options: GridOptions, files: TrainingFiles) -> GridPlan:
    """Prepare the training files of a grid's rows and list its runs.

    Raises:
        UsageError: a row of ``options`` does not exist, or no row can be run.
        ConfigError: a setting is wrong, or every row sets it itself.
        DataError: a corpus cannot be read or does not fit.
    """
    _check_options(grid, options)
    planner = _Planner(grid, options, files)
    left_out: dict[str, str] = {}
    rows: list[list[GridRun]] = []
    for row in grid.rows:
        reason = row.missing
        if not reason and options.rows and row.name not in options.rows:
            reason = "left out by --rows"
        if not reason:
            try:
                rows.append(list(planner.runs(row)))
            except MissingDataError as error:
                reason = str(error)
        if reason:
            left_out[row.name] = reason
    if not rows:
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in left_out.items())
        raise UsageError(f"no row of {grid.name} can be run:\n{reasons}")
    by_seed = [row[k] for k in range(options.seeds) for row in rows if k < len(row)]
    return GridPlan(planner.model, tuple(by_seed), left_out, test_names(grid, options))


def test_names(grid: Grid, options: GridOptions) -> tuple[str, ...]:
    """Return the names of what a finished run was evaluated on, besides the dev set."""
    suffixes = {
        "transfer": " (fast)" if options.fast else "",
        "neighbors": f" of {options.sentences or 'all'} rows",
    }
    wanted = families(grid.all_metrics) - {"dev"}
    return tuple(sorted(f"{name}{suffixes.get(name, '')}" for name in wanted))


class _Planner:
    """Lists the runs of a row, and reads each file once."""

    def __init__(self, grid: Grid, options: GridOptions, files: TrainingFiles) -> None:
        self.grid, self.options, self.files = grid, options, files
        self.model = options.backbone or grid.find_backbone()
        self.model_sha256 = model_sha256(self.model)
        self._counts: dict[tuple[Any, ...], tuple[int, bool]] = {}

    def runs(self, row: GridRow) -> Iterator[GridRun]:
        """Yield a row's runs, one per seed; without training there is one."""
        config = row_config(self.grid, row, self.options.settings)
        data = None if row.start and row.postprocess == "none" else self._prepare(row)
        steps = 0
        if data is not None and self.options.sentences is not None:
            config = replace(config, data=replace(config.data, limit=self.options.sentences))
        if data is not None and not row.start:
            steps = self._count_steps(data, config)
            config = self._with_interval(row, config, steps)
        if not config.eval.sets or config.eval.sets[0] == "heldout":
            raise ConfigError(
                f"a grid ranks its rows by a rated set, got eval.dev={config.eval.dev}"
            )
        dev = tuple(self.files.sha256(path) for path in dev_files(config.eval.sets))
        data_sha256 = data.sha256 if data else ""
        for k in range(1 if row.start else self.options.seeds):
            seeded = replace(config, seed=config.seed + k)
            recipe = Recipe(self.model_sha256, data_sha256, dev, seeded, row.start, row.postprocess)
            yield GridRun(row, seeded, data, recipe, steps)

    def _prepare(self, row: GridRow) -> TrainingFile:
        try:
            corpus = find_corpus(self.grid, row, self.options.corpus)
        except DataError as error:
            raise MissingDataError(str(error)) from error
        return self.files.prepare(row.data, corpus, self.options.sentences)

    def _count_steps(self, data: TrainingFile, config: TrainConfig) -> int:
        known = (data.path, config.data, config.loss.type)
        if known not in self._counts:
            examples: list[Example] = read_training_rows([data.path], config, ReadCounts())
            self._counts[known] = len(examples), any(each.negatives for each in examples)
        rows, keep_single = self._counts[known]
        return count_steps(rows, config.optim, keep_single=keep_single)

    def _with_interval(self, row: GridRow, config: TrainConfig, steps: int) -> TrainConfig:
        """Evaluate a short run several times, unless eval.every is set."""
        sources = (self.grid.settings, self.options.settings, row.settings)
        if any("every" in settings.get("eval", {}) for settings in sources):
            return config
        every = min(config.eval.every, max(1, -(-steps // MIN_EVALUATIONS)))
        return replace(config, eval=replace(config.eval, every=every))


def _check_options(grid: Grid, options: GridOptions) -> None:
    names = [row.name for row in grid.rows]
    for name in options.rows:
        if name not in names:
            known = "\n  ".join(names)
            raise UsageError(f"{grid.name} has no row {name!r}; its rows are\n  {known}")
    if options.corpus is not None and not options.corpus.is_file():
        raise DataError(f"cannot read {options.corpus}: no such file")
    runnable = [row for row in grid.rows if not row.missing]
    if options.corpus is not None and all(row.corpus or row.start for row in runnable):
        raise UsageError(f"--corpus has no effect: every row of {grid.name} has its own corpus")
    given = set(flat(options.settings)).intersection(*(flat(row.settings) for row in runnable))
    if given:
        raise ConfigError(f"every row of {grid.name} sets {min(given)} itself; leave it out")


def plan_values(grid: Grid, plan: GridPlan, options: GridOptions) -> dict[str, Any]:
    """Return the plain values of a grid and its runs that a report needs."""
    runs: dict[str, dict[str, str]] = {}
    for run in plan.runs:
        runs.setdefault(run.row.name, {})[str(run.config.seed)] = run.recipe.key
    return {
        "grid": asdict(grid),
        "model": Path(plan.model).name if Path(plan.model).is_dir() else plan.model,
        "sentences": options.sentences,
        "seeds": options.seeds,
        "settings": {name: shortened(str(each)) for name, each in flat(options.settings).items()},
        "fast": options.fast,
        "dev": shortened(plan.runs[0].config.eval.sets[0]),
        "corpora": sorted({run.data.corpus for run in plan.runs if run.data}),
        "runs": runs,
        "left_out": dict(plan.left_out),
        "tests": list(plan.tests),
    }


def shortened(word: str) -> str:
    """Return a word of a command without this machine's folders, because results are published.

    Example:
        >>> shortened("eval.dev=/home/me/rated.tsv")
        'eval.dev=rated.tsv'
    """
    name, equals, value = word.rpartition("=")
    return f"{name}{equals}{Path(value).name}" if Path(value).is_absolute() else word
