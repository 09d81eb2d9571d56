"""Do our rows stand in the order of theirs? Kendall's tau, and how easily luck gives it."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

MOST_ORDERED = 8  # rows whose 40,320 orders are all looked at
DRAWN = 100_000  # orders looked at of more rows
LEAST_SEEDS = 3
LEVEL = 0.05


@dataclass(frozen=True)
class Agreement:
    """How far two orders of the same rows agree.

    Attributes:
        rows: that both sides have a score of.
        tau: Kendall's tau-b of our means over seeds and theirs, from -1 to 1.
        by_seed: tau of each seed alone; empty where rows were measured on different seeds.
        p: the share of all orders of our rows that agree with theirs at least as well, ``None``
            with fewer than `LEAST_SEEDS` seeds. It asks whether the *order* could be luck: one
            row is one draw, and more seeds make the means surer but no smaller p possible.
        least_p: the p of the very same order; ties of theirs raise it.
    """

    rows: int
    tau: float
    by_seed: tuple[float, ...]
    p: float | None
    least_p: float


def agreement(ours: Sequence[Sequence[float]], theirs: Sequence[float]) -> Agreement | None:
    """Compare the order of our rows, each with its scores by seed, with that of theirs.

    Returns:
        ``None`` where no order is to be told: fewer than two rows, or all of a side are equal.

    Example:
        >>> agreement([[1, 2, 3], [4, 5, 6]], [80.0, 82.0]).tau
        1.0
    """
    if len(ours) < 2:
        return None
    means = [sum(row) / len(row) for row in ours]
    tau = kendall(means, theirs)
    if tau is None:
        return None
    counts = {len(row) for row in ours}
    by_seed = list(zip(*ours, strict=True)) if len(counts) == 1 else []
    taus = [kendall(seed, theirs) for seed in by_seed]
    enough = min(counts) >= LEAST_SEEDS
    p = order_p(means, theirs) if enough else None
    known = tuple(each for each in taus if each is not None)
    return Agreement(len(ours), tau, known, p, order_p(theirs, theirs))


def kendall(first: ArrayLike, second: ArrayLike) -> float | None:
    """Return Kendall's tau-b of (R,) and (R,); ``None`` where one side is constant."""
    stats: Any = import_module("scipy.stats")  # takes a second
    found = float(stats.kendalltau(first, second, variant="b").statistic)
    return None if np.isnan(found) else found


def order_p(ours: Sequence[float], theirs: Sequence[float], *, seed: int = 0) -> float:
    """Return the one-sided p of tau: how many orders of (R,) ours are as near to (R,) theirs.

    Exact up to `MOST_ORDERED` rows; of more, `DRAWN` orders are drawn, and the one observed counts
    among them (Phipson and Smyth 2010).
    """
    left, right = _signs(ours), _signs(theirs)
    observed = int((left * right).sum())
    rows = len(left)
    if rows <= MOST_ORDERED:
        orders = np.array(list(permutations(range(rows))))
        return float((_agreements(left, right, orders) >= observed).mean())
    random = np.random.default_rng(seed)
    drawn = random.permuted(np.tile(np.arange(rows), (DRAWN, 1)), axis=1)
    return float((1 + (_agreements(left, right, drawn) >= observed).sum()) / (1 + DRAWN))


def _signs(values: Sequence[float]) -> NDArray[np.int64]:
    """(R, R): 1 where the row's value is above the column's, -1 below, 0 where equal."""
    array = np.asarray(values, np.float64)
    return np.sign(array[:, None] - array).astype(np.int64)


def _agreements(
    left: NDArray[np.int64], right: NDArray[np.int64], orders: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return agreeing minus disagreeing pairs, twice, for each order (N, R) of the left: (N,)."""
    total = np.zeros(len(orders), np.int64)
    for row in range(left.shape[0]):  # a row of pairs at a time: N x R numbers, not N x R x R
        total += left[orders[:, row, None], orders] @ right[row]
    return total
