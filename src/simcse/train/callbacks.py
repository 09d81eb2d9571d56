"""Callbacks that write a run folder: log, TensorBoard, models, checkpoints, report."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simcse.io.files import write_text
from simcse.io.log import append_log, read_log, sync_log, truncate_log
from simcse.io.settings import read_toml
from simcse.train.events import (
    Callback,
    CheckpointReady,
    Evaluated,
    Event,
    Finished,
    ModelReady,
    Noted,
    StepDone,
    TrainingResumed,
    TrainingStarted,
)
from simcse.train.state import TrainState, load_state, save_state

if TYPE_CHECKING:
    from simcse.report.tables import Table

LOG, SETTINGS, REPORT = "log.jsonl", "settings.toml", "report.html"
BEST, LAST, EVALUATIONS = "best", "last", "evaluations"


class LogFile:
    """Appends every logged event to a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, event: Event) -> None:
        """Write one event."""
        if event.logged:
            append_log(self.path, event.to_json())


class TensorBoard:
    """Writes the numbers of steps and evaluations for TensorBoard, if it is installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tensorboard"
        self.enabled = find_spec("tensorboard") is not None

    def __call__(self, event: Event) -> None:
        """Write the scalars of one event."""
        if not self.enabled:
            return
        match event:
            case TrainingStarted():
                self._open(purge_step=0)
            case TrainingResumed(step=step):
                self._open(purge_step=step + 1)  # hide what a killed run wrote after it
            case StepDone() | Evaluated():
                for name, value in event.to_json().items():
                    if name not in ("event", "step", "best") and value is not None:
                        self.writer.add_scalar(f"{event.name}/{name}", value, event.step)
            case Finished():
                self.writer.close()

    def _open(self, *, purge_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(self.folder), purge_step=purge_step)


class ModelSaver:
    """Saves the last model, the best one, and with ``save_all`` that of every evaluation."""

    def __init__(
        self, folder: Path, *, provenance: Mapping[str, Any], save_all: bool = False
    ) -> None:
        self.folder, self.provenance, self.save_all = folder, provenance, save_all

    def __call__(self, event: Event) -> None:
        """Save a model that is ready."""
        if not isinstance(event, ModelReady):
            return
        event.encoder.provenance = {**self.provenance, "step": event.step}
        event.encoder.save(self.folder / LAST)
        if event.best:
            event.encoder.save(self.folder / BEST)
        if self.save_all and event.evaluated:
            event.encoder.save(self.folder / EVALUATIONS / f"step-{event.step:08}")


class Checkpoints:
    """Stores checkpoints below a run folder, and loads the last whole one.

    Args:
        folder: the run folder.
        callbacks: functions that receive a `Noted` about each damaged checkpoint.
    """

    def __init__(self, folder: Path, *, callbacks: Sequence[Callback] = ()) -> None:
        self.folder, self.callbacks = folder, callbacks
        self._found: TrainState | None = None

    def __call__(self, event: Event) -> None:
        """Store a state that is ready, with the length of the log."""
        if isinstance(event, CheckpointReady):
            state = event.state
            progress = {**state.progress, "log_bytes": sync_log(self.folder / LOG)}
            save_state(self.folder, TrainState(state.step, state.tensors, progress))

    def find(self) -> TrainState | None:
        """Read the last whole checkpoint, once; ``None`` if there is none.

        Raises:
            ArtifactError: all checkpoints are damaged.
        """
        self._found = self._found or load_state(self.folder, self._note)
        return self._found

    def load(self) -> TrainState | None:
        """Return what `find` returns, and truncate the log to it."""
        state, self._found = self.find(), None
        if state is not None:
            truncate_log(self.folder / LOG, state.progress["log_bytes"])
        return state

    def _note(self, text: str) -> None:
        for callback in self.callbacks:
            callback(Noted(text))


class ReportPage:
    """Writes the page of a run folder when the run is complete."""

    def __init__(self, folder: Path, *, title: str = "Training run") -> None:
        self.folder, self.title = folder, title

    def __call__(self, event: Event) -> None:
        """Write the page at the end."""
        if isinstance(event, Finished):
            write_report(self.folder, title=self.title)


def write_report(folder: Path, *tables: "Table", title: str = "Training run") -> None:
    """Write the page of a run folder, with ``tables`` first."""
    from simcse.report.runs import training_report

    log, settings = read_log(folder / LOG), read_toml(folder / SETTINGS)
    write_text(folder / REPORT, training_report(log, settings, title=title, tables=tables))
