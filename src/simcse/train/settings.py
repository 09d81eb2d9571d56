"""`TrainConfig`: every setting of a training run, in sections."""

from dataclasses import dataclass, field
from typing import Literal

from simcse.errors import ConfigError
from simcse.losses.settings import LossConfig
from simcse.model.head import HeadPolicy
from simcse.model.pooling import Pooling
from simcse.model.precision import Precision
from simcse.train.optim import OptimConfig


@dataclass(frozen=True)
class ModelConfig:
    """Changes to the start model; ``None`` keeps the value of its folder.

    Attributes:
        pooling: reduction of the token states to one vector, by default the start model's.
        head: use of the projection head, by default the start model's.
        max_length: token limit of a sentence, by default the start model's.
        normalize: whether embeddings are scaled to unit length, by default as in the start model.
        layers: number of the backbone's first layers to keep, by default all.
        dropout: rate of every dropout in the backbone, by default the start model's.
        num_encoders: number of encoders; with 2, positives and hard negatives pass through a
            second one that starts from the same weights and is dropped after training.
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
    """Settings for reading training files.

    Attributes:
        columns: columns of anchor, positive and hard negatives, by name or position from 1, such as
            ``question,answer`` or ``anchor=question,positive=answer``; by default found by name.
        bad_lines: treatment of a bad row: stop, or skip and count it.
        limit: number of rows to read, the first ones; by default all.
    """

    columns: str | None = None
    bad_lines: Literal["error", "skip"] = "error"
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 2:
            raise ConfigError(f"data.limit must be at least 2, got {self.limit}")


@dataclass(frozen=True)
class EvalConfig:
    """Settings of the dev evaluation, which chooses the best checkpoint.

    Attributes:
        every: number of steps between evaluations; the last step is always evaluated.
        dev: name of the set: ``stsb`` (STS-B dev), a file, ``heldout`` (the
            loss on held-out training rows) or ``none``; of several, separated by commas, the
            first chooses and the others are recorded.
        heldout: number of rows to hold out, at most a tenth.
        patience: number of evaluations without a better score after which training stops; by
            default it does not.
        save_all: save the model of every evaluation, in addition to the best and the last one.
    """

    every: int = 250  # Gao et al. 2021, appendix A
    dev: str = "stsb"
    heldout: int = 512
    patience: int | None = None
    save_all: bool = False

    @property
    def sets(self) -> tuple[str, ...]:
        """Names of the dev sets, the one that chooses first; empty for ``none``."""
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
    """Settings of the guard against runs that go wrong.

    Attributes:
        max_grad_ratio: largest ratio of a gradient norm to the usual one; a larger update is
            refused. 0 allows any.
        max_skipped: number of refused updates (not finite, or too large) that are skipped before
            the run stops.
        max_rollbacks: number of times the run returns to its best weights and halves the learning
            rate, after a collapse or when ``eval.patience`` runs out, before it stops.
    """

    max_grad_ratio: float = 1000.0
    max_skipped: int = 0
    max_rollbacks: int = 0

    def __post_init__(self) -> None:
        if not (self.max_grad_ratio == 0 or self.max_grad_ratio > 1):
            raise ConfigError(
                f"guard.max_grad_ratio must be 0 or above 1, got {self.max_grad_ratio}"
            )
        if self.max_skipped < 0 or self.max_rollbacks < 0:
            raise ConfigError("guard.max_skipped and guard.max_rollbacks must be >= 0")


@dataclass(frozen=True)
class RunConfig:
    """Settings for how the run is carried out, which do not change its recipe.

    Attributes:
        checkpoint_every: number of steps between checkpoints, from which ``--resume`` continues.
        threads: number of processor threads, by default torch's own. The last bits of sums depend
            on it.
        timeout: seconds after which a process of ``torchrun`` that does not answer counts as lost.
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
    """All settings of a run; `simcse.config.build` makes it from TOML and overrides.

    Attributes:
        seed: seed of batch order, dropout, masking and new weights.
        precision: number format of the model; ``auto`` chooses by the processor.
        model: changes to the start model.
        data: reading of training files.
        loss: the loss.
        optim: optimizer and schedule.
        eval: dev evaluation.
        guard: the guard against runs that go wrong.
        train: how the run is carried out.
    """

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
        classifies = self.loss.type == "classifier"
        names = ("fixed_mask", "dropout_free_negatives", "queue_size")
        single = [name for name in names if getattr(self.loss, name)]
        single += ["type=classifier"] if classifies else []
        if single and self.model.num_encoders == 2:
            raise ConfigError(f"loss.{single[0]} is made for one encoder; model.num_encoders is 2")
        if classifies and "heldout" in self.eval.sets:
            raise ConfigError(
                "eval.dev=heldout needs the contrastive loss; loss.type is classifier"
            )
        if self.loss.dropout_sampling and self.model.dropout is not None:
            raise ConfigError("loss.dropout_sampling draws the rate; leave model.dropout out")
