"""Systems that do the same work in turn (A B C A B C ...), each in a process of its own.

Times on a shared machine drift by a factor of two within minutes, so only the ratio within one
round is comparable. A process per system makes peak memory comparable, too.
"""

import contextlib
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simcse.errors import ResourceError

WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class System:
    """One implementation of the work.

    Attributes:
        name: as tables show it.
        factory: ``module:function``; called with ``arguments`` it returns a function that does
            one unit of work and returns numbers by which systems are compared.
        arguments: plain values.
        warm_up: units of work before the first round; the result of the first one is compared.
    """

    name: str
    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    warm_up: int = 2


@dataclass(frozen=True)
class Timing:
    """The measurements of one system.

    Attributes:
        name: the system's.
        seconds: of each round.
        peak_mib: the highest memory of its process, where the operating system reports it.
        result: what its first unit of work returned.
        scores: after each round, for work that has a score.
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
    """Return the speed of the baseline relative to a system, round by round; above 1 is faster."""
    return [t / b for b, t in zip(baseline.seconds, timing.seconds, strict=True)]


def race(
    systems: Sequence[System],
    *,
    rounds: int,
    target: float = math.inf,
    log: Callable[[str], None] = lambda text: None,
) -> list[Timing]:
    """Run systems in turn.

    Args:
        systems: each warms up in its own process before the first round.
        rounds: units of work of each.
        target: a system that reaches this score does no further rounds.
        log: receives what happens next, and which system did not start and why.

    Raises:
        ResourceError: a system's process ended early.
    """
    workers = []
    try:
        for system in systems:
            log(f"warming up {system.name}")
            workers.append(worker := _Worker(system))
            if "missing" in worker.ready:
                log(f"left out: {system.name}: {worker.ready['missing']}")
        for number in range(1, rounds + 1):
            for worker in workers:
                if not worker.reaches(target):
                    log(f"round {number} of {rounds}: {worker.system.name}")
                    worker.run_round()
        return [worker.timing() for worker in workers]
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """A system's process; `worker` describes the protocol."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER)],
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
        self.ready = self._request(task)
        self.seconds: list[float] = []
        self.scores: list[float | None] = []
        self.peak_mib: float | None = None

    def run_round(self) -> None:
        """Do one unit of work."""
        if "missing" not in self.ready:
            answer = self._request("go")
            self.seconds.append(answer["seconds"])
            self.peak_mib = answer["peak_mib"]
            if "score" in answer:
                self.scores.append(answer["score"])

    def reaches(self, target: float) -> bool:
        """Whether its last score is ``target`` or better."""
        return any(score is not None and score >= target for score in self.scores[-1:])

    def timing(self) -> Timing:
        """Return its measurements."""
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

    def _request(self, message: object) -> dict[str, Any]:
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
