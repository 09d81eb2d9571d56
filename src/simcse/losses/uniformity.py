"""The uniformity regularizer."""

import math

import torch
from torch import Tensor

from simcse.losses.contrastive import cosines


def uniformity_loss(embeddings: Tensor) -> Tensor:
    """Return log E exp(-2 ||x - y||^2) over pairs of unit vectors: Wang and Isola 2020.

    Args:
        embeddings: (N, D), of any length.

    Returns:
        A scalar, larger where embeddings crowd together; 0 for fewer than two.

    Example:
        >>> uniformity_loss(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))  # the distance is 2
        tensor(-8.)
    """
    if len(embeddings) < 2:
        return embeddings.new_zeros((), dtype=torch.float32)
    pairs = pair_cosines(embeddings)
    return (4 * (pairs - 1)).logsumexp(0) - math.log(len(pairs))  # ||x - y||^2 = 2 - 2 cos


def pair_cosines(embeddings: Tensor) -> Tensor:
    """Cosine of every pair of different rows: (N, D) -> (N (N - 1) / 2,)."""
    rows, columns = torch.triu_indices(len(embeddings), len(embeddings), 1).to(embeddings.device)
    return cosines(embeddings, embeddings)[rows, columns]
