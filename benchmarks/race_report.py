"""The results of a race: as a table, and as plain values for JSON."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from race import Timing, ratios
from simcse.errors import ResourceError
from simcse.report.tables import Column, Table

COLUMNS = (
    Column("System"),
    Column("median s", 3),
    Column("best s", 3),
    Column("ratio, median", 2),
    Column("lowest", 2),
    Column("highest", 2),
    Column("peak MiB", 0),
    Column("agreement", 5),
)


def race_table(title: str, timings: Sequence[Timing], agreement: Sequence[float | None]) -> Table:
    """List systems below each other; ratios are to the first one, round by round.

    Args:
        title: what the work was.
        timings: of all systems; those that did not start are left out.
        agreement: how close each one's result is to the first one's.
    """
    baseline = find_baseline(timings)
    rows = []
    for timing, agrees in zip(timings, agreement, strict=True):
        if timing.missing is None:
            faster = ratios(baseline, timing)
            speed = (statistics.median(faster), min(faster), max(faster))
            seconds = (timing.median, min(timing.seconds))
            rows.append((timing.name, *seconds, *speed, timing.peak_mib, agrees))
    return Table(title, COLUMNS, tuple(rows))


def race_results(timings: Sequence[Timing], agreement: Sequence[float | None]) -> dict[str, Any]:
    """Return every round of every system as plain values."""
    baseline = find_baseline(timings)
    results: dict[str, Any] = {}
    for timing, agrees in zip(timings, agreement, strict=True):
        if timing.missing is not None:
            results[timing.name] = {"missing": timing.missing}
            continue
        results[timing.name] = {
            "seconds": timing.seconds,
            "ratios": ratios(baseline, timing),
            "peak_mib": timing.peak_mib,
            "agreement": agrees,
            **({"scores": timing.scores} if timing.scores else {}),
        }
    return results


def agreements(
    timings: Sequence[Timing], compare: Callable[[Any, Any], float]
) -> list[float | None]:
    """Compare each system's result with the first one's; ``None`` where there is none."""
    first = find_baseline(timings).result
    return [None if t.missing is not None else compare(first, t.result) for t in timings]


def find_baseline(timings: Sequence[Timing]) -> Timing:
    """Return the first system's timing.

    Raises:
        ResourceError: it did not start.
    """
    if timings[0].missing is not None:
        raise ResourceError(f"{timings[0].name} did not start: {timings[0].missing}")
    return timings[0]
