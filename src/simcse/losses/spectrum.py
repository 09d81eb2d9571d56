"""The spectrum regularizer."""

import torch
from torch import Tensor

from simcse.losses.uniformity import pair_cosines


def spectrum_loss(embeddings: Tensor) -> Tensor:
    """Return the mean squared cosine of pairs, least where the spectrum is flat.

    The eigenvalues of the similarity matrix have a fixed sum. The sum of their squares is that of
    the squared cosines, and it is least where all eigenvalues are equal (Gao et al. 2021,
    section 5, argues by the largest one).

    Args:
        embeddings: (N, D), of any length.

    Returns:
        A scalar from 0 to 1; 0 for fewer than two embeddings.

    Example:
        >>> spectrum_loss(torch.eye(3))
        tensor(0.)
    """
    if len(embeddings) < 2:
        return embeddings.new_zeros((), dtype=torch.float32)
    return (pair_cosines(embeddings) ** 2).mean()
