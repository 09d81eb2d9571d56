"""The guard against runs that go wrong: values that are not finite, explosions, collapse."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from simcse.io.records import Example
from simcse.train.events import DevMetrics
from simcse.train.settings import GuardConfig

MIN_SPREAD = 1e-3  # 1 - mean cosine of a collapsed model, and a tenth of the start model's
ROUNDING = 1e-5  # a start model with a smaller spread was measured on one sentence several times
WARMUP_UPDATES = 20  # a norm is compared with the usual one only after as many updates
SHOWN_ROWS = 10  # rows of a batch that a message names


@dataclass
class Guard:
    """Checks every update before it is applied."""

    skipped: int = 0  # updates
    rollbacks: int = 0  # returns to the best weights
    updates: int = 0  # with a norm
    log_norms: float = 0.0  # sum of the logarithms of their norms

    def find_problem(self, loss: float, norm: float, config: GuardConfig) -> str | None:
        """Return what is wrong with an update; a good one is added to the usual norm."""
        if not math.isfinite(loss + norm):
            return f"loss {loss}, gradient norm {norm}"
        usual = math.exp(self.log_norms / max(1, self.updates))
        if self.updates >= WARMUP_UPDATES and 0 < config.max_grad_ratio * usual < norm:
            return f"the gradient norm exploded to {norm:.4g}, usual is {usual:.4g}"
        if norm > 0:
            self.updates += 1
            self.log_norms += math.log(norm)
        return None


def find_collapse(start: DevMetrics, now: DevMetrics) -> str | None:
    """Describe a collapse of the embeddings to one vector; ``None`` if there is none.

    Some start models have narrow embeddings: only one that became ten times narrower collapsed.
    """
    cosine, before = now.get("mean_cosine"), start.get("mean_cosine")
    if cosine is None or before is None or 1 - before < ROUNDING:
        return None
    if 1 - cosine >= min(MIN_SPREAD, (1 - before) / 10):
        return None
    return f"the embeddings collapsed: mean cosine {cosine:.4f}, {before:.4f} at the start"


def describe_rows(rows: Sequence[Example]) -> str:
    """Say where the rows of a batch were read: ``its rows are a.tsv:3, 17 and 4 more``."""
    files: dict[str, list[int]] = {}
    for row in rows:
        files.setdefault(row.file, []).append(row.line)
    named = []
    for file, lines in files.items():
        more = f" and {len(lines) - SHOWN_ROWS} more" if len(lines) > SHOWN_ROWS else ""
        named.append(f"{file}:{', '.join(map(str, lines[:SHOWN_ROWS]))}{more}")
    where = f"its rows are {'; '.join(named)}; " if any(files) else ""
    return f"{where}the batch begins with: {rows[0].anchor[:80]!r}"
