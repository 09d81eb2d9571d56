"""The decoupled contrastive loss."""

from dataclasses import dataclass

from torch import Tensor

from simcse.losses.contrastive import ContrastiveLoss


@dataclass(frozen=True)
class DecoupledLoss(ContrastiveLoss):
    """Leave the positive out of the sum that it is compared with: Yeh et al. 2022.

    With p the exponential of the positive and n those of the negatives, -log p / sum n in place
    of -log p / (p + sum n): a positive that is already near no longer weakens the gradient of the
    negatives. A row without negatives has no loss and is left out of the mean.

    Example:
        >>> h = torch.eye(4)
        >>> DecoupledLoss(temperature=1.0)(h, h)  # log 3 - 1
        tensor(0.0986)
    """

    def _reduce(self, logits: Tensor, own: Tensor) -> Tensor:
        negatives = logits.masked_fill(own, float("-inf"))
        rows = ~negatives.isneginf().all(1)  # (N,)
        losses = negatives[rows].logsumexp(1) - logits[own][rows]
        return losses.sum() / max(1, len(losses))
