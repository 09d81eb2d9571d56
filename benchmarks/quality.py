"""Time to quality: systems train from one model until STS-B dev reaches a score.

python benchmarks/quality.py --model FOLDER --input triplets.tsv --target 70
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

import race
from race import System, Timing
from race_options import choose_systems, log, race_options, read_sentences
from race_report import find_baseline, race_results
from simcse.cli.main import main
from simcse.cli.options import count_option
from simcse.cli.output import show
from simcse.evaluate.sts import evaluate_sts
from simcse.io.benchmarks import load_sts_task
from simcse.io.records import read_examples
from simcse.io.results import write_results
from simcse.report.tables import Column, Table
from simcse.report.versions import versions
from train import RUNS, SYSTEMS, TextRow, batches


@click.command()
@race_options
@click.option(
    "--target",
    type=float,
    default=70.0,
    help="Score on STS-B dev at which a system stops, as Spearman x100.",
)
@count_option("--steps", "Number of steps between two evaluations.", default=10)
@count_option("--batch", "Number of rows per step.", default=64, minimum=2)
@click.option("--lr", type=float, default=2e-4, help="Learning rate of every system.")
def quality(
    model: str,
    source: Path | None,
    sentences: int,
    max_length: int,
    target: float,
    rounds: int,
    only: tuple[str, ...],
    output: Path | None,
    form: str,
    **task: Any,  # noqa: ANN401 - steps, batch and lr
) -> None:
    """Train until STS-B dev reaches a score: simcse, the original code's step, its peers.

    All systems see the same rows of --input (text, pairs or triplets) in the same order, at a
    constant learning rate. The time includes starting up and excludes the evaluations. A round is
    the steps between two evaluations; a system that reached the target does no further rounds.

    \b
    Example:
      python benchmarks/quality.py --model start --input triplets.tsv --target 70
    """
    rows = _read_rows(source, sentences)
    if len(rows) < task["batch"]:
        raise click.UsageError(f"a batch needs {task['batch']} rows, found {len(rows)}")
    options = {**task, "max_length": max_length}
    entered = choose_systems(systems(model, rows, **options), only)
    timings = race.race(entered, rounds=rounds, target=target, log=log)
    show(quality_table(timings, target, task["steps"]), form)
    if output is not None:
        found = {"title": "Time to quality", "target": target, **options, "versions": versions()}
        results = race_results(timings, [None] * len(timings))
        write_results(output, {**found, "systems": results})


def _read_rows(source: Path | None, count: int) -> list[list[str]]:
    if source is None:
        return [[text] for text in read_sentences(None, count)]
    examples = read_examples(source, limit=count)
    return [[e.anchor, *([e.positive] if e.positive else ()), *e.negatives] for e in examples]


@dataclass
class QualityRun:
    """The steps of a training run between two evaluations; a unit of work with a score."""

    system: str
    system_options: dict[str, Any]
    model: str
    rows: Sequence[TextRow]
    batch: int
    steps: int
    max_length: int
    lr: float

    def __post_init__(self) -> None:
        options = {"max_length": self.max_length, "dropout": None, "lr": self.lr}
        self.run = RUNS[self.system](self.model, **options, **self.system_options)
        self.task = load_sts_task("stsb-dev")
        self.batches = batches(self.rows, self.batch)

    def __call__(self) -> None:
        """Take the steps."""
        for _ in range(self.steps):
            self.run.update(next(self.batches))

    def score(self) -> float | None:
        """Return Spearman x100 of the model as it is now."""
        return evaluate_sts(self.run.encode, self.task).spearman()


def systems(
    model: str, rows: Sequence[TextRow], *, batch: int, steps: int, max_length: int, lr: float
) -> list[System]:
    """List the systems; none warms up, because users do not, either."""
    task = {
        "model": model,
        "rows": [list(row) for row in rows],
        "batch": batch,
        "steps": steps,
        "max_length": max_length,
        "lr": lr,
    }
    return [
        System(
            name,
            "quality:QualityRun",
            {**task, "system": system, "system_options": options},
            warm_up=0,
        )
        for name, system, options in SYSTEMS
    ]


def seconds_to(timing: Timing, target: float) -> float | None:
    """Return the seconds of training until an evaluation first gave ``target``."""
    for rounds, score in enumerate(timing.scores, 1):
        if score is not None and score >= target:
            return sum(timing.seconds[:rounds])
    return None


def quality_table(timings: Sequence[Timing], target: float, steps: int) -> Table:
    """List systems below each other; the ratio is to the first one's seconds."""
    first = seconds_to(find_baseline(timings), target)
    rows = []
    for timing in timings:
        if timing.missing is not None:
            continue
        seconds = seconds_to(timing, target)
        ratio = None if first is None or seconds is None else seconds / first
        taken = steps * len(timing.seconds)
        rows.append((timing.name, seconds, ratio, taken, timing.scores[-1], timing.peak_mib))
    columns = (
        Column("System"),
        Column("seconds", 1),
        Column("ratio", 2),
        Column("steps", 0),
        Column("STS-B dev", 2),
        Column("peak MiB", 0),
    )
    return Table(f"Training until STS-B dev reaches {target:g}", columns, tuple(rows))


if __name__ == "__main__":
    main(command=quality)
