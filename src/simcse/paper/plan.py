"""From a grid and what was asked of it to the runs it takes."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from simcse.errors import ConfigError, DataError, UsageError
from simcse.evaluate.classifier import FAST, FULL, Protocol
from simcse.io.files import ReadCounts
from simcse.io.records import Example
from simcse.paper.grid import Grid, Row, row_config
from simcse.paper.materials import Materials, MissingError, Prepared, find_corpus
from simcse.paper.measures import families
from simcse.paper.results import Recipe
from simcse.train.loop import count_steps
from simcse.train.provenance import dev_files, flat, model_sha256
from simcse.train.run import read_rows
from simcse.train.settings import TrainConfig

LOOKS = 4  # of a run that is shorter than the paper's interval between two looks would allow


@dataclass(frozen=True)
class Options:
    """What is asked of a grid.

    Attributes:
        backbone: the start model; ``None`` is the grid's.
        corpus: the training file of rows that name none; ``None`` is the grid's.
        sentences: rows to train on, the first ones; ``None`` takes all.
        seeds: runs of each row, from the setting ``seed`` upwards.
        rows: only these, by name; empty for all.
        settings: nested, laid over the grid's and under each row's own.
        fast: SentEval's quick variant of the transfer tasks.
        keep: keep the models of finished runs.
        masked_model: predicts the words of the augmentation ``mlm``.
    """

    backbone: str | None = None
    corpus: Path | None = None
    sentences: int | None = None
    seeds: int = 3
    rows: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    fast: bool = False
    keep: bool = False
    masked_model: str | None = None

    @property
    def protocol(self) -> Protocol:
        """How the classifiers of the transfer tasks are trained."""
        return FAST if self.fast else FULL


@dataclass(frozen=True)
class Run:
    """One row and one seed.

    Attributes:
        row: the row.
        config: all settings, with the seed.
        data: the training file; ``None`` where nothing is read.
        recipe: what its scores depend on.
        steps: updates it takes; 0 where nothing is trained.
    """

    row: Row
    config: TrainConfig
    data: Prepared | None
    recipe: Recipe
    steps: int

    @property
    def key(self) -> str:
        """The hash of its recipe."""
        return self.recipe.key


@dataclass(frozen=True)
class GridPlan:
    """The runs of a grid, seed by seed, so that an interrupted one has all rows.

    Attributes:
        model: the start model.
        runs: what is to be there in the end.
        left_out: rows that cannot be run or are not asked for, and why.
        tests: what is measured beside the dev set.
    """

    model: str
    runs: tuple[Run, ...]
    left_out: Mapping[str, str]
    tests: tuple[str, ...]


def plan_grid(grid: Grid, options: Options, materials: Materials) -> GridPlan:
    """Prepare the training files of a grid's rows and list its runs.

    Raises:
        UsageError: a row is asked for that is not there, or no row can be run.
        ConfigError: a setting is wrong, or one is given that every row sets itself.
        DataError: a corpus cannot be read or is no fit for what is made of it.
    """
    _check_options(grid, options)
    model = options.backbone or grid.find_backbone()
    planner = _Planner(grid, options, materials, model)
    left_out: dict[str, str] = {}
    rows: list[list[Run]] = []
    for row in grid.rows:
        why = row.missing or _not_asked(row, options)
        if not why:
            try:
                rows.append(list(planner.runs(row)))
            except MissingError as error:
                why = str(error)
        if why:
            left_out[row.name] = why
    if not rows:
        reasons = "\n".join(f"  {name}: {why}" for name, why in left_out.items())
        raise UsageError(f"no row of {grid.name} can be run:\n{reasons}")
    by_seed = [row[k] for k in range(options.seeds) for row in rows if k < len(row)]
    return GridPlan(model, tuple(by_seed), left_out, tests_of(grid, options))


def tests_of(grid: Grid, options: Options) -> tuple[str, ...]:
    """Return what a finished run of the grid has been measured on, beside the dev set."""
    how = {"transfer": " (fast)" if options.fast else ""}
    how["neighbors"] = f" of {options.sentences or 'all'} rows"
    wanted = families(grid.wanted) - {"dev"}
    return tuple(sorted(f"{name}{how.get(name, '')}" for name in wanted))


class _Planner:
    """Lists the runs of a row, and reads each file once."""

    def __init__(self, grid: Grid, options: Options, materials: Materials, model: str) -> None:
        self.grid, self.options, self.materials, self.model = grid, options, materials, model
        self.model_sha256 = model_sha256(model)
        self._counts: dict[tuple[Any, ...], tuple[int, bool]] = {}

    def runs(self, row: Row) -> Iterator[Run]:
        """Yield a row's runs, one for each seed; what is not trained has one."""
        config = row_config(self.grid, row, self.options.settings)
        data = None if row.start and row.postprocess == "none" else self._data(row)
        steps = 0
        if data is not None and self.options.sentences is not None:
            config = replace(config, data=replace(config.data, limit=self.options.sentences))
        if data is not None and not row.start:
            steps = self._steps(data, config)
            config = self._looks(row, config, steps)
        _check_dev(config)
        shas = tuple(self.materials.sha256(path) for path in dev_files(config.eval.sets))
        for k in range(1 if row.start else self.options.seeds):
            seeded = replace(config, seed=config.seed + k)
            recipe = Recipe(
                self.model_sha256,
                data.sha256 if data else "",
                shas,
                seeded,
                row.start,
                row.postprocess,
            )
            yield Run(row, seeded, data, recipe, steps)

    def _data(self, row: Row) -> Prepared:
        try:
            corpus = find_corpus(self.grid, row, self.options.corpus)
        except DataError as error:
            raise MissingError(str(error)) from error
        return self.materials.prepare(row.data, corpus, self.options.sentences)

    def _steps(self, data: Prepared, config: TrainConfig) -> int:
        known = (data.path, config.data, config.loss.form)
        if known not in self._counts:
            examples: list[Example] = read_rows([data.path], config, ReadCounts())
            self._counts[known] = len(examples), any(each.negatives for each in examples)
        rows, keep_single = self._counts[known]
        return count_steps(rows, config.optim, keep_single=keep_single)

    def _looks(self, row: Row, config: TrainConfig, steps: int) -> TrainConfig:
        """Look at a short run several times, unless somebody says when."""
        told = (self.grid.settings, self.options.settings, row.settings)
        if any("every" in settings.get("eval", {}) for settings in told):
            return config
        every = min(config.eval.every, max(1, -(-steps // LOOKS)))
        return replace(config, eval=replace(config.eval, every=every))


def _not_asked(row: Row, options: Options) -> str:
    return "" if not options.rows or row.name in options.rows else "left out by --rows"


def _check_dev(config: TrainConfig) -> None:
    if not config.eval.sets or config.eval.sets[0] == "heldout":
        raise ConfigError(f"a grid ranks its rows by a rated set, got eval.dev={config.eval.dev}")


def _check_options(grid: Grid, options: Options) -> None:
    names = [row.name for row in grid.rows]
    for name in options.rows:
        if name not in names:
            known = "\n  ".join(names)
            raise UsageError(f"{grid.name} has no row {name!r}; its rows are\n  {known}")
    if options.corpus is not None and not options.corpus.is_file():
        raise DataError(f"cannot read {options.corpus}: no such file")
    runnable = [row for row in grid.rows if not row.missing]
    if options.corpus is not None and all(row.corpus or row.start for row in runnable):
        raise UsageError(f"--corpus changes nothing: every row of {grid.name} names its own")
    given = set(flat(options.settings)).intersection(*(flat(row.settings) for row in runnable))
    if given:
        raise ConfigError(f"{min(given)} is what every row of {grid.name} sets itself")


def plan_values(grid: Grid, plan: GridPlan, options: Options) -> dict[str, Any]:
    """Return in plain values what a report needs to know of a grid that was run."""
    runs: dict[str, dict[str, str]] = {}
    for run in plan.runs:
        runs.setdefault(run.row.name, {})[str(run.config.seed)] = run.key
    files = {run.data.corpus: run.data for run in plan.runs if run.data}
    return {
        "grid": asdict(grid),
        "model": Path(plan.model).name if Path(plan.model).is_dir() else plan.model,
        "sentences": options.sentences,
        "seeds": options.seeds,
        "settings": {name: shortened(str(each)) for name, each in flat(options.settings).items()},
        "fast": options.fast,
        "dev": shortened(plan.runs[0].config.eval.sets[0]),
        "corpora": sorted(files),
        "runs": runs,
        "left_out": dict(plan.left_out),
        "tests": list(plan.tests),
    }


def shortened(word: str) -> str:
    """Return a typed word without the folders of this machine: results are published.

    Example:
        >>> shortened("eval.dev=/home/me/rated.tsv")
        'eval.dev=rated.tsv'
    """
    name, equals, value = word.rpartition("=")
    return f"{name}{equals}{Path(value).name}" if Path(value).is_absolute() else word
