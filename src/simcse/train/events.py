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
    """Outcome of a training run.

    Attributes:
        steps: number of batches taken, including updates that the guard skipped.
        seconds: wall-clock time, including evaluations.
        start: dev metrics before the first step.
        best: dev metrics of the best checkpoint; of the last one without a dev set.
        best_step: step of the best checkpoint.
        last: dev metrics after the last step.
        worse: whether the last dev score is below the first one.
        seen: number of sentences tokenized for training.
        truncated: number of those that were truncated to the length limit.
    """

    steps: int
    seconds: float
    start: DevMetrics
    best: DevMetrics
    best_step: int
    last: DevMetrics
    worse: bool
    seen: int
    truncated: int


@dataclass(frozen=True)
class Event:
    """Base of all events.

    Attributes:
        name: the value of ``"event"`` in the log.
        logged: whether the log of the run holds the event.
    """

    name: ClassVar[str]
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
    """An update was applied.

    Attributes:
        step: its number, from 1.
        loss: the weighted sum of the terms.
        contrastive: the contrastive (or classifier) term.
        mlm: the masked-language-model term.
        gradient_norm: norm of the gradient before clipping.
        lr: learning rate.
        sentences: number of sentences in the batch.
        tokens: number of tokens in the batch.
        seconds: wall-clock time.
    """

    step: int
    loss: float
    contrastive: float
    mlm: float
    gradient_norm: float
    lr: float
    sentences: int
    tokens: int
    seconds: float
    name: ClassVar[str] = "step"


@dataclass(frozen=True)
class Evaluated(Event):
    """The model was evaluated.

    Attributes:
        step: number of steps taken before.
        best: whether it has the best dev score so far.
        metrics: dev metrics, the deciding one first, then averages since the last evaluation.
    """

    step: int
    best: bool
    metrics: Mapping[str, float | None]
    name: ClassVar[str] = "eval"

    def to_json(self) -> dict[str, Any]:
        """Return the event with every metric as a key of its own."""
        return {"event": self.name, "step": self.step, "best": self.best, **self.metrics}


@dataclass(frozen=True)
class ModelReady(Event):
    """The encoder holds its fp32 weights and can be saved until the callback returns.

    Attributes:
        step: number of steps taken before.
        encoder: the model.
        best: whether it is the best so far.
        evaluated: whether an evaluation has just taken place; otherwise the run was stopped.
    """

    step: int
    encoder: "SentenceEncoder"
    best: bool
    evaluated: bool
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
    """The guard did not apply an update, or went back to earlier weights."""

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
    """The run is complete.

    Attributes:
        result: its outcome.
        skipped: number of bad lines that were skipped in the training files.
        blank: number of blank lines in them.
    """

    result: TrainResult
    skipped: int
    blank: int
    name: ClassVar[str] = "finish"

    def to_json(self) -> dict[str, Any]:
        """Return the event with the result's values as keys of its own."""
        counts = {"skipped": self.skipped, "blank": self.blank}
        return {"event": self.name, **counts, **asdict(self.result)}
