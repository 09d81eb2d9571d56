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
    """

    pooling: Pooling | None = None
    head: HeadPolicy | None = None
    max_length: int | None = None
    normalize: bool | None = None
    layers: int | None = None
    dropout: float | None = None

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 3:  # as `ModelSettings`
            raise ConfigError(f"model.max_length must be at least 3, got {self.max_length}")
        if self.layers is not None and self.layers < 1:
            raise ConfigError(f"model.layers must be at least 1, got {self.layers}")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout must be from 0 to below 1, got {self.dropout}")


@dataclass(frozen=True)
class DataConfig:
    """How training files are read.

    Attributes:
        columns: the header's names of anchor, positive and hard negatives, comma-separated.
        bad_lines: stop at a bad row, or skip and count it.
        limit: use only so many rows, the first ones.
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
        dev: ``stsb`` (STS-B dev), a file of subset, score, sentence1, sentence2, or ``none``.
        patience: stop after so many evaluations without a better score.
    """

    every: int = 250  # Gao et al. 2021, appendix A
    dev: str = "stsb"
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ConfigError(f"eval.every must be at least 1, got {self.every}")
        if self.patience is not None and self.patience < 1:
            raise ConfigError(f"eval.patience must be at least 1, got {self.patience}")


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

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed must be from 0 to 2**32 - 1, got {self.seed}")
