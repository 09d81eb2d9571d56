"""Significance of differences between models, settings and rankings.

Resampling and permutation are ``scipy.stats.bootstrap`` and ``permutation_test``. The average of
several tasks, each with its own items, is not one scipy sample: `compare_average` averages the
tasks' bootstrap distributions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from simcse.errors import DataError
from simcse.evaluate.vectors import Floats

RESAMPLES = 1000  # of test items
SEED_RESAMPLES = 10_000  # of training seeds, which are few
PERMUTATIONS = 100_000  # all orders of up to 8 rows, a random sample of the orders of more
ROWS = {"vectorized": True, "batch": 100, "axis": -1}  # 4 MB an array at 5,000 pairs
SEED = 0
CONFIDENCE = 0.95
MIN_SEEDS = 3  # below which a ranking gets no p-value


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Two models on the same items, x100."""

    first: float  # score of the first model
    second: float  # score of the second
    low: float  # lower end of the 95 % interval of second - first
    high: float  # its upper end
    p: float  # two-sided bootstrap p-value of the difference

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second - self.first


def compare_spearman(
    first: ArrayLike, second: ArrayLike, gold: ArrayLike, *, seed: int = SEED
) -> tuple[PairedDifference, Floats]:
    """Compare two models' cosines (N,) by their Spearman correlation with gold (N,).

    Returns the difference and its (RESAMPLES,) bootstrap distribution.

    Raises:
        DataError: the arrays differ in length, or have fewer than two items.
    """
    data = _same_length("pairs", first, second, gold)
    scores = [100 * float(spearman_rows(side, data[2])) for side in data[:2]]
    return _difference(scores, _resample(data, _spearman_difference, seed))


def compare_means(
    first: ArrayLike, second: ArrayLike, *, seed: int = SEED
) -> tuple[PairedDifference, Floats]:
    """Compare two models by their scores on the same examples (N,), such as right or wrong.

    Returns the difference and its (RESAMPLES,) bootstrap distribution.

    Raises:
        DataError: the arrays differ in length, or have fewer than two items.
    """
    data = _same_length("examples", first, second)
    scores = [100 * float(side.mean()) for side in data]
    return _difference(scores, resample_means(100 * (data[1] - data[0]), seed=seed))


def compare_average(tasks: Sequence[tuple[PairedDifference, Floats]]) -> PairedDifference:
    """Compare the averages over tasks, each resampled independently of the others."""
    scores = np.mean([[task.first, task.second] for task, _ in tasks], axis=0).tolist()
    return _difference(scores, np.mean([values for _, values in tasks], axis=0))[0]


def spearman_rows(first: Floats, second: Floats) -> Floats:
    """Return Spearman's correlation along the last axis: (..., N), (..., N) -> (...).

    A row in which one side is constant gives 0.
    """
    left, right = (_stats().rankdata(side, axis=-1) for side in (first, second))
    left -= left.mean(axis=-1, keepdims=True)
    right -= right.mean(axis=-1, keepdims=True)
    shared = np.asarray((left * right).sum(axis=-1))
    norm = np.sqrt((left**2).sum(axis=-1) * (right**2).sum(axis=-1))
    found: Floats = np.divide(shared, norm, out=np.zeros_like(shared), where=norm > 0)
    return found


def mean_intervals(scores: Floats) -> Floats:
    """Return the 95 % bootstrap interval of each column's mean: (N, M) -> (M, 2)."""
    return _interval(resample_means(scores.T)).T


def resample_means(samples: Floats, *, count: int = RESAMPLES, seed: int = SEED) -> Floats:
    """Return the bootstrap distribution of the mean of samples (..., N): (..., count)."""
    if samples.shape[-1] < 2:
        return np.repeat(samples, count, axis=-1)  # every resample of one item is that item
    return _resample([samples], np.mean, seed, count=count)


def sign_flip_p(differences: Floats) -> float:
    """Return the two-sided p-value of a mean difference (N,) by flipping signs.

    Exact up to 13 seeds. With N seeds it is at least 2 / 2**N.
    """
    options = {"permutation_type": "samples", "n_resamples": SEED_RESAMPLES, "rng": SEED}
    return float(_stats().permutation_test((differences,), np.mean, **options, **ROWS).pvalue)


def centered_bootstrap_p(differences: Floats, *, seed: int = SEED) -> float:
    """Return the two-sided bootstrap p-value of a mean difference (N,).

    Resamples have mean 0, as under the null hypothesis: Efron and Tibshirani 1993, section 16.4.
    """
    mean = differences.mean()
    resampled = resample_means(differences - mean, count=SEED_RESAMPLES, seed=seed)
    extreme = np.abs(resampled) >= abs(mean) - 1e-12
    return float((1 + extreme.sum()) / (1 + SEED_RESAMPLES))


