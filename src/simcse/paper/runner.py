"""Carrying a grid out: what is not there yet is trained and measured, one small result a run."""

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
    Search,
    is_empty,
    measure_encoder,
    plan_tests,
    read_search,
    with_layer,
)
from simcse.paper.grid import Grid
from simcse.paper.materials import Materials, find_file
from simcse.paper.measures import DEV, WATCHED, families
from simcse.paper.plan import GridPlan, Options, Run, plan_grid, plan_values
from simcse.paper.results import Store
from simcse.report.versions import versions
from simcse.train.evaluator import Event
from simcse.train.provenance import code_sha256, hardware
from simcse.train.run import BEST, LAST, LOG, find_validation, load_start, train_run
from simcse.train.validation import Metrics

RESULTS, WORK, GRID = "results", ".work", ".grid.json"
BUSY = "{folder} is locked: {holder} carries out a grid there"
MOST_LOOKS = 200  # kept of a run: enough for a path
ENCODING = 6  # sentences are encoded in the time that one is trained on, as a rule of thumb
Observe = Callable[[Event], None]


def run_grid(
    grid: Grid, output: Path, options: Options, *, command: str = "", observe: Observe
) -> None:
    """Carry out a grid in a folder, for `simcse.paper.outcome` to read.

    A run whose result is there, by whatever grid, is not repeated; one that was interrupted goes
    on from its checkpoint.

    Args:
        grid: the rows.
        output: a folder that several grids may share.
        options: what is asked.
        command: what was typed.
        observe: is told of every event of a training, and of ``grid``, ``run``, ``measure`` and
            ``done``.

    Raises:
        UsageError: a row is asked for that is not there, or none can be run.
        ConfigError: a setting is wrong.
        DataError: a training or test file is missing or wrong.
        ResourceError: the folder cannot be written, or another grid is carried out in it.
        StoppedError: Ctrl-C or SIGTERM was received; the same command goes on.
    """
    work = output / WORK
    with lock_folder(work, busy=BUSY):
        write_text(work / ".gitignore", "*\n")  # results are committed, what made them is not
        search = _search(grid, options)
        tests = plan_tests(families(grid.wanted), options.protocol, search)
        plan = plan_grid(grid, options, Materials(work / "data", options.masked_model))
        values = plan_values(grid, plan, options)
        write_results(
            output / f"{grid.slug}{GRID}", {**values, "command": command, "versions": versions()}
        )
        store = Store(output / RESULTS)
        left = {run.key: run for run in plan.runs if not store.find(run.key, plan.tests)}
        runner = _Runner(grid, plan, tests, search, output, options, command, observe)
        sizes = [runner.size(run) for run in left.values()]
        there = len({run.key for run in plan.runs}) - len(left)
        observe({"event": "grid", "there": there, "sizes": sizes})
        _run_all(list(left.values()), runner, store, observe)


def _run_all(runs: list[Run], runner: "_Runner", store: Store, observe: Observe) -> None:
    done = 0
    try:
        for run in runs:
            observe({"event": "run", "row": run.row.name, "seed": run.config.seed})
            store.write(run.key, runner.result(run))
            done += 1
            observe({"event": "done"})
    except (StoppedError, KeyboardInterrupt) as error:
        code = error.exit_code - 128 if isinstance(error, StoppedError) else signal.SIGINT
        raise StoppedError(
            f"stopped with {len(runs) - done} runs to do; the same command goes on from here", code
        ) from error


