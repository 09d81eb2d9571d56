"""SBERT's objective on labeled pairs."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn


class ClassifierLoss(nn.Module):
    """Cross-entropy of a pair's label under softmax(W [u; v; |u - v|] + b).

    Reimers and Gurevych 2019, section 3; the bias is that of their code. W and b are trained with
    the encoder and dropped afterwards.

    Attributes:
        classes: number of each label, in alphabetical order.

    Example:
        >>> loss = ClassifierLoss(8, ["no", "yes"])
        >>> loss(torch.ones(2, 8), torch.ones(2, 8), ["no", "yes"]).shape
        torch.Size([])
    """

    def __init__(self, width: int, labels: Collection[str]) -> None:
        super().__init__()
        self.classes = {label: number for number, label in enumerate(sorted(set(labels)))}
        self.dense = nn.Linear(3 * width, len(self.classes))

    def forward(self, first: Tensor, second: Tensor, labels: Sequence[str]) -> Tensor:
        """Return the loss of first (B, D), second (B, D) and B labels, summed over the pairs."""
        features = torch.cat([first, second, (first - second).abs()], dim=1)  # (B, 3 D)
        logits = self.dense(features.to(self.dense.weight.dtype))  # (B, K)
        numbers = torch.tensor([self.classes[label] for label in labels], device=logits.device)
        return nn.functional.cross_entropy(logits, numbers, reduction="sum")
