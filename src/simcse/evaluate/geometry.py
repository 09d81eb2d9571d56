"""Alignment and uniformity of embeddings (Wang and Isola 2020; Gao et al. 2021, section 2)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from simcse.errors import DataError
from simcse.evaluate.sts import EmbeddedTask
from simcse.evaluate.vectors import Floats, unit
from simcse.io.benchmarks import StsTask
from simcse.io.files import sha256_file

PAPER_RATING = 4.0  # positives are STS-B pairs rated above it (0-5): Gao et al. 2021, section 2
TILE = 2048  # rows of a tile of the distance matrix; 32 MB in float64


@dataclass(frozen=True, slots=True)
class Geometry:
    """The paper's two properties of an embedding space; lower is better, for both together."""

    alignment: float  # mean squared distance of positive pairs, from 0 (same) to 4 (opposite)
    uniformity: float  # log mean Gaussian potential, from 0 (collapsed) down to about -4
    positives: int  # pairs behind the alignment
    sentences: int  # distinct sentences behind the uniformity
    zero_vectors: int  # sentences whose embedding is all zeros; they stay at the origin


def alignment(first: ArrayLike, second: ArrayLike) -> float:
    """Return E ||f(x) - f(x+)||^2 over positive pairs, after scaling to length 1.

    Equation 2 of Gao et al. 2021: first (N, D), second (N, D) -> a number in [0, 4].

    Raises:
        DataError: there is no pair, or the shapes differ.
        NumericError: a row holds NaN or infinity.

    Example:
        >>> alignment([[2.0, 0.0]], [[0.0, 1.0]])
        2.0
    """
    left, right = unit(first), unit(second)
    if left.shape != right.shape or not len(left):
        raise DataError(f"alignment needs pairs, got shapes {left.shape} and {right.shape}")
    return float(((left - right) ** 2).sum(axis=1).mean())


def uniformity(vectors: ArrayLike) -> float:
    """Return log E exp(-2 ||f(x) - f(y)||^2) over all pairs i < j, after scaling to length 1.

    Equation 3 of Gao et al. 2021: vectors (N, D) -> a number in [-8, 0]. Exact; memory is that
    of one tile of distances, whatever N.

    Raises:
        DataError: there are fewer than two vectors.
        NumericError: a row holds NaN or infinity.

    Example:
        >>> uniformity([[1.0, 0.0], [0.0, 3.0]])
        -4.0
    """
    rows = np.asarray(vectors)
    count = len(rows)
    if count < 2:
        raise DataError(f"uniformity needs at least two vectors, got {count}")
    total = 0.0
    for start in range(0, count, TILE):
        tile = unit(rows[start : start + TILE])
        total += float(np.triu(_potentials(tile, tile), k=1).sum())
        for other in range(start + TILE, count, TILE):
            total += float(_potentials(tile, unit(rows[other : other + TILE])).sum())
    return math.log(total / math.comb(count, 2))


def mean_cosine(vectors: ArrayLike) -> float:
    """Return the mean cosine over all pairs i < j: 0 where directions cancel, 1 in one point.

    vectors (N, D) -> a number in [-1 / (N - 1), 1].

    Raises:
        DataError: there are fewer than two vectors.
        NumericError: a row holds NaN or infinity.

    Example:
        >>> mean_cosine([[1.0, 0.0], [0.0, 3.0]])
        0.0
    """
    rows = unit(vectors)
    if len(rows) < 2:
        raise DataError(f"a mean cosine needs at least two vectors, got {len(rows)}")
    total = float((rows.sum(axis=0) ** 2).sum() - (rows**2).sum())  # of all ordered pairs
    return total / (len(rows) * (len(rows) - 1))


def positive_pairs(path: Path, pairs: Sequence[tuple[str, str]]) -> StsTask:
    """Return the pairs of a user's file as a task of pairs rated 5, all of them positive."""
    first, second = zip(*pairs, strict=True)
    ratings, names = np.full(len(first), 5.0), (path.name,) * len(first)
    return StsTask(path.name, names, ratings, first, second, path, sha256_file(path))


def score_geometry(embedded: EmbeddedTask, *, above: float = PAPER_RATING) -> Geometry:
    """Score an embedded STS-B split by the paper's protocol.

    Positives are the pairs rated above 4. Uniformity is over the split's distinct sentences: a
    repeated sentence is at distance 0 from itself whatever the model.

    Raises:
        DataError: no pair is rated above ``above``.
        NumericError: an embedding holds NaN or infinity.
    """
    vectors = embedded.vectors
    positive = embedded.task.scores > above  # (N,)
    if not positive.any():
        raise DataError(f"{embedded.task.name}: no pair is rated above {above}")
    return Geometry(
        alignment=alignment(vectors[embedded.first[positive]], vectors[embedded.second[positive]]),
        uniformity=uniformity(vectors),
        positives=int(positive.sum()),
        sentences=len(vectors),
        zero_vectors=embedded.zero_vectors,
    )


def _potentials(left: Floats, right: Floats) -> Floats:
    """Return exp(-2 ||x - y||^2) of every pair: (A, D), (B, D) -> (A, B)."""
    squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)  # (A, B)
    potentials: Floats = np.exp(-2 * (squares - 2 * left @ right.T))
    return potentials
