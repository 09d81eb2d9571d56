"""SBERT's objective: a softmax classifier over labeled pairs, dropped after training."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn


class PairClassifier(nn.Module):
    """Tells what two sentences are to each other by softmax(W [u; v; |u - v|] + b).

    Reimers and Gurevych 2019, section 3; the bias is that of their code.

    Attributes:
        classes: number of each label, in the order of the alphabet.
    """

    def __init__(self, width: int, labels: Collection[str]) -> None:
        super().__init__()
        self.classes = {label: number for number, label in enumerate(sorted(set(labels)))}
        self.dense = nn.Linear(3 * width, len(self.classes))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Score the classes: first (B, D), second (B, D) -> logits (B, K)."""
        features = torch.cat([first, second, (first - second).abs()], dim=1)  # (B, 3 D)
        logits: Tensor = self.dense(features.to(self.dense.weight.dtype))
        return logits

    def loss(self, first: Tensor, second: Tensor, labels: Sequence[str]) -> Tensor:
        """Return the cross-entropy of the labels, summed over the pairs (B, D) and (B, D)."""
        numbers = torch.tensor([self.classes[label] for label in labels], device=first.device)
        return nn.functional.cross_entropy(self(first, second), numbers, reduction="sum")
