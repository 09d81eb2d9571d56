"""The projection head: the MLP between pooling and loss (Gao et al. 2021, section 6.3)."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

HeadPolicy = Literal["none", "train_only", "always"]
HEAD_POLICIES: tuple[HeadPolicy, ...] = get_args(HeadPolicy)


class ProjectionHead(nn.Module):
    """Linear and tanh, (B, D) -> (B, D), initialised as BERT's layers are."""

    def __init__(self, width: int, *, initializer_range: float = 0.02) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        nn.init.normal_(self.dense.weight, std=initializer_range)
        nn.init.zeros_(self.dense.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """Project pooled vectors (B, D) to (B, D)."""
        return torch.tanh(self.dense(pooled))
