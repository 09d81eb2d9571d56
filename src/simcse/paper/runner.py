"""Running a grid: missing runs are trained and evaluated, with one small result file each."""

import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from simcse.errors import NumericError, StoppedError
from simcse.evaluate.suite import EvaluationSuite
from simcse.io.files import write_text
from simcse.io.locks import lock_folder
from simcse.io.log import read_log
from simcse.io.results import write_results
from simcse.model.encoder import SentenceEncoder
from simcse.paper.evaluation import (
    NeighborSearch,
    evaluate_encoder,
    has_tests,
    load_tests,
    read_search,
    with_layer,
)
from simcse.paper.grid import Grid
from simcse.paper.metrics import DEV, DEV_GEOMETRY, families
from simcse.paper.plan import GridOptions, GridPlan, GridRun, plan_grid, plan_values
from simcse.paper.progress import (
    EvaluationProgressed,
    GridRunDone,
    GridRunStarted,
    GridStarted,
)
from simcse.paper.results import Store
from simcse.paper.training_files import TrainingFiles, find_file
from simcse.report.versions import versions
from simcse.train.callbacks import BEST, LAST, LOG
from simcse.train.events import Callback, DevMetrics
from simcse.train.provenance import code_sha256, hardware
from simcse.train.run import load_start, train
from simcse.train.training_data import find_validation

RESULTS, WORK, GRID = "results", ".work", ".grid.json"
BUSY = "{folder} is locked: {holder} runs a grid there"
MAX_EVALUATIONS = 200  # stored per run, which is enough for a path in a figure
ENCODING_SPEED = 6  # relative to training, in sentences: an estimate for the progress bar


def run_grid(
    grid: Grid, output: Path, options: GridOptions, *, command: str = "", callback: Callback
) -> None:
    """Run a grid in a folder, for `simcse.paper.report` to read.

    A run whose result exists, from any grid, is not repeated. An interrupted run continues from its
    checkpoint.

    Args:
        grid: the rows.
        output: a folder that several grids may share.
        options: which runs, and on what.
        command: the command line.
        callback: receives the events of the trainings, and those of `simcse.paper.progress`.

    Raises:
        UsageError: a row of ``options`` does not exist, or no row can be run.
        ConfigError: a setting is wrong.
        DataError: a training or test file is missing or wrong.
        ResourceError: the folder cannot be written, or another grid runs in it.
        StoppedError: SIGINT or SIGTERM was received; the same command continues.
    """
    work = output / WORK
    with lock_folder(work, busy=BUSY):
        write_text(work / ".gitignore", "*\n")  # only the results are committed
        search = None
        if grid.search is not None:
            search = read_search(find_file(Path(grid.search)), grid.queries, options.sentences)
        tests = load_tests(families(grid.all_metrics), options.protocol, search)
        plan = plan_grid(grid, options, TrainingFiles(work / "data", options.masked_model))
        values = plan_values(grid, plan, options)
        write_results(
            output / f"{grid.slug}{GRID}", {**values, "command": command, "versions": versions()}
        )
        store = Store(output / RESULTS)
        runs = {run.recipe.key: run for run in plan.runs}
        missing = [run for key, run in runs.items() if not store.find(key, plan.tests)]
        runner = _Runner(grid, plan, tests, search, output, options, command, callback)
        costs = [runner.cost(run) for run in missing]
        callback(GridStarted(len(runs) - len(missing), costs))
        _run_all(missing, runner, store, callback)


def _run_all(runs: list[GridRun], runner: "_Runner", store: Store, callback: Callback) -> None:
    done = 0
    try:
        for run in runs:
            callback(GridRunStarted(run.row.name, run.config.seed))
            store.write(run.recipe.key, runner.result(run))
            done += 1
            callback(GridRunDone())
    except (StoppedError, KeyboardInterrupt) as error:
        code = error.exit_code - 128 if isinstance(error, StoppedError) else signal.SIGINT
        raise StoppedError(
            f"stopped with {len(runs) - done} runs missing; the same command continues here", code
        ) from error


