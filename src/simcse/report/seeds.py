"""Several seeds of one setting: each run, then mean and standard deviation."""

import math
from collections.abc import Mapping
from statistics import mean, stdev

from simcse.report.tables import Column, Spread, Table, Value

Metrics = Mapping[str, float | None]


def seeds_table(runs: Mapping[int, Mapping[str, Metrics]]) -> Table:
    """Return one row a seed and a last one with mean ± standard deviation over them.

    Args:
        runs: by seed, the metrics of ``start`` and ``best``.
    """
    names = [
        (moment, name) for moment in ("start", "best") for name in next(iter(runs.values()))["best"]
    ]
    columns = tuple(Column(f"{name}, {moment}", decimals=3) for moment, name in names)
    scores = {seed: [run[moment].get(name) for moment, name in names] for seed, run in runs.items()}
    rows = [(f"seed {seed}", *values) for seed, values in scores.items()]
    spread = [_spread(list(column)) for column in zip(*scores.values(), strict=True)]
    return Table("Seeds", (Column("Run"), *columns), (*rows, (f"{len(runs)} seeds", *spread)))


def _spread(values: list[float | None]) -> Value:
    known = [value for value in values if value is not None and math.isfinite(value)]
    if len(known) < max(2, len(values)):
        return None
    return Spread(mean(known), stdev(known))
