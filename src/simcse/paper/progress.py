"""Events of a grid, and the progress bar that shows them together with those of its trainings."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from simcse.train.events import Event, GuardTripped, StepDone, TrainingResumed, TrainingStarted
from simcse.train.progress import LiveBar


@dataclass(frozen=True)
class GridStarted(Event):
    """A grid begins."""

    present: int  # runs whose results exist
    costs: Sequence[tuple[float, float]]  # of training and evaluating each other run, estimated
    name: ClassVar[str] = "grid"


@dataclass(frozen=True)
class GridRunStarted(Event):
    """One row begins with one seed."""

    row: str
    seed: int
    name: ClassVar[str] = "run"


@dataclass(frozen=True)
class EvaluationProgressed(Event):
    """A trained model is being evaluated: ``done`` of ``total`` units of ``what``."""

    what: str
    done: int
    total: int
    name: ClassVar[str] = "measure"


@dataclass(frozen=True)
class GridRunDone(Event):
    """The result of one row and seed is stored."""

    name: ClassVar[str] = "done"


class GridProgress(LiveBar):
    """A callback that shows a bar over a whole grid, the present row and the remaining time."""

    def __init__(self, title: str) -> None:
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[now]}"),
            console=Console(file=sys.stderr),
            speed_estimate_period=3600,  # encoding and training differ in speed
        )
        self.title, self.costs = title, list[tuple[float, float]]()
        self.task = self.bar.add_task(title, total=None, now="preparing")
        self.done, self.row, self.steps = 0, "", 1

    def __call__(self, event: Event) -> None:
        """Show one event."""
        match event:
            case GridStarted():
                self._start(event)
            case GridRunStarted(row=row, seed=seed):
                self.row = f"{row}, seed {seed}"
                self._show(0.0, self.row)
            case TrainingStarted(steps=steps) | TrainingResumed(steps=steps):
                self.steps = steps
            case StepDone(step=step, loss=loss):
                text = f"{self.row}: step {step}/{self.steps}, loss {loss:.3f}"
                self._show(step / self.steps * self.costs[self.done][0], text)
            case EvaluationProgressed():
                self._show_evaluation(event)
            case GridRunDone():
                self.done += 1
                self._show(0.0, "")
            case GuardTripped(text=text):
                self.print(f"{self.row}: {text}", "yellow")

    def _start(self, event: GridStarted) -> None:
        self.costs = list(event.costs)
        self.print(f"{self.title}: {len(self.costs)} runs to do, {event.present} are there already")
        total = sum(map(sum, self.costs))
        self.bar.update(self.task, total=total or 1, completed=0 if total else 1, now="")

    def _show_evaluation(self, event: EvaluationProgressed) -> None:
        training, evaluating = self.costs[self.done]
        share = event.done / max(1, event.total) if event.what == "encoding" else 1.0
        self._show(training + share * evaluating, f"{self.row}: {event.what}")

    def _show(self, within: float, now: str) -> None:
        before = sum(map(sum, self.costs[: self.done]))
        runs = f"{self.title} {min(self.done + 1, len(self.costs))}/{len(self.costs)}"
        self.bar.update(self.task, completed=before + within, description=runs, now=now)
