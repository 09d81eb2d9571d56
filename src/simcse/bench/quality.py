"""Time to quality: systems train from one model until STS-B dev reaches a score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simcse.bench.outcome import find_baseline
from simcse.bench.race import System, Timing
from simcse.bench.train import CONTESTANTS, TRAINEES, Row, batches
from simcse.evaluate.sts import evaluate_sts
from simcse.io.benchmarks import load_sts_task
from simcse.report.tables import Column, Table


@dataclass
class Lesson:
    """A trainee's steps between two looks at the dev set; see `simcse.bench.worker`."""

    how: str
    more: dict[str, Any]
    model: str
    rows: Sequence[Row]
    batch: int
    steps: int
    max_length: int
    lr: float

    def __post_init__(self) -> None:
        options = {"max_length": self.max_length, "dropout": None, "lr": self.lr}
        self.trainee = TRAINEES[self.how](self.model, **options, **self.more)
        self.task = load_sts_task("stsb-dev")
        self.following = batches(self.rows, self.batch)

    def __call__(self) -> None:
        """Take steps."""
        for _ in range(self.steps):
            self.trainee.update(next(self.following))

    def score(self) -> float | None:
        """Return Spearman x100 of the model as it is now."""
        return evaluate_sts(self.trainee.encode, self.task).spearman()


def systems(
    model: str, rows: Sequence[Row], *, batch: int, steps: int, max_length: int, lr: float
) -> list[System]:
    """Name who trains; none warms up, as no user does."""
    task = {
        "model": model,
        "rows": [list(row) for row in rows],
        "batch": batch,
        "steps": steps,
        "max_length": max_length,
        "lr": lr,
    }
    return [
        System(name, f"{__name__}:Lesson", {**task, "how": how, "more": more}, warm_up=0)
        for name, how, more in CONTESTANTS
    ]


def seconds_to(timing: Timing, target: float) -> float | None:
    """Return the seconds of training after which a look first gave ``target``."""
    for rounds, score in enumerate(timing.scores, 1):
        if score is not None and score >= target:
            return sum(timing.seconds[:rounds])
    return None


def quality_table(timings: Sequence[Timing], target: float, steps: int) -> Table:
    """Set systems below each other; the ratio is to the first one's seconds."""
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
