"""Dev evaluations of a run, and the best one so far."""

import math
import time
from collections.abc import Mapping
from typing import Any

from simcse.model.encoder import SentenceEncoder
from simcse.text import Tokenizer
from simcse.train.events import Evaluated, StepDone, TrainResult
from simcse.train.guard import find_collapse
from simcse.train.processes import Processes
from simcse.train.validation import Validate, Validation


class Evaluator:
    """Evaluates the model and remembers which evaluation was the best."""

    def __init__(self, validate: Validate, processes: Processes) -> None:
        self.validate, self.processes = validate, processes
        self.started = time.perf_counter()
        self.evaluations: list[tuple[int, Validation]] = []
        self.best: int | None = None  # index of the best one; None if none had a score
        self.since_best = 0  # evaluations after it
        self.collapse: str | None = None  # what the last evaluation found
        self._recent: list[tuple[float, float]] = []  # loss and gradient norm of each update

    def record(self, update: StepDone) -> None:
        """Count an update for the averages of the next evaluation."""
        self._recent.append((update.loss, update.gradient_norm))

    def evaluate(self, encoder: SentenceEncoder, step: int) -> tuple[Evaluated, bool]:
        """Evaluate the model; return the event, and whether the model is to be saved as the best.

        The start model is the first candidate; a collapsed model is never the best.
        """
        encoder.eval()
        found = self.processes.from_first(lambda: self.validate(encoder))
        self.evaluations.append((step, found))
        self.collapse = find_collapse(self.evaluations[0][1].metrics, found.metrics)
        better = self.collapse is None and (found.latest or _higher(found.score, self.best_score))
        self.best = len(self.evaluations) - 1 if better else self.best
        self.since_best = 0 if better or step == 0 else self.since_best + 1
        averages = self._averages()
        metrics = {**found.metrics, **averages} if found.metrics else {}
        # Without a score nothing was compared, although the last checkpoint is saved as the best.
        return Evaluated(step, better and not found.latest, metrics), better

    @property
    def best_step(self) -> int:
        """Step of the best evaluation, of the last one if none had a score."""
        return self.evaluations[-1 if self.best is None else self.best][0]

    @property
    def best_score(self) -> float | None:
        """Score of the best evaluation; ``None`` if none had one."""
        return None if self.best is None else self.evaluations[self.best][1].score

    def result(self, steps: int, tokenizer: Tokenizer) -> TrainResult:
        """Summarize the run."""
        best = self.evaluations[-1 if self.best is None else self.best][1]
        start, last = self.evaluations[0][1], self.evaluations[-1][1]
        return TrainResult(
            steps=steps,
            seconds=time.perf_counter() - self.started,
            start=start.metrics,
            best=best.metrics,
            best_step=self.best_step,
            last=last.metrics,
            worse=last.score is not None and _higher(start.score, last.score),
            seen=self.processes.total(tokenizer.seen),
            truncated=self.processes.total(tokenizer.truncated),
        )

    def state(self) -> dict[str, Any]:
        """Return what an exact resume needs, in plain values."""
        return {
            "evaluations": [[step, each.score, each.metrics] for step, each in self.evaluations],
            "best": self.best,
            "since_best": self.since_best,
            "recent": self._recent,
            "seconds": time.perf_counter() - self.started,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        rows = state["evaluations"]
        self.evaluations = [(step, Validation(score, metrics)) for step, score, metrics in rows]
        self.best, self.since_best = state["best"], state["since_best"]
        self._recent = [(loss, norm) for loss, norm in state["recent"]]
        self.started = time.perf_counter() - state["seconds"]

    def _averages(self) -> dict[str, float]:
        updates, self._recent = self._recent, []
        if not updates:
            return {}
        loss, norm = (sum(values) / len(updates) for values in zip(*updates, strict=True))
        return {"loss": loss, "gradient_norm": norm}


def _higher(score: float | None, best: float | None) -> bool:
    """Return whether a score is above the best one; an undefined score never is."""
    return score is not None and not math.isnan(score) and (best is None or score > best)
