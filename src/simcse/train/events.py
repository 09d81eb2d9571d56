"""Typed events of a training run, which callbacks receive in the order they happen."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from simcse.model.encoder import SentenceEncoder
    from simcse.train.state import TrainState

DevMetrics = dict[str, float | None]


@dataclass(frozen=True)
class TrainResult:
    """Outcome of a training run; without a dev set the last checkpoint is the best."""

    steps: int  # batches, including those that the guard skipped
    seconds: float  # wall-clock time, including evaluations
    start: DevMetrics  # before the first step
    best: DevMetrics  # of the best checkpoint
    best_step: int
    last: DevMetrics  # after the last step
    worse: bool  # whether the last dev score is below the first one
    seen: int  # sentences tokenized for training
    truncated: int  # those that were truncated to the length limit


@dataclass(frozen=True)
class Event:
    """Base of all events."""

    name: ClassVar[str]  # the value of "event" in the log
    logged: ClassVar[bool] = True

    def to_json(self) -> dict[str, Any]:
        """Return the event as a line of the log, in plain values."""
        return {"event": self.name, **asdict(self)}


Callback = Callable[[Event], None]


@dataclass(frozen=True)
class TrainingStarted(Event):
    """The first step is about to be taken: ``steps`` steps on ``rows`` rows."""

    steps: int
    rows: int
    name: ClassVar[str] = "start"


@dataclass(frozen=True)
class TrainingResumed(Event):
    """Training continues after step ``step``. An uninterrupted run has no such event."""

    steps: int
    step: int
    name: ClassVar[str] = "resume"
    logged: ClassVar[bool] = False


@dataclass(frozen=True)
class StepDone(Event):
    """An update was applied."""

    step: int  # from 1
    loss: float  # weighted sum of the terms
    contrastive: float  # contrastive or classifier term
    mlm: float  # masked-language-model term
    gradient_norm: float  # before clipping
    lr: float
    sentences: int
    tokens: int
    seconds: float
    name: ClassVar[str] = "step"


@dataclass(frozen=True)
class Evaluated(Event):
    """The model was evaluated after step ``step``."""

    step: int
    best: bool  # whether it has the best dev score so far
    metrics: Mapping[str, float | None]  # the deciding one first, averages of the steps last
    name: ClassVar[str] = "eval"

    def to_json(self) -> dict[str, Any]:
        """Return the event with every metric as a key of its own."""
        return {"event": self.name, "step": self.step, "best": self.best, **self.metrics}


@dataclass(frozen=True)
class ModelReady(Event):
    """The encoder holds its fp32 weights and can be saved until the callback returns."""

    step: int
    encoder: "SentenceEncoder"
    best: bool
    evaluated: bool  # false if the run was stopped
    name: ClassVar[str] = "model"
    logged: ClassVar[bool] = False


@dataclass(frozen=True)
class CheckpointReady(Event):
    """The run can be stored in its present state, to be resumed."""

    state: "TrainState"
    name: ClassVar[str] = "checkpoint"
    logged: ClassVar[bool] = False


@dataclass(frozen=True)
class GuardTripped(Event):
    """The guard did not apply an update, or returned to earlier weights."""

    step: int
    text: str
    name: ClassVar[str] = "guard"


@dataclass(frozen=True)
class Warned(Event):
    """The run ended with something that the user should know."""

    text: str
    name: ClassVar[str] = "warning"


@dataclass(frozen=True)
class Noted(Event):
    """Something about how the run is prepared, for people only."""

    text: str
    name: ClassVar[str] = "note"
    logged: ClassVar[bool] = False


@dataclass(frozen=True)
class Finished(Event):
    """The run is complete; ``skipped`` and ``blank`` count lines of the training files."""

    result: TrainResult
    skipped: int
    blank: int
    name: ClassVar[str] = "finish"

    def to_json(self) -> dict[str, Any]:
        """Return the event with the result's values as keys of its own."""
        counts = {"skipped": self.skipped, "blank": self.blank}
        return {"event": self.name, **counts, **asdict(self.result)}
