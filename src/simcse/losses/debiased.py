"""The debiased contrastive loss."""

from dataclasses import dataclass

import torch
from torch import Tensor

from simcse.errors import ConfigError
from simcse.losses.contrastive import ContrastiveLoss


@dataclass(frozen=True)
class DebiasedLoss(ContrastiveLoss):
    """Correct the sum of the negatives for those that are positives: Chuang et al. 2020.

    With p the exponential of the positive and n those of the K negatives, the sum of n becomes

        max( (sum n - K prior p) / (1 - prior), K exp(-1 / temperature) )

    whose second term is the least that K cosines can give.

    Raises:
        ConfigError: a setting is out of range, or the similarity is not the cosine.

    Example:
        >>> h = torch.eye(4)
        >>> DebiasedLoss(temperature=1.0, prior=0.1)(h, h)
        tensor(0.6381)
    """

    prior: float = 0.1  # the probability that a negative means the same as the anchor

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.prior < 1:
            raise ConfigError(f"loss.options.prior must be between 0 and 1, got {self.prior}")
        if self.similarity != "cosine":
            raise ConfigError(
                f"loss.type=debiased needs loss.similarity=cosine, got {self.similarity}"
            )

    def _reduce(self, logits: Tensor, own: Tensor) -> Tensor:
        largest = logits.detach().amax(1)  # (N,), subtracted against overflow
        terms = (logits - largest[:, None]).exp()
        positive = terms[own]
        negatives = ~own & ~logits.isneginf()
        count = negatives.sum(1).to(terms.dtype)  # (N,), K of each row
        total = ((terms * negatives).sum(1) - self.prior * count * positive) / (1 - self.prior)
        total = torch.maximum(total, count * (-1 / self.temperature - largest).exp())
        return ((positive + total).log() + largest - logits[own]).mean()
