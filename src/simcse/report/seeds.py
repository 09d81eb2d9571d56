"""Several seeds of one setting, and two settings on the same seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from statistics import mean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse.errors import DataError
from simcse.report.tables import Column, Spread, Table

Metrics = Mapping[str, float | None]
Runs = Mapping[int, Mapping[str, Metrics]]  # by seed, then by moment: "start" and "best"
CONFIDENCE = 0.95
RESAMPLES = 10_000
MOST_FLIPS = 12  # seeds whose signs are flipped in every way


@dataclass(frozen=True)
class PairedDifference:
    """How one setting's metric differs from another's on the same seeds.

    Attributes:
        name: the metric.
        seeds: runs of each setting that were compared.
        first: mean of the first setting.
        second: mean of the second.
        difference: second minus first.
        bootstrap_p: two-sided, by the paired bootstrap over seeds.
        sign_flip_p: two-sided and exact, by flipping the signs of the differences; with n seeds
            it cannot be below 2 / 2**n, which the bootstrap of few seeds does not know.
    """

    name: str
    seeds: int
    first: float
    second: float
    difference: float
    bootstrap_p: float
    sign_flip_p: float


def seeds_table(runs: Runs) -> Table:
    """Return one row a seed, then mean ± standard deviation and the mean's 95 % interval.

    Args:
        runs: by seed, the metrics of ``start`` and ``best``.
    """
    names = [
        (moment, name) for moment in ("start", "best") for name in next(iter(runs.values()))["best"]
    ]
    columns = tuple(Column(f"{name}, {moment}", decimals=3) for moment, name in names)
    scores = {seed: [run[moment].get(name) for moment, name in names] for seed, run in runs.items()}
    rows = [(f"seed {seed}", *values) for seed, values in scores.items()]
    by_metric = [list(column) for column in zip(*scores.values(), strict=True)]
    spreads = (spread(values) for values in by_metric)
    low, high = zip(*(mean_interval(values) for values in by_metric), strict=True)
    ends = [("mean, 95 % from", *low), ("mean, 95 % to", *high)]
    return Table(
        "Seeds", (Column("Run"), *columns), (*rows, (f"{len(runs)} seeds", *spreads), *ends)
    )


def compare_seeds(first: Runs, second: Runs, *, seed: int = 0) -> list[PairedDifference]:
    """Compare the best checkpoints of two settings on the seeds that both have.

    Raises:
        DataError: they have fewer than two seeds in common.
    """
    common = sorted(first.keys() & second.keys())
    if len(common) < 2:
        raise DataError(f"two settings are compared on 2 or more common seeds, got {len(common)}")
    names = [name for name in first[common[0]]["best"] if name in second[common[0]]["best"]]
    found = []
    for name in names:
        left, right = ([runs[s]["best"].get(name) for s in common] for runs in (first, second))
        if None not in (*left, *right):
            found.append(_paired(name, np.array([left, right], np.float64), seed))
    return found


def differences_table(found: Sequence[PairedDifference]) -> Table:
    """Return one row a metric."""
    titles = ("First", "Second", "Difference", "Bootstrap p", "Sign-flip p")
    columns = (Column("Metric"), Column("Seeds"), *(Column(title, decimals=4) for title in titles))
    rows = tuple(
        (d.name, d.seeds, d.first, d.second, d.difference, d.bootstrap_p, d.sign_flip_p)
        for d in found
    )
    return Table("Second setting against the first, best checkpoints", columns, rows)


def _paired(name: str, scores: NDArray[np.float64], seed: int) -> PairedDifference:
    """Compare scores (2, N)."""
    first, second = scores.mean(axis=1)
    differences = scores[1] - scores[0]  # (N,)
    count, mean_difference = len(differences), float(differences.mean())
    generator = np.random.default_rng(seed)
    drawn = generator.integers(count, size=(RESAMPLES, count))
    # Under the null hypothesis the mean difference is 0 (Efron and Tibshirani 1993, section 16.4).
    resampled = (differences - mean_difference)[drawn].mean(axis=1)
    beyond = np.abs(resampled) >= abs(mean_difference) - 1e-12
    if count <= MOST_FLIPS:
        signs = np.array(list(product((1, -1), repeat=count)))
    else:
        signs = generator.choice((1, -1), size=(RESAMPLES, count))
    flipped = np.abs((signs * differences).mean(axis=1)) >= abs(mean_difference) - 1e-12
    return PairedDifference(
        name,
        count,
        float(first),
        float(second),
        mean_difference,
        bootstrap_p=float((1 + beyond.sum()) / (1 + RESAMPLES)),
        sign_flip_p=float(flipped.mean()),
    )


def spread(values: Sequence[float | None]) -> Spread | None:
    """Return mean and standard deviation; ``None`` of fewer than two, or if one is undefined."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if len(known) < max(2, len(values)):
        return None
    return Spread(mean(known), stdev(known))


def mean_interval(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Return Student's 95 % interval of a mean, where it has a `spread`."""
    found = spread(values)
    if found is None:
        return None, None
    stats: Any = import_module("scipy.stats")  # takes a second
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    reach = quantile * found.deviation / math.sqrt(len(values))
    return found.mean - reach, found.mean + reach