@dataclass
class _Runner:
    """Trains and evaluates the runs of one grid."""

    grid: Grid
    plan: GridPlan
    tests: EvaluationSuite
    search: NeighborSearch | None
    output: Path
    options: GridOptions
    command: str
    callback: Callback

    def cost(self, run: GridRun) -> tuple[float, float]:
        """Estimate the time of training and of evaluation, in sentences trained on."""
        tested = sum(1 for _ in self.tests.sentences()) / ENCODING_SPEED
        return float(run.steps * run.config.optim.batch_size), tested

    def result(self, run: GridRun) -> dict[str, Any]:
        """Train and evaluate one run.

        Raises:
            StoppedError: a signal was received; the training continues from a checkpoint.
        """
        folder = self.output / WORK / "runs" / run.recipe.key
        try:
            if run.row.start:
                found = self._evaluated(run, lambda: load_start(self.plan.model, run.config), {})
            else:
                found = self._trained(run, folder)
        except NumericError as error:  # is a result, because a repetition would end the same
            found = {"scores": {}, "seconds": {}, "failed": str(error)}
        if not self.options.save_models:
            shutil.rmtree(folder, ignore_errors=True)
        model = self.plan.model
        return {
            **found,
            "recipe": run.recipe.to_json(),
            "model": Path(model).name if Path(model).is_dir() else model,
            "grid": self.grid.slug,
            "row": run.row.name,
            "data": run.data.to_json() if run.data else {},
            "tests": list(self.plan.tests),
            "versions": versions(),
            "hardware": hardware(),
            "code_sha256": code_sha256(),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }

    def _trained(self, run: GridRun, folder: Path) -> dict[str, Any]:
        result = train(
            [run.data.path] if run.data else [],
            model=self.plan.model,
            output=folder,
            config=run.config,
            resume=True,
            command=self.command,
            callbacks=[self.callback],
            report=None,
        )
        # The start model is no row of the table: without a better evaluation, the last one counts.
        chosen = BEST if result.best_step else LAST
        metrics = result.best if result.best_step else result.last
        found = self._evaluated(
            run, lambda: SentenceEncoder.load(folder / chosen, precision="fp32"), metrics
        )
        found["seconds"]["training"] = result.seconds
        return {
            **found,
            "start": dev_scores(result.start),
            "chosen_step": result.best_step or result.steps,
            "steps": result.steps,
            "evaluations": _evaluations(folder / LOG),
        }

    def _evaluated(
        self, run: GridRun, model: Callable[[], SentenceEncoder], metrics: DevMetrics
    ) -> dict[str, Any]:
        """Return all scores; ``metrics`` are those of the dev set, or empty if unknown."""
        started = time.perf_counter()
        found: dict[str, Any] = {"scores": {}}
        fitted = run.row.postprocess != "none"
        if fitted or not metrics or has_tests(self.tests):
            encoder = model()
            if fitted and run.data is not None:
                limit = self.options.sentences
                encoder = with_layer(encoder, run.row.postprocess, run.data.path, limit)
            if (fitted or not metrics) and (validate := find_validation(run.config, [])):
                metrics = validate(encoder).metrics
            if has_tests(self.tests):
                found = evaluate_encoder(encoder, self.tests, self._progress, self.search)
        found["scores"] |= dev_scores(metrics)
        return {**found, "seconds": {"measuring": time.perf_counter() - started}}

    def _progress(self, what: str, done: int, total: int) -> None:
        self.callback(EvaluationProgressed(what, done, total))


def dev_scores(metrics: DevMetrics) -> dict[str, float | None]:
    """Return dev metrics under the names of a grid's metrics."""
    deciding = next(iter(metrics), "")
    geometry = {f"dev_{name}": metrics[name] for name in DEV_GEOMETRY if name in metrics}
    return {DEV: metrics[deciding], **geometry} if metrics else {}


def _evaluations(log: Path) -> list[Mapping[str, Any]]:
    """Return step and dev scores of a run's evaluations, evenly thinned if there are many."""
    rows = [event for event in read_log(log) if event["event"] == "eval"]
    stride = -(-len(rows) // MAX_EVALUATIONS)
    others = ("event", "step", "best", "loss", "gradient_norm")
    return [
        {
            "step": row["step"],
            **dev_scores({name: value for name, value in row.items() if name not in others}),
        }
        for row in rows[::stride]
    ]
