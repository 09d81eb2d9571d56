"""Micro-batching: waiting requests are computed together, up to a token budget.

The batcher never waits for a batch to fill: whenever the model is free, it takes what is queued.
A single request therefore never waits, and under load batches fill by themselves. Requests take
turns in a batch, so one of 2,048 inputs does not delay one of a single sentence.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

import numpy as np

from simcse.errors import ResourceError
from simcse.serve.metrics import ServerMetrics

Ids = list[int]
ROWS_PER_TURN = 16  # rows that one request adds to a batch before the next request has its turn
RATE_DECAY = 0.8  # weight of the previous estimate when a batch gives a new throughput


class Overloaded(ResourceError):
    """A request would wait too long; `seconds` says when to try again."""

    def __init__(self, seconds: float) -> None:
        super().__init__("the server has more requests than it can answer in time; try again later")
        self.seconds = seconds


@dataclass(eq=False)
class Job:
    """One request's rows: the first `taken` were given to a batch, `missing` have no vector yet."""

    rows: Sequence[Ids]
    vectors: np.ndarray
    deadline: float
    waiting_tokens: int
    missing: int
    taken: int = 0
    future: "Future[np.ndarray]" = field(default_factory=Future)
    queued_at: float = field(default_factory=time.monotonic)

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for the result any more."""
        return self.future.done() or time.monotonic() > self.deadline

    def fail(self, error: Exception) -> None:
        """Give the caller an error, unless the caller gave up already."""
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)


RowRange = tuple[Job, int, int]  # rows of a job: the first, and the one after the last


class Batcher:
    """A thread that embeds tokenized sentences for many callers; limits as in `ServeConfig`.

    Args:
        embed: rows of token ids -> (N, D); called in this thread only.
        dimensions: D.
    """

    def __init__(
        self,
        embed: Callable[[list[Ids]], np.ndarray],
        *,
        dimensions: int,
        batch_tokens: int,
        queue_tokens: int,
        max_wait: float,
        metrics: ServerMetrics,
    ) -> None:
        self.embed, self.dimensions = embed, dimensions
        self.batch_tokens, self.queue_tokens = batch_tokens, queue_tokens
        self.max_wait, self.metrics = max_wait, metrics
        self.rate = float("inf")  # tokens a second; unknown until the first batch
        self._jobs: deque[Job] = deque()
        self._running_tokens = 0
        self._running_jobs = 0
        self._closed = False
        self._changed = threading.Condition()
        self.thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self.thread.start()

    def submit(self, rows: Sequence[Ids], *, seconds: float) -> "Future[np.ndarray]":
        """Queue a request's rows as a whole; the future gives vectors (N, D) in their order.

        Cancelling the future, or its deadline in ``seconds``, drops the rows not computed yet.

        Raises:
            Overloaded: it would take longer than `max_wait`, or too many tokens wait.
        """
        tokens = sum(map(len, rows))
        vectors = np.empty((len(rows), self.dimensions), np.float32)
        job = Job(rows, vectors, time.monotonic() + seconds, tokens, missing=len(rows))
        with self._changed:
            self._admit(tokens)
            self._jobs.append(job)
            self._report()
            self._changed.notify()
        return job.future

    def check_room(self, tokens: int, in_flight: int, waited: float = 0.0) -> None:
        """Reject a request before it is read if it would wait too long.

        Args:
            tokens: estimated size of the request.
            in_flight: requests not answered yet; those not queued yet count as large as this one.
            waited: seconds the request has waited already.

        Raises:
            Overloaded: see `submit`.
        """
        with self._changed:
            coming = max(0, in_flight - len(self._jobs) - self._running_jobs)
            if coming or self._jobs:  # else the queue is empty: taken whatever the estimate says
                self._admit(tokens, coming * tokens, waited)

    @property
    def is_busy(self) -> bool:
        """Whether any request waits or is being computed."""
        return bool(self._jobs or self._running_tokens)

    def close(self) -> None:
        """Finish the queued requests, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self.thread.join()

    def _admit(self, tokens: int, coming: int = 0, waited: float = 0.0) -> None:
        """Reject what cannot be done in time; a request that finds an empty queue is taken."""
        queued = [job.waiting_tokens for job in self._jobs]
        waiting = sum(queued) + coming
        # Requests take turns: until this one is done, each other one computes at most as much.
        ahead = self._running_tokens + sum([min(tokens, each) for each in queued]) + coming
        expected = waited + (ahead + tokens) / self.rate
        if waiting + tokens > self.queue_tokens or (waiting and expected > self.max_wait):
            raise Overloaded(min(30.0, max(1.0, waiting / self.rate)))

    def _work(self) -> None:
        while batch := self._next_batch():
            self._compute(batch)
            with self._changed:
                self._running_tokens = self._running_jobs = 0
                self._report()

    def _compute(self, batch: list[RowRange]) -> None:
        """Embed the rows of several jobs; if that fails, each job alone: only one fails."""
        rows = [job.rows[at] for job, first, last in batch for at in range(first, last)]
        started = time.monotonic()
        try:
            vectors = self.embed(rows)
        except Exception as error:  # noqa: BLE001 - the caller gets it; this thread serves the rest
            if len(batch) == 1:
                batch[0][0].fail(error)
                return
            for row_range in batch:
                self._compute([row_range])
        else:
            self._deliver(batch, vectors)
            self._record(rows, time.monotonic() - started)

    def _next_batch(self) -> list[RowRange]:
        """Wait for requests; return the next batch, or an empty one after `close`."""
        with self._changed:
            while not (batch := self._fill_batch()) and not self._closed:
                self._changed.wait()
            self._running_jobs = len(batch)
            return batch

    def _fill_batch(self) -> list[RowRange]:
        """Take rows of the waiting jobs in turns until the token budget is used."""
        batch: list[RowRange] = []
        while self._jobs:
            job = self._jobs.popleft()
            if job.is_abandoned:
                job.fail(TimeoutError("the deadline passed while the request waited"))
                continue
            first, wanted = job.taken, min(len(job.rows), job.taken + ROWS_PER_TURN)
            while job.taken < wanted and self._has_room(len(job.rows[job.taken])):
                self._running_tokens += len(job.rows[job.taken])
                job.waiting_tokens -= len(job.rows[job.taken])
                job.taken += 1
            if job.taken > first:
                batch.append((job, first, job.taken))
                if not first:
                    self.metrics.queue_seconds.observe(time.monotonic() - job.queued_at)
            if job.taken < wanted:  # the batch is full; the next one continues with this job
                self._jobs.appendleft(job)
                break
            if job.taken < len(job.rows):
                self._jobs.append(job)
        return batch

    def _has_room(self, tokens: int) -> bool:
        return not self._running_tokens or self._running_tokens + tokens <= self.batch_tokens

    def _deliver(self, batch: list[RowRange], vectors: np.ndarray) -> None:
        start = 0
        for job, first, last in batch:
            job.vectors[first:last] = vectors[start : start + last - first]
            start += last - first
            job.missing -= last - first
            if not job.missing:
                with contextlib.suppress(InvalidStateError):  # the caller gave up meanwhile
                    job.future.set_result(job.vectors)

    def _record(self, rows: list[Ids], seconds: float) -> None:
        tokens = sum(map(len, rows))
        rate = tokens / max(seconds, 1e-6)
        is_first = self.rate == float("inf")
        self.rate = rate if is_first else RATE_DECAY * self.rate + (1 - RATE_DECAY) * rate
        self.metrics.batch_tokens.observe(tokens)
        self.metrics.inference_seconds.observe(seconds)
        self.metrics.inputs.inc(len(rows))

    def _report(self) -> None:
        waiting = sum(job.waiting_tokens for job in self._jobs)
        self.metrics.queue_tokens.set(waiting + self._running_tokens)
