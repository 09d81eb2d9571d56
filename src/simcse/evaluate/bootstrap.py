"""Paired bootstrap: is a difference between two models more than the luck of the test items?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simcse.errors import DataError
from simcse.evaluate.vectors import Floats

RESAMPLES = 1000
SEED = 0
INTERVAL = (2.5, 97.5)  # percent
CHUNK = 200  # resamples computed at once


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Two models on the same items, x100.

    Attributes:
        first: score of the first model.
        second: score of the second.
        low: lower end of the 95 % interval of second - first.
        high: its upper end.
        p: two-sided probability of a difference at least as far from 0 if there were none.
    """

    first: float
    second: float
    low: float
    high: float
    p: float

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second - self.first


def compare_spearman(
    first: ArrayLike, second: ArrayLike, gold: ArrayLike, *, seed: int = SEED
) -> tuple[PairedDifference, Floats]:
    """Compare two models' cosines (N,) by their Spearman with gold (N,).

    Returns the difference and its (RESAMPLES,) resampled values, for an average over tasks.

    Raises:
        DataError: the arrays differ in length.
    """
    cosines = [np.asarray(side, np.float64) for side in (first, second)]
    scores = np.asarray(gold, np.float64)
    if not len(cosines[0]) == len(cosines[1]) == len(scores) > 1:
        lengths = [len(side) for side in (*cosines, scores)]
        raise DataError(f"the models were not measured on the same pairs: {lengths}")
    found = np.concatenate(
        [
            np.stack([weighted_spearman(side, scores, weights) for side in cosines])
            for weights in _weights(len(scores), seed)
        ],
        axis=1,
    )  # (2, RESAMPLES)
    once = np.ones((1, len(scores)))
    whole = [100 * float(weighted_spearman(side, scores, once)[0]) for side in cosines]
    return _difference(whole, 100 * (found[1] - found[0]))


def compare_means(
    first: ArrayLike, second: ArrayLike, *, seed: int = SEED
) -> tuple[PairedDifference, Floats]:
    """Compare two models by what each scores on the same examples (N,), such as right or wrong.

    Returns the difference and its (RESAMPLES,) resampled values.

    Raises:
        DataError: the arrays differ in length.
    """
    correct = [np.asarray(side, np.float64) for side in (first, second)]
    if not len(correct[0]) == len(correct[1]) > 0:
        lengths = [len(side) for side in correct]
        raise DataError(f"the models were not measured on the same examples: {lengths}")
    gain = 100 * (correct[1] - correct[0])
    resampled = np.concatenate([w @ gain / len(gain) for w in _weights(len(gain), seed)])
    return _difference([100 * float(side.mean()) for side in correct], resampled)


def compare_average(
    parts: list[tuple[PairedDifference, Floats]],
) -> PairedDifference:
    """Compare the averages over tasks that were resampled independently of one another."""
    first = float(np.mean([part.first for part, _ in parts]))
    second = float(np.mean([part.second for part, _ in parts]))
    return _difference([first, second], np.mean([values for _, values in parts], axis=0))[0]


def weighted_spearman(first: ArrayLike, second: ArrayLike, weights: NDArray[np.float64]) -> Floats:
    """Return Spearman's correlation with item i taken weights[b, i] times: (B, N) -> (B,).

    Exactly that of the resampled lists, mid-ranks for ties, without sorting each of them. A
    resample in which one side is constant gives 0.
    """
    left, right = (_ranks(np.asarray(side), weights) for side in (first, second))
    total = weights.sum(axis=1, keepdims=True)
    left -= (weights * left).sum(axis=1, keepdims=True) / total
    right -= (weights * right).sum(axis=1, keepdims=True) / total
    shared = (weights * left * right).sum(axis=1)
    spread = np.sqrt((weights * left**2).sum(axis=1) * (weights * right**2).sum(axis=1))
    found: Floats = np.divide(shared, spread, out=np.zeros_like(shared), where=spread > 0)
    return found


def _ranks(values: NDArray[np.float64], weights: NDArray[np.float64]) -> Floats:
    """Return mid-ranks (B, N) of values (N,) with multiplicities (B, N)."""
    distinct, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(distinct)))
    counts = np.add.reduceat(weights[:, order], starts, axis=1)  # (B, U)
    ranks: Floats = (counts.cumsum(axis=1) - (counts - 1) / 2)[:, place]
    return ranks


def _weights(items: int, seed: int) -> list[NDArray[np.float64]]:
    """Return how often each item is in each resample: chunks (CHUNK, N)."""
    random = np.random.default_rng(seed)
    chances = np.full(items, 1 / items)
    return [
        random.multinomial(items, chances, size=CHUNK).astype(np.float64)
        for _ in range(RESAMPLES // CHUNK)
    ]


def _difference(whole: list[float], resampled: Floats) -> tuple[PairedDifference, Floats]:
    low, high = np.percentile(resampled, INTERVAL)
    beyond = 1 + min((resampled <= 0).sum(), (resampled >= 0).sum())
    p = min(1.0, 2 * float(beyond) / (len(resampled) + 1))
    return PairedDifference(whole[0], whole[1], float(low), float(high), p), resampled
