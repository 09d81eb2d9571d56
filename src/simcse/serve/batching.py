"""Micro-batching: what waits is computed together, as much at once as a token budget allows.

Nothing is held back to fill a batch: whenever the model is free it takes what is there, so a lone
request never waits and under load batches fill by themselves. Requests take turns in a batch, so
one of 2,048 inputs does not hold up one of a single sentence.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

import numpy as np

from simcse.errors import ResourceError
from simcse.serve.metrics import Metrics

Ids = list[int]
TURN_ROWS = 16  # a request gives to a batch before the next one has its turn
MEMORY = 0.8  # share of what was known that a new measurement leaves


class Overloaded(ResourceError):
    """A request would wait too long; `seconds` says when to try again."""

    def __init__(self, seconds: float) -> None:
        super().__init__("the server has more to do than it can in time; try again later")
        self.seconds = seconds


@dataclass(eq=False)
class Job:
    """One request's rows: those up to `taken` were given to a batch, `missing` are not back."""

    rows: Sequence[Ids]
    vectors: np.ndarray
    deadline: float
    future: "Future[np.ndarray]" = field(default_factory=Future)
    taken: int = 0
    missing: int = 0
    waiting_tokens: int = 0
    since: float = field(default_factory=time.monotonic)

    @property
    def is_dead(self) -> bool:
        """Whether nobody wants the result any more."""
        return self.future.done() or time.monotonic() > self.deadline


Part = tuple[Job, int, int]  # a job's rows from the first to before the last


