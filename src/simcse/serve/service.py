"""What the routes do, without HTTP: tokenize, embed in batches, search, add."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from simcse.errors import DataError
from simcse.index.calibration import Calibration
from simcse.index.filters import parse_filter
from simcse.index.protocol import Commit, SearchHit, VectorIndex
from simcse.io.files import clean_text
from simcse.io.rows import IndexRow
from simcse.model.encoder import SentenceEncoder
from simcse.model.fingerprint import model_fingerprint
from simcse.serve.batching import Batcher, Ids
from simcse.serve.errors import ApiError
from simcse.serve.metrics import ServerMetrics
from simcse.serve.settings import ServeConfig

PROBE = "A man is playing a guitar."
REFRESH_SECONDS = 1.0  # longest time until another process's commit is noticed
INLINE_CHARACTERS = 2000  # texts up to this length are tokenized in well under a millisecond


@dataclass(frozen=True)
class Embedded:
    """Embeddings of a request's inputs."""

    vectors: np.ndarray  # (N, D) float32
    tokens: int  # computed, special tokens included
    truncated: int  # inputs that were truncated


class Service:
    """An encoder, and an index if there is one, for many callers at once; see `create_app`."""

    def __init__(
        self, encoder: SentenceEncoder, index: VectorIndex | None, settings: ServeConfig, name: str
    ) -> None:
        self.encoder, self.index, self.settings, self.name = encoder, index, settings, name
        self.fingerprint = model_fingerprint(encoder, name)
        self.metrics = ServerMetrics()
        if index is not None:
            index.metadata.require_model(self.fingerprint)
            self.metrics.index_rows.set(len(index))
        self.created = int(time.time())
        self.draining = False
        self.vocabulary = encoder.backbone.model.get_input_embeddings().num_embeddings
        self.probe = encoder.tokenizer.ids([PROBE])
        self.probe_vectors = encoder.encode_ids(self.probe)  # also the first, slowest pass
        self.batcher = Batcher(
            encoder.encode_ids,
            dimensions=encoder.dimensions,
            batch_tokens=settings.batch_tokens,
            queue_tokens=settings.queue_tokens,
            max_wait=settings.max_wait,
            metrics=self.metrics,
        )
        # A Hugging Face tokenizer and a commit can each be used by one thread at a time.
        self._tokenizer = threading.Lock()
        self._tokenizing = ThreadPoolExecutor(1, "tokenizer")
        self._searching = ThreadPoolExecutor(2, "search")
        self._writing = ThreadPoolExecutor(1, "writer")
        self._refreshed_at = 0.0
        self.metrics.model_info.labels(name, self.fingerprint.sha256).set(1)

    def close(self) -> None:
        """Finish the accepted requests, then stop all threads."""
        self.batcher.close()
        for pool in (self._tokenizing, self._searching, self._writing):
            pool.shutdown()

    async def problem(self) -> str | None:
        """Return why the server should get no requests, or None; a full queue is no reason."""
        if self.draining:
            return "the server is shutting down"
        if not self.batcher.thread.is_alive():
            return "the model's thread has ended"
        if self.batcher.is_busy:
            return None
        try:
            vectors = await self._compute(self.probe)
        except Exception as error:  # noqa: BLE001 - whatever it is, the server is not ready
            return f"a known sentence cannot be embedded: {type(error).__name__}"
        known = self.probe_vectors
        same = np.allclose(vectors, known, atol=1e-2 * np.abs(known).max())
        return None if same else "a known sentence has another embedding than at the start"

    async def embed(
        self, texts: Sequence[str], *, truncate: bool = False, param: str = "input"
    ) -> Embedded:
        """Embed texts; a blank text, or a long one unless ``truncate``, is an `ApiError`."""
        for at, text in enumerate(texts):
            if not clean_text(text):
                raise ApiError(400, f"{param}[{at}] is blank", param=param)
        short = sum(map(len, texts)) <= INLINE_CHARACTERS
        if short and not self._tokenizer.locked():  # handing it to another thread takes longer
            rows, truncated = self._tokenize(list(texts), truncate, param)
        else:
            loop = asyncio.get_running_loop()
            rows, truncated = await loop.run_in_executor(
                self._tokenizing, self._tokenize, list(texts), truncate, param
            )
        return await self._embed_rows(rows, truncated)

    async def embed_ids(self, rows: Sequence[Ids], *, truncate: bool = False) -> Embedded:
        """Embed token ids as they are; an unknown id or a long row is an `ApiError`."""
        if (largest := max(map(max, rows))) >= self.vocabulary:
            message = f"token ids must be below {self.vocabulary}, got {largest}"
            raise ApiError(400, message, param="input")
        limit = self.encoder.tokenizer.max_length
        long = [at for at, row in enumerate(rows) if len(row) > limit]
        if long and not truncate:
            message = (
                f"input[{long[0]}] has {len(rows[long[0]])} tokens, the limit is {limit}; "
                "shorten it or send truncate: true"
            )
            raise ApiError(400, message, param="input", code="too_long")
        return await self._embed_rows([row[:limit] for row in rows], len(long))

    async def search(
        self, query: Embedded, k: int, threshold: float | None, where: dict[str, object] | None
    ) -> list[list[SearchHit]]:
        """Search the index; each query's hits, best first."""
        index = self.require_index()
        conditions = parse_filter(where or {})

        def run() -> list[list[SearchHit]]:
            if time.monotonic() - self._refreshed_at > REFRESH_SECONDS:
                self._refreshed_at = time.monotonic()
                index.refresh()
            self.metrics.index_rows.set(len(index))
            return index.search(query.vectors, k, threshold=threshold, where=conditions)

        return await asyncio.get_running_loop().run_in_executor(self._searching, run)

    async def add(self, rows: Sequence[IndexRow], embedded: Embedded) -> Commit:
        """Add rows durably, unless the index is read-only."""
        index = self.require_index()
        if not self.settings.writable:
            raise ApiError(403, "this server's index is read-only; start it with --writable")

        def run() -> Commit:
            try:
                index.add(rows, embedded.vectors)
                return index.commit()
            finally:
                index.refresh(discard=True)

        return await asyncio.get_running_loop().run_in_executor(self._writing, run)

    def require_index(self) -> VectorIndex:
        """Return the index, or answer 404 if there is none."""
        if self.index is None:
            raise ApiError(404, "this server has no index; start it with --index", code="no_index")
        return self.index

    def describe_score(self) -> Callable[[float], dict[str, float]]:
        """Return what makes a cosine a percentile and a probability, as far as it was fitted."""
        stored = self.require_index().metadata.calibration
        return (lambda _score: {}) if stored is None else Calibration.from_json(stored).describe

    def _tokenize(self, texts: list[str], truncate: bool, param: str) -> tuple[list[Ids], int]:
        tokenizer = self.encoder.tokenizer
        try:
            with self.metrics.tokenize_seconds.time(), self._tokenizer:
                before = tokenizer.truncated
                rows = tokenizer.ids(texts, truncation="truncate" if truncate else "error")
                return rows, tokenizer.truncated - before
        except DataError as error:
            raise ApiError(400, f"{param}: {error}", param=param, code="too_long") from error

    async def _embed_rows(self, rows: list[Ids], truncated: int) -> Embedded:
        vectors = await self._compute(rows)
        if not np.isfinite(vectors).all():
            message = "the model computed an embedding that is not finite"
            raise ApiError(500, message, code="numeric")
        self.metrics.truncated.inc(truncated)
        return Embedded(vectors, sum(map(len, rows)), truncated)

    async def _compute(self, rows: list[Ids]) -> np.ndarray:
        """Wait for the vectors; a caller that is cancelled takes its rows out of the queue."""
        seconds = self.settings.deadline
        future = self.batcher.submit(rows, seconds=seconds)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except asyncio.TimeoutError:
            raise TimeoutError from None