@dataclass
class _Runner:
    """Trains and measures the runs of one grid."""

    grid: Grid
    plan: GridPlan
    tests: EvaluationSuite
    search: Search | None
    output: Path
    options: Options
    command: str
    observe: Observe

    def size(self, run: Run) -> tuple[float, float]:
        """Estimate how long training and measuring take, in sentences trained on."""
        tested = sum(1 for _ in self.tests.sentences()) / ENCODING
        return float(run.steps * run.config.optim.batch_size), tested

    def result(self, run: Run) -> dict[str, Any]:
        """Train and measure one run.

        Raises:
            StoppedError: a signal asked for it; training goes on from a checkpoint.
        """
        folder = self.output / WORK / "runs" / run.key
        try:
            if run.row.start:
                found = self._measured(run, lambda: load_start(self.plan.model, run.config), {})
            else:
                found = self._trained(run, folder)
        except NumericError as error:  # a finding: it would be the same again
            found = {"scores": {}, "seconds": {}, "failed": str(error)}
        if not self.options.keep:
            shutil.rmtree(folder, ignore_errors=True)
        model = self.plan.model
        return {
            **found,
            "recipe": run.recipe.described(),
            "model": Path(model).name if Path(model).is_dir() else model,
            "grid": self.grid.slug,
            "row": run.row.name,
            "data": run.data.described() if run.data else {},
            "tests": list(self.plan.tests),
            "versions": versions(),
            "hardware": hardware(),
            "code_sha256": code_sha256(),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }

    def _trained(self, run: Run, folder: Path) -> dict[str, Any]:
        report = train_run(
            self.plan.model,
            [run.data.path] if run.data else [],
            folder,
            run.config,
            resume=True,
            command=self.command,
            observe=self.observe,
        )
        # The untouched start is no row of the table: where no look was better, the last counts.
        chosen = BEST if report.best_step else LAST
        metrics = report.best if report.best_step else report.last
        found = self._measured(
            run, lambda: SentenceEncoder.load(folder / chosen, precision="fp32"), metrics
        )
        found["seconds"]["training"] = report.seconds
        return {
            **found,
            "start": named_scores(report.start),
            "chosen_step": report.best_step or report.steps,
            "steps": report.steps,
            "looks": _looks(folder / LOG),
        }

    def _measured(
        self, run: Run, model: Callable[[], SentenceEncoder], metrics: Metrics
    ) -> dict[str, Any]:
        """Return all scores; ``metrics`` are those of the dev set, empty if they are not known."""
        started = time.perf_counter()
        found: dict[str, Any] = {"scores": {}}
        fitted = run.row.postprocess != "none"
        if fitted or not metrics or not is_empty(self.tests):
            encoder = model()
            if fitted and run.data is not None:
                limit = self.options.sentences
                encoder = with_layer(encoder, run.row.postprocess, run.data.path, limit)
            if (fitted or not metrics) and (validate := find_validation(run.config, [])):
                metrics = validate(encoder).metrics
            if not is_empty(self.tests):
                found = measure_encoder(encoder, self.tests, self._report, self.search)
        found["scores"] |= named_scores(metrics)
        return {**found, "seconds": {"measuring": time.perf_counter() - started}}

    def _report(self, what: str, done: int, total: int) -> None:
        self.observe({"event": "measure", "what": what, "done": done, "total": total})


def _search(grid: Grid, options: Options) -> Search | None:
    if grid.search is None:
        return None
    return read_search(find_file(Path(grid.search)), grid.queries, options.sentences)


def named_scores(metrics: Metrics) -> dict[str, float | None]:
    """Return what a look measured under the names of a grid's measures."""
    deciding = next(iter(metrics), "")
    watched = {f"dev_{name}": metrics[name] for name in WATCHED if name in metrics}
    return {DEV: metrics[deciding], **watched} if metrics else {}


def _looks(log: Path) -> list[Mapping[str, Any]]:
    """Return step and dev scores of a run's looks; of very many an even choice."""
    rows = [event for event in read_log(log) if event["event"] == "eval"]
    stride = -(-len(rows) // MOST_LOOKS)
    hidden = ("event", "step", "best", "loss", "gradient_norm")
    return [
        {
            "step": row["step"],
            **named_scores({name: value for name, value in row.items() if name not in hidden}),
        }
        for row in rows[::stride]
    ]