class Batcher:
    """A thread that embeds tokenized sentences for many callers.

    Args:
        embed: rows of token ids -> (N, D); called in this thread only.
        dimensions: D.
        batch_tokens: tokens given to ``embed`` at once, if there are so many.
        queue_tokens: tokens that may wait.
        max_wait: seconds a request may be expected to take.
        metrics: told what happens.
    """

    def __init__(
        self,
        embed: Callable[[list[Ids]], np.ndarray],
        *,
        dimensions: int,
        batch_tokens: int,
        queue_tokens: int,
        max_wait: float,
        metrics: Metrics,
    ) -> None:
        self.embed = embed
        self.dimensions = dimensions
        self.batch_tokens = batch_tokens
        self.queue_tokens = queue_tokens
        self.max_wait = max_wait
        self.metrics = metrics
        self.rate = float("inf")  # tokens a second; unknown until the first batch
        self._jobs: deque[Job] = deque()
        self._running = 0  # tokens in the model now
        self._computing = 0  # requests they are of
        self._closed = False
        self._ready = threading.Condition()
        self.thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self.thread.start()

    def submit(self, rows: Sequence[Ids], *, seconds: float) -> "Future[np.ndarray]":
        """Queue a request's rows as a whole; the future gives vectors (N, D) in their order.

        Cancelling the future, or its deadline in ``seconds``, drops what is not computed yet.

        Raises:
            Overloaded: it would take longer than `max_wait`, or too many tokens wait.
        """
        tokens = sum(map(len, rows))
        job = Job(
            rows,
            np.empty((len(rows), self.dimensions), np.float32),
            time.monotonic() + seconds,
            missing=len(rows),
            waiting_tokens=tokens,
        )
        with self._ready:
            self._admit(tokens)
            self._jobs.append(job)
            self._report()
            self._ready.notify()
        return job.future

    def check_room(self, tokens: int, inside: int, waited: float = 0.0) -> None:
        """Refuse a request at once, before it is read, if it would wait too long.

        Args:
            tokens: it has about.
            inside: requests that have come and are not answered; those of them that are not here
                yet are taken to be like this one.
            waited: seconds it has waited already.

        Raises:
            Overloaded: see `submit`.
        """
        with self._ready:
            coming = max(0, inside - len(self._jobs) - self._computing)
            if coming or self._jobs:  # else it is taken, whatever a guess of its size says
                self._admit(tokens, coming * tokens, waited)

    @property
    def is_busy(self) -> bool:
        """Whether anything waits or is being computed."""
        return bool(self._jobs or self._running)

    def close(self) -> None:
        """Finish what waits, then stop."""
        with self._ready:
            self._closed = True
            self._ready.notify()
        self.thread.join()

    def _admit(self, tokens: int, coming: int = 0, waited: float = 0.0) -> None:
        """Refuse more than can be done in time; a request that finds nobody waiting is taken."""
        waits = [job.waiting_tokens for job in self._jobs]
        waiting = sum(waits) + coming
        # Requests take turns: before this one is through, each other has had at most as much.
        ahead = self._running + sum([min(tokens, wait) for wait in waits]) + coming
        expected = waited + (ahead + tokens) / self.rate
        if waiting + tokens > self.queue_tokens or (waiting and expected > self.max_wait):
            raise Overloaded(min(30.0, max(1.0, waiting / self.rate)))

    def _work(self) -> None:
        while parts := self._take():
            self._compute(parts)
            with self._ready:
                self._running = self._computing = 0
                self._report()

    def _compute(self, parts: list[Part]) -> None:
        """Embed parts of jobs together; where that fails, each alone, so that one fails alone."""
        rows = [job.rows[at] for job, first, last in parts for at in range(first, last)]
        started = time.monotonic()
        try:
            vectors = self.embed(rows)
        except Exception as error:  # noqa: BLE001 - the caller gets it; this thread serves the rest
            if len(parts) == 1:
                _fail(parts[0][0], error)
                return
            for part in parts:
                self._compute([part])
        else:
            self._deliver(parts, vectors)
            self._measure(rows, time.monotonic() - started)

    def _take(self) -> list[Part]:
        """Wait for work; return the next batch as rows of jobs, nothing after the end."""
        with self._ready:
            while True:
                parts = self._fill()
                if parts or self._closed:
                    self._computing = len(parts)
                    return parts
                self._ready.wait()

    def _fill(self) -> list[Part]:
        """Take rows of the waiting jobs in turns until the budget is used."""
        parts: list[Part] = []
        while self._jobs:
            job = self._jobs.popleft()
            if job.is_dead:
                _fail(job, TimeoutError("the deadline passed while the request waited"))
                continue
            first, wanted = job.taken, min(len(job.rows), job.taken + TURN_ROWS)
            while job.taken < wanted and self._has_room(len(job.rows[job.taken])):
                self._running += len(job.rows[job.taken])
                job.waiting_tokens -= len(job.rows[job.taken])
                job.taken += 1
            if job.taken > first:
                parts.append((job, first, job.taken))
            if not first and job.taken:
                self.metrics.observe("queue_seconds", time.monotonic() - job.since)
            if job.taken < wanted:  # the batch is full: it goes on with this job
                self._jobs.appendleft(job)
                break
            if job.taken < len(job.rows):
                self._jobs.append(job)
        return parts

    def _has_room(self, tokens: int) -> bool:
        return not self._running or self._running + tokens <= self.batch_tokens

    def _deliver(self, parts: list[Part], vectors: np.ndarray) -> None:
        start = 0
        for job, first, last in parts:
            job.vectors[first:last] = vectors[start : start + last - first]
            start += last - first
            job.missing -= last - first
            if not job.missing:
                _finish(job)

    def _measure(self, rows: list[Ids], seconds: float) -> None:
        tokens = sum(map(len, rows))
        rate = tokens / max(seconds, 1e-6)
        known = self.rate != float("inf")
        self.rate = MEMORY * self.rate + (1 - MEMORY) * rate if known else rate
        self.metrics.observe("batch_tokens", tokens)
        self.metrics.observe("inference_seconds", seconds)
        self.metrics.count("inputs_total", len(rows))

    def _report(self) -> None:
        waiting = sum(job.waiting_tokens for job in self._jobs)
        self.metrics.set("queue_tokens", waiting + self._running)


def _finish(job: Job) -> None:
    try:
        job.future.set_result(job.vectors)
    except InvalidStateError:  # the caller gave up meanwhile
        return


def _fail(job: Job, error: Exception) -> None:
    try:
        job.future.set_exception(error)
    except InvalidStateError:
        return
