"""The shape of an embedding space: singular values, cosines and hubness.

Gao et al. 2021, section 5 and appendix F: contrastive training should flatten the spectrum.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simcse.errors import DataError
from simcse.evaluate.geometry import alignment, uniformity
from simcse.evaluate.significance import resample_means
from simcse.evaluate.vectors import Floats, unit

NEIGHBORS = 10
RESAMPLES = 200
NORMAL = 1.96  # standard errors of a 95 % interval
MAX_VECTORS = 4000  # vectors whose pairs are held at once; more are sampled
SEED = 0

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """Statistics of (N, D) embeddings scaled to length 1, not centered."""

    mean_cosine: float  # of two different sentences; 0 if directions cancel out
    negative_share: float  # share of pairs with a negative cosine, from 0 to 1
    # exp of the entropy of the singular values' shares (Roy and Vetterli 2007), from 1 to D
    effective_rank: float
    # share of the squared singular values in the first direction. It is the largest eigenvalue of
    # the similarity matrix over its trace, at least the mean of all its cells
    top_1: float
    top_10: float  # the same of the first ten
    # skewness of how often a sentence is among another's ten nearest (Radovanovic et al. 2010); 0
    # is even, above 1 a few sentences are near everything
    hubness: float
    singular_values: Floats  # (min(N, D),) from the largest, which is 1
    sentences: int  # N
    # 95 % bootstrap intervals by name; hubness has none, because a sentence drawn twice is its own
    # neighbor
    intervals: Mapping[str, Interval]


def space_statistics(
    vectors: ArrayLike, *, positives: tuple[ArrayLike, ArrayLike] | None = None
) -> Space:
    """Describe the space of vectors (N, D), with the intervals of alignment and uniformity.

    Args:
        vectors: one row a distinct sentence. Of more than `MAX_VECTORS` rows, that many are
            sampled, always the same ones.
        positives: (P, D) and (P, D), the pairs behind the alignment, where there are any.

    Raises:
        DataError: there are fewer than three vectors.
        NumericError: a row holds NaN or infinity.

    Example:
        >>> round(space_statistics(np.eye(12)).effective_rank, 6)
        12.0
    """
    rows = unit(vectors)
    if len(rows) < 3:
        raise DataError(f"an embedding space needs at least three sentences, got {len(rows)}")
    if len(rows) > MAX_VECTORS:
        rows = rows[np.random.default_rng(SEED).choice(len(rows), MAX_VECTORS, replace=False)]
    cosines = rows @ rows.T  # (N, N)
    values = _singular_values(rows)
    pairs = len(rows) * (len(rows) - 1)
    statistics = {"mean_cosine": (cosines.sum() - np.trace(cosines)) / pairs, **_shares(values**2)}
    negative = int((cosines < 0).sum()) - int((np.diag(cosines) < 0).sum())
    hubness = _hubness(cosines)
    return Space(
        **{name: float(value) for name, value in statistics.items()},
        negative_share=negative / pairs,
        hubness=hubness,
        singular_values=values / values[0] if values[0] > 0 else values,
        sentences=len(rows),
        intervals=_intervals(rows, cosines, statistics, positives),
    )


def effective_rank(vectors: ArrayLike) -> float:
    """Return `Space.effective_rank` alone, for vectors (N, D)."""
    return _shares(_singular_values(unit(vectors)) ** 2)["effective_rank"]


def _singular_values(rows: Floats) -> Floats:
    return np.linalg.svd(rows, compute_uv=False).astype(np.float64, copy=False)


def _shares(energies: Floats) -> dict[str, float]:
    """Return the statistics of the squared singular values (K,), from the largest."""
    total = energies.sum()
    if not total > 0:  # every vector is zero
        return {"effective_rank": 0.0, "top_1": 0.0, "top_10": 0.0}
    values = np.sqrt(np.clip(energies, 0, None))
    shares = values / values.sum()
    entropy = -float((shares[shares > 0] * np.log(shares[shares > 0])).sum())
    return {
        "effective_rank": math.exp(entropy),
        "top_1": float(energies[0] / total),
        "top_10": float(energies[:10].sum() / total),
    }


def _hubness(cosines: Floats) -> float:
    """Return the skewness of how often each row is another's neighbor."""
    others = cosines.copy()
    np.fill_diagonal(others, -np.inf)
    count = min(NEIGHBORS, len(cosines) - 1)
    nearest = np.argpartition(others, -count, axis=1)[:, -count:]
    counts = np.bincount(nearest.ravel(), minlength=len(cosines)).astype(np.float64)
    spread = counts.std()
    return float(((counts - counts.mean()) ** 3).mean() / spread**3) if spread > 0 else 0.0


def _intervals(
    rows: Floats,
    cosines: Floats,
    statistics: Mapping[str, float],
    positives: tuple[ArrayLike, ArrayLike] | None,
) -> dict[str, Interval]:
    """Return estimate ± 1.96 bootstrap standard errors over sentences, and over pairs.

    A sentence drawn several times is not a pair with itself, which scipy's bootstrap cannot
    express. Percentiles would be biased: fewer distinct sentences span fewer directions.
    """
    random = np.random.default_rng(SEED)
    weights = random.multinomial(
        len(rows), np.full(len(rows), 1 / len(rows)), size=RESAMPLES
    ).astype(np.float64)
    weights = weights[(weights > 0).sum(axis=1) > 1]  # of one sentence there is no pair
    potentials = np.exp(4 * (cosines - 1))  # exp(-2 ||x - y||^2) of unit vectors
    found = {
        "mean_cosine": (statistics["mean_cosine"], _pair_means(cosines, weights)),
        "uniformity": (uniformity(rows), np.log(_pair_means(potentials, weights))),
    }
    resampled = [_shares(_energies(rows, weight)) for weight in weights]
    for name in ("effective_rank", "top_1", "top_10"):
        found[name] = (statistics[name], np.array([shares[name] for shares in resampled]))
    if positives is not None:
        distances = ((unit(positives[0]) - unit(positives[1])) ** 2).sum(axis=1)  # (P,)
        found["alignment"] = (alignment(*positives), resample_means(distances, count=RESAMPLES))
    return {
        name: (value - NORMAL * float(spread.std()), value + NORMAL * float(spread.std()))
        for name, (value, spread) in found.items()
    }


def _pair_means(matrix: Floats, weights: Floats) -> Floats:
    """Return the mean over pairs of different rows, row i counted weights[b, i] times: (B,)."""
    pairs = weights.sum(axis=1) ** 2 - (weights**2).sum(axis=1)
    own = (weights**2) @ np.diag(matrix)
    means: Floats = (((weights @ matrix) * weights).sum(axis=1) - own) / pairs
    return means


def _energies(rows: Floats, weight: NDArray[np.float64]) -> Floats:
    """Return the squared singular values, from the largest, of weighted rows."""
    scaled = rows * np.sqrt(weight)[:, None]
    square = scaled.T @ scaled if len(rows) >= rows.shape[1] else scaled @ scaled.T
    return np.linalg.eigvalsh(square)[::-1].astype(np.float64, copy=False)