@dataclass(frozen=True)
class RankAgreement:
    """Agreement of two rankings of the same rows."""

    rows: int  # number of rows that both sides have a score of
    tau: float  # Kendall's tau-b of our means over seeds and the published scores, from -1 to 1
    # tau of each seed alone; empty where rows have different numbers of seeds
    by_seed: tuple[float, ...]
    # share of all orders of our rows that agree with the published order at least as well; ``None``
    # with fewer than `MIN_SEEDS` seeds. The rows are the sample: more seeds make the means more
    # certain, but no smaller p possible
    p: float | None
    least_p: float  # p of an identical order; ties in the published scores raise it


def rank_agreement(
    ours: Sequence[Sequence[float]], published: Sequence[float]
) -> RankAgreement | None:
    """Compare the ranking of our rows, each with its scores by seed, with the published one.

    Returns:
        ``None`` where no ranking exists: fewer than two rows, or one side is constant.

    Example:
        >>> rank_agreement([[1, 2, 3], [4, 5, 6]], [80.0, 82.0]).tau
        1.0
    """
    if len(ours) < 2:
        return None
    means = [sum(row) / len(row) for row in ours]
    tau = kendall(means, published)
    if tau is None:
        return None
    counts = {len(row) for row in ours}
    seeds = zip(*ours, strict=True) if len(counts) == 1 else ()
    by_seed = [found for seed in seeds if (found := kendall(seed, published)) is not None]
    p = order_p(means, published) if min(counts) >= MIN_SEEDS else None
    return RankAgreement(len(ours), tau, tuple(by_seed), p, order_p(published, published))


def kendall(first: ArrayLike, second: ArrayLike) -> float | None:
    """Return Kendall's tau-b of (R,) and (R,); ``None`` where one side is constant."""
    found = float(_stats().kendalltau(first, second, variant="b").statistic)
    return None if np.isnan(found) else found


def order_p(ours: Sequence[float], published: Sequence[float]) -> float:
    """Return the one-sided permutation p-value of tau, for (R,) ours and (R,) published.

    Exact up to 8 rows, ties included; of more rows, `PERMUTATIONS` orders are drawn.
    """
    signs = _signs(np.asarray(published, np.float64))  # (R, R)

    def agreements(values: Floats, axis: int) -> Floats:
        """Return twice the agreeing minus the disagreeing pairs: (B, R) -> (B,)."""
        rows = np.moveaxis(values, axis, -1)
        total: Floats = np.einsum("...ij,ij->...", _signs(rows), signs)
        return total

    options = {"permutation_type": "pairings", "n_resamples": PERMUTATIONS, "rng": SEED}
    found = _stats().permutation_test(
        (np.asarray(ours, np.float64),), agreements, alternative="greater", **options, **ROWS
    )
    return float(found.pvalue)


def _stats() -> Any:  # noqa: ANN401 - a module
    return import_module("scipy.stats")  # takes a second to import


def _signs(values: Floats) -> Floats:
    """Return 1 where the row's value is above the column's, -1 below: (..., R) -> (..., R, R)."""
    found: Floats = np.sign(values[..., :, None] - values[..., None, :])
    return found


def _spearman_difference(first: Floats, second: Floats, gold: Floats, axis: int = -1) -> Floats:
    """Return 100 times the second's correlation minus the first's: (B, N) each -> (B,)."""
    rows = [np.moveaxis(side, axis, -1) for side in (first, second, gold)]
    return 100 * (spearman_rows(rows[1], rows[2]) - spearman_rows(rows[0], rows[2]))


def _resample(
    data: Sequence[Floats], statistic: Callable[..., Any], seed: int, *, count: int = RESAMPLES
) -> Floats:
    """Return the bootstrap distribution of a statistic of paired samples (..., N)."""
    options = {"paired": True, "method": "percentile", "n_resamples": count, "rng": seed}
    found: Floats = _stats().bootstrap(data, statistic, **options, **ROWS).bootstrap_distribution
    return found


def _same_length(items: str, *arrays: ArrayLike) -> list[Floats]:
    sides = [np.asarray(side, np.float64) for side in arrays]
    lengths = [len(side) for side in sides]
    if min(lengths) < 2 or len(set(lengths)) > 1:
        raise DataError(f"expected two or more {items}, the same for both models, got {lengths}")
    return sides


def _difference(scores: Sequence[float], resampled: Floats) -> tuple[PairedDifference, Floats]:
    low, high = _interval(resampled).tolist()
    beyond = 1 + min((resampled <= 0).sum(), (resampled >= 0).sum())
    p = min(1.0, 2 * float(beyond) / (len(resampled) + 1))
    return PairedDifference(scores[0], scores[1], low, high, p), resampled


def _interval(distribution: Floats) -> Floats:
    """Return both ends of the percentile interval: (..., B) -> (2, ...)."""
    tail = 50 * (1 - CONFIDENCE)
    ends: Floats = np.percentile(distribution, (tail, 100 - tail), axis=-1)
    return ends
