"""Tables of several training seeds of one setting, and of two settings on the same seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from importlib import import_module
from statistics import mean, stdev
from typing import Any

import numpy as np

from simcse.errors import DataError
from simcse.evaluate.significance import CONFIDENCE, centered_bootstrap_p, sign_flip_p
from simcse.report.tables import Column, Spread, Table

SeedRuns = Mapping[int, Mapping[str, Mapping[str, float | None]]]  # seed, "start" or "best", metric


@dataclass(frozen=True)
class SeedDifference:
    """Difference of one metric between two settings on the same seeds."""

    name: str  # the metric
    seeds: int  # number of seeds that both settings have
    first: float  # mean of the first setting
    second: float  # mean of the second
    difference: float  # second minus first
    bootstrap_p: float  # two-sided p-value of the paired bootstrap over seeds
    # two-sided, exact p-value by flipping the signs of the differences; with n seeds it is at least
    # 2 / 2**n, a limit that the bootstrap of few seeds does not respect
    sign_flip_p: float


def seeds_table(runs: SeedRuns) -> Table:
    """Return one row a seed, then mean ± standard deviation and the mean's 95 % interval.

    Args:
        runs: by seed, the metrics of ``start`` and ``best``.
    """
    names = [
        (moment, name) for moment in ("start", "best") for name in next(iter(runs.values()))["best"]
    ]
    columns = (Column(f"{name}, {moment}", decimals=3) for moment, name in names)
    scores = {seed: [run[moment].get(name) for moment, name in names] for seed, run in runs.items()}
    by_metric = list(zip(*scores.values(), strict=True))
    low, high = zip(*map(mean_interval, by_metric), strict=True)
    rows = [
        *((f"seed {seed}", *values) for seed, values in scores.items()),
        (f"{len(runs)} seeds", *map(spread, by_metric)),
        ("mean, 95 % from", *low),
        ("mean, 95 % to", *high),
    ]
    return Table("Seeds", (Column("Run"), *columns), tuple(rows))


def compare_seeds(first: SeedRuns, second: SeedRuns) -> list[SeedDifference]:
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
        sides = [[runs[seed]["best"].get(name) for seed in common] for runs in (first, second)]
        if None not in (*sides[0], *sides[1]):
            scores = np.array(sides, np.float64)  # (2, N)
            gain, (left, right) = scores[1] - scores[0], scores.mean(axis=1).tolist()
            p = centered_bootstrap_p(gain), sign_flip_p(gain)
            found.append(SeedDifference(name, len(common), left, right, float(gain.mean()), *p))
    return found


def differences_table(found: Sequence[SeedDifference]) -> Table:
    """Return one row a metric."""
    titles = ("First", "Second", "Difference", "Bootstrap p", "Sign-flip p")
    columns = (Column("Metric"), Column("Seeds"), *(Column(title, decimals=4) for title in titles))
    rows = tuple(map(astuple, found))
    return Table("Second setting compared with the first, best checkpoints", columns, rows)


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
    stats: Any = import_module("scipy.stats")  # takes a second to import
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    reach = quantile * found.deviation / math.sqrt(len(values))
    return found.mean - reach, found.mean + reach
