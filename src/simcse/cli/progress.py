"""Progress on stderr: a bar for things that are counted, and what a training run shows."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

SMOOTHING = 0.95  # of the loss shown


@contextmanager
def counting_bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar and give what advances it; without a total it has no ETA."""
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(file=sys.stderr)
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)


class TrainProgress:
    """A bar with loss, sentences a second and ETA; a line for every look at the model.

    Pass it as ``observe`` to `simcse.train.loop.fit`.
    """

    def __init__(self, title: str = "training") -> None:
        self.console = Console(file=sys.stderr)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TextColumn("{task.fields[rate]:.0f} sent/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[looks]}"),
            console=self.console,
        )
        self.task = self.bar.add_task(title, total=None, loss=0.0, rate=0.0, looks="")
        self.loss: float | None = None
        self.best: str | None = None

    def __enter__(self) -> "TrainProgress":
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Show one event of the run; one that is not about progress is passed over."""
        show = {
            "start": self._start,
            "resume": self._start,
            "step": self._step,
            "eval": self._look,
            "note": self._note,
            "guard": self._warn,
            "warning": self._warn,
        }
        if event["event"] in show:
            show[event["event"]](event)

    def _start(self, event: Mapping[str, Any]) -> None:
        self.bar.update(self.task, total=event["steps"], completed=event.get("step", 0))

    def _note(self, event: Mapping[str, Any]) -> None:
        text = f"note: {event['text']}"
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _warn(self, event: Mapping[str, Any]) -> None:
        text = f"WARNING: {event['text']}"
        self.console.print(text, style="bold red", highlight=False, markup=False, soft_wrap=True)

    def _step(self, event: Mapping[str, Any]) -> None:
        loss = event["loss"]
        self.loss = loss if self.loss is None else SMOOTHING * self.loss + (1 - SMOOTHING) * loss
        rate = event["sentences"] / event["seconds"]
        self.bar.update(self.task, completed=event["step"], loss=self.loss, rate=rate)

    def _look(self, event: Mapping[str, Any]) -> None:
        hidden = ("event", "step", "best")
        metrics = {name: _number(value) for name, value in event.items() if name not in hidden}
        if not metrics:
            return
        decisive = next(iter(metrics))
        self.best = metrics[decisive] if event["best"] else self.best
        shown = "  ".join(f"{name} {value}" for name, value in metrics.items())
        mark = "  <- best so far" if event["best"] else ""
        line = f"step {event['step']:>6}  {shown}{mark}"
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)
        best = f" (best {self.best})" if self.best else ""
        self.bar.update(self.task, looks=f"{decisive} {metrics[decisive]}{best}")


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
