"""Progress on stderr: a bar for things that are counted, and what a training run shows."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Live = TypeVar("Live", bound="_Live")
SMOOTHING = 0.95  # of the loss shown


@contextmanager
def counting_bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar and give what advances it; without a total it has no ETA."""
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(file=sys.stderr)
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)


class _Live(ABC):
    """A bar that runs within a block and is told of events."""

    bar: Progress

    @property
    @abstractmethod
    def shown(self) -> Mapping[str, Callable[[Mapping[str, Any]], None]]:
        """What is done for each kind of event."""

    def __enter__(self: Live) -> Live:
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
        if event["event"] in self.shown:
            self.shown[event["event"]](event)

    def say(self, text: str, style: str | None = None) -> None:
        """Print a line above the bar, as it is."""
        self.bar.console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


class TrainProgress(_Live):
    """A bar with loss, sentences a second and ETA; a line for every look at the model.

    Of several processes, started by torchrun, the first speaks for all.

    Pass it as ``observe`` to `simcse.train.loop.fit`.
    """

    def __init__(self, title: str = "training") -> None:
        from simcse.train.processes import is_first_process

        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TextColumn("{task.fields[rate]:.0f} sent/s {task.fields[tokens]:.0f} tok/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[looks]}"),
            console=Console(file=sys.stderr, quiet=not is_first_process()),
        )
        self.task = self.bar.add_task(title, total=None, loss=0.0, rate=0.0, tokens=0.0, looks="")
        self.loss: float | None = None
        self.best: str | None = None

    @property
    def shown(self) -> Mapping[str, Callable[[Mapping[str, Any]], None]]:
        """What is done for each kind of event."""
        return {
            "start": self._start,
            "resume": self._start,
            "step": self._step,
            "eval": self._look,
            "note": self._note,
            "guard": self._warn,
            "warning": self._warn,
        }

    def _start(self, event: Mapping[str, Any]) -> None:
        self.bar.update(self.task, total=event["steps"], completed=event.get("step", 0))

    def _note(self, event: Mapping[str, Any]) -> None:
        self.say(f"note: {event['text']}")

    def _warn(self, event: Mapping[str, Any]) -> None:
        self.say(f"WARNING: {event['text']}", "bold red")

    def _step(self, event: Mapping[str, Any]) -> None:
        loss = event["loss"]
        self.loss = loss if self.loss is None else SMOOTHING * self.loss + (1 - SMOOTHING) * loss
        rate, tokens = (event[name] / event["seconds"] for name in ("sentences", "tokens"))
        self.bar.update(
            self.task, completed=event["step"], loss=self.loss, rate=rate, tokens=tokens
        )

    def _look(self, event: Mapping[str, Any]) -> None:
        hidden = ("event", "step", "best")
        metrics = {name: _number(value) for name, value in event.items() if name not in hidden}
        if not metrics:
            return
        decisive = next(iter(metrics))
        self.best = metrics[decisive] if event["best"] else self.best
        shown = "  ".join(f"{name} {value}" for name, value in metrics.items())
        mark = "  <- best so far" if event["best"] else ""
        self.say(f"step {event['step']:>6}  {shown}{mark}")
        best = f" (best {self.best})" if self.best else ""
        self.bar.update(self.task, looks=f"{decisive} {metrics[decisive]}{best}")


class GridProgress(_Live):
    """A bar over a whole grid, with the row under way and an ETA of all that is left.

    Pass it as ``observe`` to `simcse.paper.runner.run_grid`.
    """

    def __init__(self, title: str) -> None:
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[now]}"),
            console=Console(file=sys.stderr),
            speed_estimate_period=3600,  # encoding and training differ: a short look misleads
        )
        self.title, self.sizes = title, list[tuple[float, float]]()
        self.task = self.bar.add_task(title, total=None, now="preparing")
        self.done, self.row, self.steps = 0, "", 1

    @property
    def shown(self) -> Mapping[str, Callable[[Mapping[str, Any]], None]]:
        """What is done for each kind of event."""
        return {
            "grid": self._grid,
            "run": self._run,
            "start": self._start,
            "resume": self._start,
            "step": self._step,
            "measure": self._measure,
            "done": self._done,
            "guard": self._warn,
        }

    def _grid(self, event: Mapping[str, Any]) -> None:
        self.sizes = [tuple(size) for size in event["sizes"]]
        self.say(f"{self.title}: {len(self.sizes)} runs to do, {event['there']} are there already")
        total = sum(map(sum, self.sizes))
        self.bar.update(self.task, total=total or 1, completed=0 if total else 1, now="")

    def _run(self, event: Mapping[str, Any]) -> None:
        self.row = f"{event['row']}, seed {event['seed']}"
        self._show(0.0, self.row)

    def _start(self, event: Mapping[str, Any]) -> None:
        self.steps = event["steps"]

    def _step(self, event: Mapping[str, Any]) -> None:
        share = event["step"] / self.steps
        text = f"step {event['step']}/{self.steps}, loss {event['loss']:.3f}"
        self._show(share * self.sizes[self.done][0], f"{self.row}: {text}")

    def _measure(self, event: Mapping[str, Any]) -> None:
        training, measuring = self.sizes[self.done]
        share = event["done"] / max(1, event["total"]) if event["what"] == "encoding" else 1.0
        self._show(training + share * measuring, f"{self.row}: {event['what']}")

    def _done(self, event: Mapping[str, Any]) -> None:
        self.done += 1
        self._show(0.0, "")

    def _warn(self, event: Mapping[str, Any]) -> None:
        self.say(f"{self.row}: {event['text']}", "yellow")

    def _show(self, within: float, now: str) -> None:
        before = sum(map(sum, self.sizes[: self.done]))
        runs = f"{self.title} {min(self.done + 1, len(self.sizes))}/{len(self.sizes)}"
        self.bar.update(self.task, completed=before + within, description=runs, now=now)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
