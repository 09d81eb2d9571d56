"""Losses of a user's own: one that trains with a parameter, and some with a mistake."""

import torch
from torch import nn


class LearnedTemperature(nn.Module):
    """Cross-entropy of cosines divided by a temperature that is trained."""

    def __init__(self, start: float = 0.05, *, mask: bool = True) -> None:
        super().__init__()
        self.mask = mask
        self.log_scale = nn.Parameter(-torch.tensor(start).log())

    def forward(self, anchors, positives, negatives, *, negative_owners, ignore):
        """Anchors (N, D), positives (N, D), negatives (M, D) -> a scalar."""
        assert negative_owners.shape == negatives.shape[:1]  # noqa: S101
        candidates = nn.functional.normalize(torch.cat([positives, negatives]))
        logits = nn.functional.normalize(anchors) @ candidates.T * self.log_scale.exp()
        if self.mask:
            logits = logits.masked_fill(ignore, float("-inf"))
        rows = torch.arange(len(logits), device=logits.device)
        return nn.functional.cross_entropy(logits, rows)


class NoScalar:
    """Returns a loss for each row."""

    def __call__(self, anchors, positives, negatives, *, negative_owners, ignore):
        return (anchors * positives).sum(1)


class Detached:
    """Returns what has no gradient."""

    def __call__(self, anchors, positives, negatives, *, negative_owners, ignore):
        return (anchors * positives).sum().detach()


class Number:
    """Returns a plain number."""

    def __call__(self, anchors, positives, negatives, *, negative_owners, ignore):
        return float((anchors * positives).detach().sum())


class WrongArguments:
    """Takes other arguments."""

    def __call__(self, anchors, positives):
        return (anchors * positives).sum()


class NotCallable:
    """Has no __call__."""


class Refuses:
    """Checks its own argument."""

    def __init__(self, margin: float) -> None:
        if margin < 0:
            raise ValueError("margin must be >= 0")


some_number = 3
