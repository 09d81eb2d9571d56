"""What every measure shares: finite vectors of length 1, and their cosine, in float64."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simcse.errors import DataError, NumericError

Floats = NDArray[np.float64]
COSINE_DECIMALS = 12  # below this is rounding: identical sentences must tie on every machine


def unit(vectors: ArrayLike) -> Floats:
    """Scale each row to length 1: (N, D) -> (N, D) float64. A zero row stays zero.

    Raises:
        DataError: ``vectors`` is not two-dimensional.
        NumericError: a row holds NaN or infinity.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2:
        raise DataError(f"expected embeddings of shape (N, D), got {rows.shape}")
    broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(broken):
        raise NumericError(
            f"{len(broken)} of {len(rows)} embeddings are not finite, the first is row {broken[0]}"
        )
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)  # (N, 1)
    scaled: Floats = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return scaled


def cosine(first: ArrayLike, second: ArrayLike) -> Floats:
    """Return the cosine of each row pair: (N, D), (N, D) -> (N,); 0 where a vector is zero.

    Raises:
        DataError: the shapes differ.
        NumericError: a row holds NaN or infinity.

    Example:
        >>> cosine([[1.0, 0.0]], [[1.0, 1.0]]).round(4)
        array([0.7071])
    """
    left, right = unit(first), unit(second)
    if left.shape != right.shape:
        raise DataError(f"expected pairs of embeddings, got shapes {left.shape} and {right.shape}")
    cosines: Floats = np.einsum("nd,nd->n", left, right).round(COSINE_DECIMALS)
    return cosines
