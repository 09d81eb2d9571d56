"""The focal contrastive loss."""

from dataclasses import dataclass

from torch import Tensor

from simcse.errors import ConfigError
from simcse.losses.contrastive import ContrastiveLoss


@dataclass(frozen=True)
class FocalLoss(ContrastiveLoss):
    """Give hard negatives more weight and easy positives less: Hou and Li 2023, Focal-InfoNCE.

    The exponent is s^2 for the cosine s of the positive and s (s + margin) for that of a negative,
    both divided by the temperature.

    Raises:
        ConfigError: a setting is out of range, or the similarity is not the cosine.

    Example:
        >>> h = torch.eye(4)
        >>> FocalLoss(temperature=1.0, margin=0.3)(h, h)
        tensor(0.7437)
    """

    margin: float = 0.3  # the paper's m

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.similarity != "cosine":
            raise ConfigError(
                f"loss.type=focal needs loss.similarity=cosine, got {self.similarity}"
            )

    def _exponents(self, similarities: Tensor, own: Tensor) -> Tensor:
        return similarities * (similarities + self.margin * (~own).to(similarities.dtype))
