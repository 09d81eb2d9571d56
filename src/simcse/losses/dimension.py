"""SimCSE++'s contrast of dimensions, added to a contrastive loss of rows."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from simcse.errors import ConfigError
from simcse.losses.contrastive import at_least_fp32


@dataclass(frozen=True)
class DimensionLoss:
    """Contrast each dimension with all others by its values over the batch: Xu et al. 2023.

    The contrastive loss of the columns in place of the rows. With C the (D, D) correlations of
    the anchors' dimensions with the positives', it is the mean over d of
    -log( exp(C_dd / temperature) / sum_k exp(C_dk / temperature) ).

    Raises:
        ConfigError: the temperature is not above 0.

    Example:
        >>> rows = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        >>> DimensionLoss(temperature=1.0)(rows, rows)  # log(1 + 1 / e)
        tensor(0.3133)
    """

    # Divisor of the correlations.
    temperature: float = 5.0  # train_re_vicreg.py of the authors' code, sw_temp

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"loss.dimension_temperature must be > 0, got {self.temperature}")

    def __call__(self, anchors: Tensor, positives: Tensor) -> Tensor:
        """Compare (N, D) with (N, D): the mean over dimensions; 0 for fewer than two rows."""
        if len(anchors) < 2:
            return anchors.new_zeros((), dtype=torch.float32)
        first, second = (
            nn.functional.batch_norm(at_least_fp32(x), None, None, training=True)
            for x in (anchors, positives)
        )
        correlations = first.T @ second / len(first)  # (D, D)
        dimensions = torch.arange(len(correlations), device=correlations.device)
        return nn.functional.cross_entropy(correlations / self.temperature, dimensions)
