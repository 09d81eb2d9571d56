"""What stops a run that goes wrong: numbers that are not finite, explosions, collapse."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from simcse.io.records import Example
from simcse.train.settings import GuardConfig
from simcse.train.validation import Metrics

COLLAPSED = 1e-3  # what is missing to a mean cosine of 1, and a tenth of what was at the start
ROUNDING = 1e-5  # less was missing at the start: one sentence several times
SETTLED = 20  # updates before a norm can be unusual
SHOWN = 10  # rows of a batch that a message names


@dataclass
class Guard:
    """Judges every update before it is applied, and counts what it let pass.

    Attributes:
        skipped: updates left out so far.
        rollbacks: times the run went back to its best look.
        updates: norms behind the usual one.
        log_norms: the sum of their logarithms.
    """

    skipped: int = 0
    rollbacks: int = 0
    updates: int = 0
    log_norms: float = 0.0

    def bad_update(self, loss: float, norm: float, config: GuardConfig) -> str | None:
        """Say what is wrong with an update; a good one counts for what is usual."""
        if not math.isfinite(loss + norm):
            return f"loss {loss}, gradient norm {norm}"
        usual = math.exp(self.log_norms / max(1, self.updates))
        if self.updates >= SETTLED and 0 < config.explosion * usual < norm:
            return f"the gradient norm exploded to {norm:.4g}, usual is {usual:.4g}"
        if norm > 0:
            self.updates += 1
            self.log_norms += math.log(norm)
        return None


def collapse(start: Metrics, now: Metrics) -> str | None:
    """Say whether the sentences looked at have become one vector, which they were not before.

    Some start models are narrow by nature: only one that became ten times narrower has collapsed.
    """
    cosine, before = now.get("mean_cosine"), start.get("mean_cosine")
    if cosine is None or before is None or 1 - before < ROUNDING:
        return None
    if 1 - cosine >= min(COLLAPSED, (1 - before) / 10):
        return None
    return f"the embeddings collapsed: mean cosine {cosine:.4f}, {before:.4f} at the start"


def name_rows(rows: Sequence[Example]) -> str:
    """Say where the rows of a batch were read: ``its rows are a.tsv:3, 17 and 4 more``."""
    files: dict[str, list[int]] = {}
    for row in rows:
        files.setdefault(row.file, []).append(row.line)
    parts = []
    for file, lines in files.items():
        more = f" and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
        parts.append(f"{file}:{', '.join(map(str, lines[:SHOWN]))}{more}")
    where = f"its rows are {'; '.join(parts)}; " if any(files) else ""
    return f"{where}the batch begins with: {rows[0].anchor[:80]!r}"
