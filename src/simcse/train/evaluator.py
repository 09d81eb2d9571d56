"""Looks at the model while it trains, and knows the best one so far."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from simcse.model.encoder import SentenceEncoder
from simcse.text import Tokenizer
from simcse.train.guard import collapse
from simcse.train.optim import Optimizer
from simcse.train.processes import Processes
from simcse.train.validation import Metrics, Validate, Validation

Event = Mapping[str, Any]


@dataclass(frozen=True)
class TrainReport:
    """What a run came to.

    Attributes:
        steps: batches taken, those the guard left out included.
        seconds: wall-clock time, evaluations included.
        start: metrics before the first step.
        best: metrics of the best checkpoint; the last one's where nothing was validated.
        best_step: the step it was taken after.
        last: metrics after the last step.
        worse: whether the last score is below the first one.
        seen: sentences tokenized for training.
        truncated: how many of them were cut to the length limit.
    """

    steps: int
    seconds: float
    start: Metrics
    best: Metrics
    best_step: int
    last: Metrics
    worse: bool
    seen: int
    truncated: int


class Watch:
    """Looks at the model, and knows the best look so far.

    Attributes:
        looks: each step looked at and what was seen.
        best: index into ``looks``; ``None`` if no look had a score.
        since_best: looks after it.
        collapsed: what the last look says of a collapse.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        optimizer: Optimizer,
        validate: Validate,
        observe: Callable[[Event], None],
        keep: Callable[[SentenceEncoder, bool], None],
        processes: Processes,
    ) -> None:
        self.processes = processes
        self.encoder, self.optimizer = encoder, optimizer
        self.validate, self.observe, self.keep = validate, observe, keep
        self.started = time.perf_counter()
        self.looks: list[tuple[int, Validation]] = []
        self.best: int | None = None
        self.since_best = 0
        self.collapsed: str | None = None
        self._since: list[tuple[float, float]] = []  # loss and gradient norm of each update

    def note(self, step: Event) -> None:
        """Count an update for the averages of the next look."""
        self._since.append((step["loss"], step["gradient_norm"]))

    def look(self, step: int) -> bool:
        """Validate, tell, and keep the model; say whether it is the best so far.

        The start model is the first that can be best, a collapsed one never is.
        """
        self.encoder.eval()
        seen = self.processes.from_first(lambda: self.validate(self.encoder))
        self.looks.append((step, seen))
        self.collapsed = collapse(self.looks[0][1].metrics, seen.metrics)
        better = self.collapsed is None and (seen.latest or _higher(seen.score, self.best_score))
        self.best = len(self.looks) - 1 if better else self.best
        self.since_best = 0 if better or step == 0 else self.since_best + 1
        averages = self._averages()
        measured = {**seen.metrics, **averages} if seen.metrics else {}
        chosen = better and not seen.latest  # what only comes last beats nothing
        self.observe({"event": "eval", "step": step, "best": chosen, **measured})
        self.keep_now(best=better)
        return better

    def keep_now(self, *, best: bool = False) -> None:
        """Hand the model to be saved, with its fp32 weights."""
        with self.optimizer.masters_in_place():
            self.keep(self.encoder, best)

    @property
    def best_score(self) -> float | None:
        """Score of the best look; ``None`` if no look had one."""
        return None if self.best is None else self.looks[self.best][1].score

    def report(self, steps: int, tokenizer: Tokenizer) -> TrainReport:
        """Sum the run up."""
        best_step, best = self.looks[-1 if self.best is None else self.best]
        start, last = self.looks[0][1], self.looks[-1][1]
        return TrainReport(
            steps=steps,
            seconds=time.perf_counter() - self.started,
            start=start.metrics,
            best=best.metrics,
            best_step=best_step,
            last=last.metrics,
            worse=_higher(start.score, last.score) and last.score is not None,
            seen=self.processes.total(tokenizer.seen),
            truncated=self.processes.total(tokenizer.truncated),
        )

    def state(self) -> dict[str, Any]:
        """Return what an exact resume needs, in plain values."""
        return {
            "looks": [[step, seen.score, seen.metrics] for step, seen in self.looks],
            "best": self.best,
            "since_best": self.since_best,
            "since": self._since,
            "seconds": time.perf_counter() - self.started,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        self.looks = [(step, Validation(score, metrics)) for step, score, metrics in state["looks"]]
        self.best, self.since_best = state["best"], state["since_best"]
        self._since = [(loss, norm) for loss, norm in state["since"]]
        self.started = time.perf_counter() - state["seconds"]

    def _averages(self) -> dict[str, float]:
        updates, self._since = self._since, []
        if not updates:
            return {}
        loss, norm = (sum(values) / len(updates) for values in zip(*updates, strict=True))
        return {"loss": loss, "gradient_norm": norm}


def _higher(score: float | None, best: float | None) -> bool:
    """Whether a score beats the best one; an undefined one never does."""
    return score is not None and not math.isnan(score) and (best is None or score > best)
