"""Finite vectors of length 1, and their cosine, in float64."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simcse.errors import DataError, NumericError
from simcse.evaluate import Encode

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


def encode_checked(encode: Encode, sentences: Sequence[str], source: str = "") -> np.ndarray:
    """Encode N sentences and return their (N, D) vectors; ``source`` names them in errors.

    Raises:
        DataError: ``encode``, which may be the user's own, did not return one vector each.
    """
    found = encode(sentences)
    try:
        vectors = np.asarray(found)
        vectors.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        name = type(found).__name__
        raise DataError(f"encode must return numbers (N, D), got a {name}: {error}") from error
    count = len(sentences)
    if vectors.ndim != 2 or len(vectors) != count:
        expected = f"({count}, D) for {count} sentences{source and f' of {source}'}"
        raise DataError(f"encode must return shape {expected}, got {vectors.shape}")
    return vectors
