"""The progress bar of a training run, on stderr."""

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from simcse.train.events import (
    Evaluated,
    Event,
    GuardTripped,
    Noted,
    StepDone,
    TrainingResumed,
    TrainingStarted,
    Warned,
)
from simcse.train.processes import is_first_process

Live = TypeVar("Live", bound="LiveBar")
SMOOTHING = 0.95  # of the loss that is shown


class LiveBar:
    """A bar that runs within a block, with lines above it."""

    bar: Progress

    def __enter__(self: Live) -> Live:
        self.bar.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def print(self, text: str, style: str | None = None) -> None:
        """Print a line above the bar, without markup."""
        self.bar.console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


class ProgressBar(LiveBar):
    """A callback that shows loss, sentences per second and remaining time.

    Every evaluation is a line above the bar. Under ``torchrun`` only the first process prints.

    Example:
        >>> with ProgressBar() as progress:
        ...     train("sentences.txt", output="run", callbacks=[progress])  # doctest: +SKIP
    """

    def __init__(self, title: str = "training") -> None:
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TextColumn("{task.fields[rate]:.0f} sent/s {task.fields[tokens]:.0f} tok/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[score]}"),
            console=Console(file=sys.stderr, quiet=not is_first_process()),
        )
        self.task = self.bar.add_task(title, total=None, loss=0.0, rate=0.0, tokens=0.0, score="")
        self.loss: float | None = None
        self.best: str | None = None

    def __call__(self, event: Event) -> None:
        """Show one event."""
        match event:
            case TrainingStarted(steps=steps):
                self.bar.update(self.task, total=steps)
            case TrainingResumed(steps=steps, step=step):
                self.bar.update(self.task, total=steps, completed=step)
            case StepDone():
                self._show_step(event)
            case Evaluated(step=step, best=best, metrics=metrics) if metrics:
                self._show_evaluation(step, metrics, best=best)
            case Noted(text=text):
                self.print(f"note: {text}")
            case GuardTripped(text=text) | Warned(text=text):
                self.print(f"WARNING: {text}", "bold red")

    def _show_step(self, event: StepDone) -> None:
        loss = event.loss
        self.loss = loss if self.loss is None else SMOOTHING * self.loss + (1 - SMOOTHING) * loss
        self.bar.update(
            self.task,
            completed=event.step,
            loss=self.loss,
            rate=event.sentences / event.seconds,
            tokens=event.tokens / event.seconds,
        )

    def _show_evaluation(
        self, step: int, metrics: Mapping[str, float | None], *, best: bool
    ) -> None:
        shown = {
            name: "undefined" if value is None else f"{value:.3f}"
            for name, value in metrics.items()
        }
        decisive = next(iter(shown))
        self.best = shown[decisive] if best else self.best
        line = "  ".join(f"{name} {value}" for name, value in shown.items())
        self.print(f"step {step:>6}  {line}{'  <- best so far' if best else ''}")
        score = f" (best {self.best})" if self.best else ""
        self.bar.update(self.task, score=f"{decisive} {shown[decisive]}{score}")
