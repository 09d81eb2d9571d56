"""`LossConfig`: the ``loss`` section of a training run's settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from simcse.errors import ConfigError
from simcse.losses import CLASSIFIER, LOSSES, SHARED, build_loss, resolve_options
from simcse.losses.contrastive import Similarity
from simcse.losses.dimension import DimensionLoss
from simcse.losses.spectrum import spectrum_loss
from simcse.losses.uniformity import uniformity_loss

Regularizer = Literal["none", "uniformity", "spectrum"]
REGULARIZERS = {"uniformity": uniformity_loss, "spectrum": spectrum_loss}


@dataclass(frozen=True)
class LossConfig:
    """What is minimized.

    Attributes:
        type: SimCSE's ``contrastive`` loss, a published variant of it (``decoupled``,
            ``debiased``, ``focal``), a user's own as ``package.module:Class``, or SBERT's
            ``classifier`` on labeled pairs in place of any contrastive loss.
        options: further settings of that loss, such as ``prior`` of ``debiased`` and ``margin``
            of ``focal``; of a user's own class its keyword arguments.
        temperature: divisor of the similarity; this and the next two are of built-in losses.
        similarity: cosine, or the dot product, which the paper uses with a temperature of 1.
        hard_negative_weight: the paper's alpha, on the row's own hard negatives.
        mask_duplicates: sentences with equal text are not each other's negatives.
        matryoshka: numbers of first dimensions that are trained to be embeddings, too.
        contrastive_weight: factor of the contrastive loss, or the classifier's; 0 trains the MLM
            term alone.
        mlm_weight: the paper's lambda, factor of the MLM term; 0 leaves it out.
        mlm_rate: fraction of the tokens masked for the MLM term.
        regularizer: loss of the anchors that spreads them, added to the contrastive loss.
        regularizer_weight: its factor.
        dimension_weight: factor of `DimensionLoss`; 0 leaves it out.
        dimension_temperature: its temperature.
        fixed_mask: one dropout mask for both passes, so that the positive equals the anchor.
        dropout_free_negatives: compare different sentences by their embeddings without dropout.
        dropout_sampling: rates that anchors and positives each draw theirs from, at every step.
        word_repetition: largest fraction of a positive's tokens that are repeated.
        queue_size: number of embeddings of earlier batches that are negatives, too.
        momentum: fraction of its weights that the encoder of the queue keeps at each step.
    """

    type: str = "contrastive"
    options: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 0.05  # Gao et al. 2021, table D.1
    similarity: Similarity = "cosine"  # the same table
    hard_negative_weight: float = 1.0  # table 7
    mask_duplicates: bool = True
    matryoshka: tuple[int, ...] | None = None
    contrastive_weight: float = 1.0
    mlm_weight: float = 0.0  # table D.2
    mlm_rate: float = 0.15
    regularizer: Regularizer = "none"
    regularizer_weight: float = 0.1
    # Xu et al. 2023, train_re_vicreg.py: sw_weight is 0.1; sw_temp is 5 beside dropout-free
    # negatives, 20 for the dimensions alone.
    dimension_weight: float = 0.0
    dimension_temperature: float = 5.0
    fixed_mask: bool = False  # table 3
    dropout_free_negatives: bool = False
    dropout_sampling: tuple[float, ...] | None = None
    word_repetition: float = 0.0  # Wu et al. 2022 use 0.32
    queue_size: int = 0  # Wu et al. 2022: 2.5 batches do best
    momentum: float = 0.995  # the same

    def __post_init__(self) -> None:
        self._check_weights()
        self._check_scheme()
        if self.type == CLASSIFIER:
            free = ("type", "mask_duplicates", "contrastive_weight", "mlm_weight", "mlm_rate")
            self._check_unused([name for name in vars(self) if name not in free])
            return
        if self.type not in LOSSES:
            self._check_unused([*SHARED, "dropout_free_negatives"])
        object.__setattr__(self, "options", resolve_options(self.type, self.options))
        if self.type in LOSSES:
            build_loss(self.type, self.arguments)  # checks them

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the loss's class."""
        shared = SHARED if self.type in LOSSES else ()
        return {**{name: getattr(self, name) for name in shared}, **self.options}

    def _check_weights(self) -> None:
        if not (self.contrastive_weight >= 0 and self.mlm_weight >= 0):
            raise ConfigError("loss.contrastive_weight and loss.mlm_weight must be >= 0")
        if self.contrastive_weight == self.mlm_weight == 0:
            raise ConfigError("loss.contrastive_weight and loss.mlm_weight are both 0")
        if not 0 < self.mlm_rate < 1:
            raise ConfigError(f"loss.mlm_rate must be between 0 and 1, got {self.mlm_rate}")
        if not self.regularizer_weight > 0:
            raise ConfigError(
                f"loss.regularizer_weight must be > 0, got {self.regularizer_weight}; set "
                "loss.regularizer=none to leave it out"
            )
        if not self.dimension_weight >= 0:
            raise ConfigError(f"loss.dimension_weight must be >= 0, got {self.dimension_weight}")
        DimensionLoss(self.dimension_temperature)  # checks it

    def _check_scheme(self) -> None:
        if not 0 <= self.word_repetition <= 1:
            raise ConfigError(
                f"loss.word_repetition must be from 0 to 1, got {self.word_repetition}"
            )
        if self.queue_size < 0 or not 0 <= self.momentum < 1:
            raise ConfigError(
                "loss.queue_size must be >= 0 and loss.momentum from 0 to below 1, got "
                f"{self.queue_size} and {self.momentum}"
            )
        rates, dims = self.dropout_sampling, self.matryoshka
        if rates is not None and not (rates and all(0 <= rate < 1 for rate in rates)):
            raise ConfigError(f"loss.dropout_sampling must be rates from 0 to below 1, got {rates}")
        if dims is not None and (not dims or min(dims) < 1 or len(set(dims)) < len(dims)):
            raise ConfigError(f"loss.matryoshka must be different numbers above 0, got {dims}")
        for name in ("word_repetition", "dropout_sampling"):
            if self.fixed_mask and getattr(self, name):
                raise ConfigError(
                    f"loss.fixed_mask makes the positive equal the anchor, loss.{name} makes it "
                    "differ; set one of them"
                )

    def _check_unused(self, names: list[str]) -> None:
        """Refuse settings that this type of loss would ignore."""
        for name, default in vars(LossConfig()).items():
            if name in names and getattr(self, name) != default:
                own = self.type != CLASSIFIER and name in SHARED
                where = f"; set loss.options.{name} instead" if own else ""
                raise ConfigError(
                    f"loss.type={self.type} does not use loss.{name}={getattr(self, name)}{where}"
                )
