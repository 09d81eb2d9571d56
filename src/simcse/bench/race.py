"""Contestants that do the same work in turns: A B C A B C ..., each in a process of its own.

Times on a shared machine drift by a factor of two within minutes, so only the ratio within one
round means something; a process each is what makes peak memory comparable.
"""

import contextlib
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from simcse.errors import ResourceError


@dataclass(frozen=True)
class System:
    """One way to do the work.

    Attributes:
        name: as it is shown.
        factory: ``module:function``; called with ``arguments`` it returns a function that does
            one unit of work and returns numbers by which systems are compared.
        arguments: plain values.
        warm_up: units of work before the first round; the first one's result is kept.
    """

    name: str
    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    warm_up: int = 2


@dataclass(frozen=True)
class Timing:
    """What a system came to.

    Attributes:
        name: the system's.
        seconds: of each round.
        peak_mib: the highest memory its process ever held, where the system says it.
        result: what its first unit of work gave.
        scores: after each round, of work that has a score.
        missing: why it did not start; then the rest is empty.
    """

    name: str
    seconds: tuple[float, ...] = ()
    peak_mib: float | None = None
    result: Any = None
    scores: tuple[float | None, ...] = ()
    missing: str | None = None

    @property
    def median(self) -> float:
        """Median seconds of a round."""
        return statistics.median(self.seconds)


def ratios(baseline: Timing, timing: Timing) -> list[float]:
    """How many times faster the baseline was, round by round: above 1 is good for it."""
    return [t / b for b, t in zip(baseline.seconds, timing.seconds, strict=True)]


def race(
    systems: Sequence[System],
    *,
    rounds: int,
    target: float = math.inf,
    observe: Callable[[str], None] = lambda text: None,
) -> list[Timing]:
    """Let systems work in turns.

    Args:
        systems: each warms up in its own process before the first round.
        rounds: turns of each.
        target: who reaches this score takes no more turns.
        observe: is told what happens next, and who did not start and why.

    Raises:
        ResourceError: a system's process ended early.
    """
    workers = []
    try:
        for system in systems:
            observe(f"warming up {system.name}")
            workers.append(worker := _Worker(system))
            if "missing" in worker.ready:
                observe(f"left out: {system.name}: {worker.ready['missing']}")
        for turn in range(rounds):
            for worker in workers:
                if not worker.reaches(target):
                    observe(f"round {turn + 1} of {rounds}: {worker.system.name}")
                    worker.go()
        return [worker.timing() for worker in workers]
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """A system's process; see `simcse.bench.worker` for what is said."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.process = subprocess.Popen(
            [sys.executable, "-m", "simcse.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        task = {
            "factory": system.factory,
            "arguments": dict(system.arguments),
            "warm_up": system.warm_up,
        }
        self.ready = self._ask(task)
        self.seconds: list[float] = []
        self.scores: list[float | None] = []
        self.peak_mib: float | None = None

    def go(self) -> None:
        """Let it do one unit of work."""
        if "missing" not in self.ready:
            answer = self._ask("go")
            self.seconds.append(answer["seconds"])
            self.peak_mib = answer["peak_mib"]
            if "score" in answer:
                self.scores.append(answer["score"])

    def reaches(self, target: float) -> bool:
        """Whether its last score is ``target`` or better."""
        return any(score is not None and score >= target for score in self.scores[-1:])

    def timing(self) -> Timing:
        """Sum its rounds up."""
        return Timing(
            self.system.name,
            tuple(self.seconds),
            self.peak_mib,
            self.ready.get("result"),
            tuple(self.scores),
            self.ready.get("missing"),
        )

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()

    def _ask(self, message: object) -> dict[str, Any]:
        answer = ""
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is not None and stdout is not None:  # both are pipes
            with contextlib.suppress(BrokenPipeError):
                stdin.write(json.dumps(message) + "\n")
                stdin.flush()
                answer = stdout.readline()
        if not answer:
            code = self.process.wait()
            raise ResourceError(f"benchmark of {self.system.name} ended with exit code {code}")
        result: dict[str, Any] = json.loads(answer)
        return result
