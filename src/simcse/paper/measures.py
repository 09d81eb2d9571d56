"""What a run is measured by: names, what each needs, and where it stands in a run's results."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from simcse.errors import ConfigError
from simcse.evaluate.sts import STS_TASKS
from simcse.evaluate.transfer import TRANSFER_TASKS
from simcse.report.comparison import TITLES
from simcse.report.tables import Column

DEV = "dev"  # the rated set that chooses the checkpoint: STS-B dev, unless eval.dev says otherwise
Family = Literal["dev", "sts", "transfer", "geometry", "cosines", "neighbors"]
WATCHED = ("alignment", "uniformity", "mean_cosine", "effective_rank")  # of STS-B dev, in training

MEASURES: dict[str, tuple[Family, str]] = {  # name: what is computed for it, and its title
    DEV: ("dev", "STS-B dev"),
    **{f"dev_{name}": ("dev", f"{name.replace('_', ' ')}, STS-B dev") for name in WATCHED},
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
SCORES = tuple(name for name in MEASURES if name not in ("singular_values", "cosines", "neighbors"))

# Shown to more places than a score, and better the lower they are.
DISTANCES = ("alignment", "uniformity", "dev_alignment", "dev_uniformity")


def check_measure(name: str) -> None:
    """Refuse what is no score.

    Raises:
        ConfigError: it is none.
    """
    if name not in SCORES:
        close = difflib.get_close_matches(name, SCORES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(SCORES)}"
        raise ConfigError(f"unknown measure {name!r}; {hint}")


def families(names: Iterable[str]) -> set[Family]:
    """Return what must be computed for these measures."""
    return {MEASURES[name][0] for name in names}


def title(name: str) -> str:
    """Return a measure's name as tables show it."""
    return MEASURES[name][1]


def shown_as(name: str, heading: str) -> Column:
    """Return how a table shows a measure: its decimals, and which end is best."""
    return Column(heading, 3, "lowest") if name in DISTANCES else Column(heading, 2, "highest")


def score(result: Mapping[str, Any], name: str) -> float | None:
    """Return one score of a run's results; ``None`` where it is undefined or was not measured."""
    value = result["scores"].get(name)
    return None if value is None else float(value)
