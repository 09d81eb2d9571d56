"""The run's numbers for TensorBoard, where it is installed."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

LABELS = ("event", "step", "best")  # of an event; the rest are its numbers


def tensorboard(folder: Path, *, after: int | None = None) -> Callable[[Mapping[str, Any]], None]:
    """Return what writes steps and looks to ``folder``; without TensorBoard it does nothing.

    Of an earlier part of the run only what came up to step ``after`` is shown.
    """
    if find_spec("tensorboard") is None:
        return lambda event: None
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(
        str(folder / "tensorboard"), purge_step=None if after is None else after + 1
    )

    def write(event: Mapping[str, Any]) -> None:
        for name, value in event.items() if event["event"] in ("step", "eval") else ():
            if name not in LABELS and value is not None:
                tag = f"{event['event']}/{name}"
                writer.add_scalar(tag, value, event["step"])
        if event["event"] == "finish":
            writer.close()

    return write
