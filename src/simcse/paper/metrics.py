"""The metrics of a grid: their names, what each one needs, and how tables show them."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from simcse.errors import ConfigError
from simcse.evaluate.sts import STS_TASKS
from simcse.evaluate.transfer import TRANSFER_TASKS
from simcse.report.comparison import TITLES
from simcse.report.tables import Column

DEV = "dev"  # the rated set that chooses the checkpoint: STS-B dev, or that of eval.dev
Family = Literal["dev", "sts", "transfer", "geometry", "cosines", "neighbors"]
DEV_GEOMETRY = ("alignment", "uniformity", "mean_cosine", "effective_rank")

METRICS: dict[str, tuple[Family, str]] = {  # name: what is computed for it, and its title
    DEV: ("dev", "STS-B dev"),
    **{f"dev_{name}": ("dev", f"{name.replace('_', ' ')}, STS-B dev") for name in DEV_GEOMETRY},
    "sts_avg": ("sts", "STS average"),
    **{task: ("sts", TITLES[task]) for task in STS_TASKS},
    "transfer_avg": ("transfer", "transfer average"),
    **{task: ("transfer", TITLES[task]) for task in TRANSFER_TASKS},
    "alignment": ("geometry", "alignment"),
    "uniformity": ("geometry", "uniformity"),
    "mean_cosine": ("geometry", "mean cosine"),
    "effective_rank": ("geometry", "effective rank"),
    "top_1": ("geometry", "share of the first direction"),
    "singular_values": ("geometry", "singular values"),
    "cosines": ("cosines", "cosines by rating"),
    "mrr": ("neighbors", "mean reciprocal rank ×100"),
    "neighbors": ("neighbors", "nearest sentences"),
}
SCORES = tuple(name for name in METRICS if name not in ("singular_values", "cosines", "neighbors"))
DISTANCES = ("alignment", "uniformity", "dev_alignment", "dev_uniformity")  # lower is better


def check_metric(name: str) -> None:
    """Check that a name is that of a score.

    Raises:
        ConfigError: it is not.
    """
    if name not in SCORES:
        close = difflib.get_close_matches(name, SCORES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(SCORES)}"
        raise ConfigError(f"unknown metric {name!r}; {hint}")


def families(names: Iterable[str]) -> set[Family]:
    """Return what must be computed for these metrics."""
    return {METRICS[name][0] for name in names}


def metric_title(name: str) -> str:
    """Return the title of a metric in tables."""
    return METRICS[name][1]


def metric_column(name: str, heading: str) -> Column:
    """Return the table column of a metric: its decimals, and which end is best."""
    return Column(heading, 3, "lowest") if name in DISTANCES else Column(heading, 2, "highest")


def find_score(result: Mapping[str, Any], name: str) -> float | None:
    """Return one score of a run's result; ``None`` where it is undefined or missing."""
    value = result["scores"].get(name)
    return None if value is None else float(value)
