"""The projection head: the MLP between pooling and loss (Gao et al. 2021, section 6.3)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from simcse.errors import ArtifactError
from simcse.io.checkpoints import read_safetensors, write_safetensors

HeadPolicy = Literal["none", "train_only", "always"]
HEAD_POLICIES: tuple[HeadPolicy, ...] = get_args(HeadPolicy)


class ProjectionHead(nn.Module):
    """Linear and tanh, (B, D) -> (B, D), initialized as BERT's layers are."""

    def __init__(self, width: int, *, initializer_range: float = 0.02) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        nn.init.normal_(self.dense.weight, std=initializer_range)
        nn.init.zeros_(self.dense.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """Project pooled vectors (B, D) to (B, D)."""
        return torch.tanh(self.dense(pooled))


def read_head(path: Path, width: int) -> ProjectionHead:
    """Read the weights of a projection head.

    Raises:
        ArtifactError: the file is damaged or holds something else.
    """
    return head_from(path, read_safetensors(path), width)


def head_from(path: Path, tensors: Mapping[str, Tensor], width: int) -> ProjectionHead:
    """Make a projection head of the tensors read from a file.

    Raises:
        ArtifactError: they have other names or shapes.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    expected = {"linear.weight": (width, width), "linear.bias": (width,)}
    if shapes != expected:
        raise ArtifactError(f"{path}: expected tensors {expected}, got {shapes}")
    head = ProjectionHead(width)
    head.dense.load_state_dict({name.removeprefix("linear."): t for name, t in tensors.items()})
    return head


def write_head(path: Path, head: ProjectionHead, dtype: torch.dtype) -> None:
    """Write the weights of a projection head."""
    weights = head.dense.state_dict()
    write_safetensors(path, {f"linear.{name}": t.to(dtype) for name, t in weights.items()})
