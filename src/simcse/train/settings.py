"""`TrainConfig`: every setting of a training run, nested by what it is about."""

from dataclasses import dataclass, field
from typing import Literal

from simcse.errors import ConfigError
from simcse.loss import LossConfig
from simcse.model.head import HeadPolicy
from simcse.model.pooling import Pooling
from simcse.model.precision import Precision
from simcse.train.optim import OptimConfig


@dataclass(frozen=True)
class ModelConfig:
    """Changes to the start model; what is ``None`` stays as its folder says.

    Attributes:
        pooling: see `simcse.model.pooling.POOLINGS`.
        head: when the projection head applies.
        max_length: token limit of a sentence.
        normalize: whether embeddings are scaled to unit length.
        layers: keep only so many of the backbone's first layers.
        dropout: rate of every dropout in the backbone.
        num_encoders: with 2, positives and hard negatives pass through a second encoder that
            starts from the same weights and is dropped after training.
    """

    pooling: Pooling | None = None
    head: HeadPolicy | None = None
    max_length: int | None = None
    normalize: bool | None = None
    layers: int | None = None
    dropout: float | None = None
    num_encoders: int = 1  # Gao et al. 2021, table 2, has two in its second column

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 3:  # as `ModelSettings`
            raise ConfigError(f"model.max_length must be at least 3, got {self.max_length}")
        if self.layers is not None and self.layers < 1:
            raise ConfigError(f"model.layers must be at least 1, got {self.layers}")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout must be from 0 to below 1, got {self.dropout}")
        if self.num_encoders not in (1, 2):
            raise ConfigError(f"model.num_encoders must be 1 or 2, got {self.num_encoders}")


@dataclass(frozen=True)
class DataConfig:
    """How training files are read.

    Attributes:
        columns: columns of anchor, positive and hard negatives, by name or position, such as
            ``question,answer`` or ``anchor=question,positive=answer``.
        bad_lines: stop at a bad row, or skip and count it.
        limit: read only so many rows, the first ones.
    """

    columns: str | None = None
    bad_lines: Literal["error", "skip"] = "error"
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 2:
            raise ConfigError(f"data.limit must be at least 2, got {self.limit}")


@dataclass(frozen=True)
class EvalConfig:
    """How the run is watched and its best checkpoint chosen.

    Attributes:
        every: steps between evaluations; the last step is always evaluated.
        dev: ``stsb`` (STS-B dev), a file of subset, score, sentence1, sentence2, ``heldout``
            (the loss on training rows that are held out, where there is no rated set) or ``none``;
            of several, comma-separated, the first chooses and the others are watched.
        heldout: how many rows are held out for that, at most a tenth.
        patience: stop after so many evaluations without a better score.
        save_all: keep the model of every evaluation, not the best and the last one only.
    """

    every: int = 250  # Gao et al. 2021, appendix A
    dev: str = "stsb"
    heldout: int = 512
    patience: int | None = None
    save_all: bool = False

    @property
    def sets(self) -> tuple[str, ...]:
        """What ``dev`` names, the one that chooses first; empty for ``none``."""
        return () if self.dev == "none" else tuple(self.dev.split(","))

    def __post_init__(self) -> None:
        if not all(self.sets) or (len(self.sets) > 1 and "none" in self.sets):
            raise ConfigError(f"eval.dev must be none or name sets, got {self.dev!r}")
        if self.every < 1:
            raise ConfigError(f"eval.every must be at least 1, got {self.every}")
        if self.heldout < 2:
            raise ConfigError(f"eval.heldout must be at least 2, got {self.heldout}")
        if self.patience is not None and self.patience < 1:
            raise ConfigError(f"eval.patience must be at least 1, got {self.patience}")


@dataclass(frozen=True)
class GuardConfig:
    """When a run is stopped or set back because something went wrong.

    Attributes:
        explosion: a gradient norm so many times the usual one is not applied; 0 allows any.
        skip: bad updates (not finite, or an explosion) left out before the run stops.
        rollback: times the run may go back to its best look and on at half the rate, where the
            embeddings collapse or ``eval.patience`` runs out, before it stops.
    """

    explosion: float = 1000.0
    skip: int = 0
    rollback: int = 0

    def __post_init__(self) -> None:
        if not (self.explosion == 0 or self.explosion > 1):
            raise ConfigError(f"guard.explosion must be 0 or above 1, got {self.explosion}")
        if self.skip < 0 or self.rollback < 0:
            raise ConfigError("guard.skip and guard.rollback must be >= 0")


@dataclass(frozen=True)
class RunConfig:
    """How the run is carried out; nothing here changes what one machine computes.

    Attributes:
        checkpoint_every: steps between checkpoints, from which ``--resume`` goes on.
        threads: of the processor; ``None`` leaves it to torch. The last bits of sums depend on it.
        timeout: seconds after which another process that does not answer counts as lost.
        deterministic: allow only operations that give the same bits on every repetition.
    """

    checkpoint_every: int = 250
    threads: int | None = None
    timeout: float = 600.0
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.checkpoint_every < 1:
            raise ConfigError(
                f"train.checkpoint_every must be at least 1, got {self.checkpoint_every}"
            )
        if not self.timeout > 0:
            raise ConfigError(f"train.timeout must be > 0, got {self.timeout}")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"train.threads must be at least 1, got {self.threads}")


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a run; `simcse.config.build` makes it from TOML and overrides."""

    seed: int = 0
    precision: Precision = "auto"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    train: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed must be from 0 to 2**32 - 1, got {self.seed}")
        classifies = self.loss.form == "classifier"
        names = ("fixed_mask", "dropout_free_negatives", "queue")
        single = [name for name in names if getattr(self.loss, name)]
        single += ["form=classifier"] if classifies else []
        if single and self.model.num_encoders == 2:
            raise ConfigError(f"loss.{single[0]} is made for one encoder; model.num_encoders is 2")
        if classifies and "heldout" in self.eval.sets:
            raise ConfigError(
                "eval.dev=heldout needs the contrastive loss; loss.form is classifier"
            )
        if self.loss.dropout_sampling and self.model.dropout is not None:
            raise ConfigError("loss.dropout_sampling draws the rate; leave model.dropout out")
