"""What the routes do, without HTTP: tokenize, admit, embed, search."""

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
from simcse.serve.batching import Batcher, Ids, Overloaded
from simcse.serve.errors import ApiError, to_api_error
from simcse.serve.metrics import Metrics
from simcse.serve.settings import ServeConfig

PROBE = "A man is playing a guitar."
REFRESH_SECONDS = 1.0  # how late another process's commit may be noticed
MAP_POINTS = 2000
BYTES_PER_TOKEN = 8  # of a request's body, at least for European languages: a guess on the low side
INLINE_CHARACTERS = 2000  # of texts that are tokenized in well under a millisecond


@dataclass(frozen=True)
class Embedded:
    """Embeddings of a request's inputs, and what they took.

    Attributes:
        vectors: (N, D) float32.
        tokens: computed, special tokens included.
        truncated: inputs that were cut.
    """

    vectors: np.ndarray
    tokens: int
    truncated: int


class Service:
    """An encoder, and an index if there is one, for many callers at once.

    Args:
        encoder: is used by this service alone from now on.
        index: was built with the same model.
        settings: limits.
        name: what the model is called over HTTP.

    Raises:
        ArtifactError: the index was built with another model.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        index: VectorIndex | None,
        settings: ServeConfig,
        *,
        name: str,
    ) -> None:
        self.encoder, self.index, self.settings, self.name = encoder, index, settings, name
        self.fingerprint = model_fingerprint(encoder, name)
        if index is not None:
            index.metadata.require_model(self.fingerprint)
        self.created = int(time.time())
        self.metrics = Metrics()
        self.draining = False
        self.vocabulary = encoder.backbone.model.get_input_embeddings().num_embeddings
        self.probe = encoder.tokenizer.ids([PROBE])
        self.known = encoder.encode_ids(self.probe)  # also the first, slowest pass
        self.batcher = Batcher(
            encoder.encode_ids,
            dimensions=encoder.dimensions,
            batch_tokens=settings.batch_tokens,
            queue_tokens=settings.queue_tokens,
            max_wait=settings.max_wait,
            metrics=self.metrics,
        )
        # A Hugging Face tokenizer and a commit each have room for one thread at a time.
        self._tokenizer = threading.Lock()
        self._tokenizing = ThreadPoolExecutor(1, "tokenizer")
        self._searching = ThreadPoolExecutor(2, "search")
        self._writing = ThreadPoolExecutor(1, "writer")
        self._looked = 0.0
        self.metrics.set("model_info", 1, model=name, fingerprint=self.fingerprint.sha256)

    def close(self) -> None:
        """Finish what is accepted, then stop all threads."""
        self.batcher.close()
        for pool in (self._tokenizing, self._searching, self._writing):
            pool.shutdown()

    async def problem(self) -> str | None:
        """Say why the server should get no requests, if so.

        Where nothing waits, a sentence is embedded whose vector is known; a queue that is full
        is not a problem of readiness.
        """
        if self.draining:
            return "draining"
        if not self.batcher.thread.is_alive():
            return "the model's thread has ended"
        if self.batcher.is_busy:
            return None
        try:
            found = await self._wait(self.probe, seconds=self.settings.deadline)
        except Exception as error:  # noqa: BLE001 - whatever it is, the server is not ready
            return f"a known sentence cannot be embedded: {type(error).__name__}"
        same = np.allclose(found, self.known, atol=1e-2 * np.abs(self.known).max())
        return None if same else "a known sentence has another embedding than at the start"

    def overload(self, body_bytes: int, inside: int, waited: float) -> ApiError | None:
        """Return the refusal of a request not read yet, if it would wait too long.

        Args:
            body_bytes: length of its body.
            inside: requests that have come and are not answered.
            waited: seconds it has waited already.
        """
        try:
            self.batcher.check_room(max(1, body_bytes // BYTES_PER_TOKEN), inside, waited)
        except Overloaded as error:
            return to_api_error(error)
        return None

    async def embed(
        self, texts: Sequence[str], *, truncate: bool = False, param: str = "input"
    ) -> Embedded:
        """Embed texts.

        Raises:
            ApiError: a text is over the length limit and ``truncate`` is false.
            Overloaded: it would take too long.
            TimeoutError: the deadline passed.
        """
        for at, text in enumerate(texts):
            if not clean_text(text):
                raise ApiError(400, f"{param}[{at}] is blank", param=param)
        short = sum(map(len, texts)) <= INLINE_CHARACTERS
        if short and not self._tokenizer.locked():  # handing it to another thread takes longer
            rows, cut = self._tokenize(list(texts), truncate, param)
        else:
            loop = asyncio.get_running_loop()
            rows, cut = await loop.run_in_executor(
                self._tokenizing, self._tokenize, list(texts), truncate, param
            )
        return await self._embed(rows, cut)

    async def embed_ids(self, rows: Sequence[Ids], *, truncate: bool = False) -> Embedded:
        """Embed token ids as they are.

        Raises:
            ApiError: an id is not in the vocabulary, or a row is too long.
        """
        if max(map(max, rows)) >= self.vocabulary:
            message = f"token ids must be below {self.vocabulary}, got {max(map(max, rows))}"
            raise ApiError(400, message, param="input")
        limit = self.encoder.tokenizer.max_length
        long = [at for at, row in enumerate(rows) if len(row) > limit]
        if long and not truncate:
            raise _too_long(long[0], len(rows[long[0]]), limit, "input")
        return await self._embed([row[:limit] for row in rows], len(long))

    async def search(
        self, query: Embedded, k: int, threshold: float | None, where: dict[str, object] | None
    ) -> list[list[SearchHit]]:
        """Search the index.

        Raises:
            ApiError: there is none.
            UsageError: the filter makes no sense.
        """
        index = self.require_index()
        conditions = parse_filter(where or {})
        loop = asyncio.get_running_loop()

        def find() -> list[list[SearchHit]]:
            self._refresh(index)
            return index.search(query.vectors, k, threshold=threshold, where=conditions)

        return await loop.run_in_executor(self._searching, find)

    async def add(self, rows: Sequence[IndexRow], embedded: Embedded) -> Commit:
        """Add rows durably.

        Raises:
            ApiError: there is no index, or it is not open to additions.
            ResourceError: the disk is full, or another process is writing.
        """
        index = self.require_index()
        if not self.settings.writable:
            raise ApiError(403, "this server's index is read-only; start it with --writable")

        def write() -> Commit:
            try:
                index.add(rows, embedded.vectors)
                return index.commit()
            finally:
                index.refresh(discard=True)

        return await asyncio.get_running_loop().run_in_executor(self._writing, write)

    def require_index(self) -> VectorIndex:
        """Return the index.

        Raises:
            ApiError: there is none.
        """
        if self.index is None:
            raise ApiError(404, "this server has no index; start it with --index", code="no_index")
        return self.index

    def calibration(self, index: VectorIndex) -> Callable[[float], dict[str, float]]:
        """Return what makes a cosine a percentile and a probability, as far as it was fitted."""
        stored = index.metadata.calibration
        return (lambda _score: {}) if stored is None else Calibration.from_json(stored).describe

    def _refresh(self, index: VectorIndex) -> None:
        """Take up what other processes committed."""
        if time.monotonic() - self._looked > REFRESH_SECONDS:
            self._looked = time.monotonic()
            index.refresh()
        self.metrics.set("index_rows", len(index))

    def _tokenize(self, texts: list[str], truncate: bool, param: str) -> tuple[list[Ids], int]:
        tokenizer, started = self.encoder.tokenizer, time.monotonic()
        try:
            with self._tokenizer:
                before = tokenizer.truncated
                rows = tokenizer.ids(texts, truncation="truncate" if truncate else "error")
                cut = tokenizer.truncated - before
        except DataError as error:
            raise ApiError(400, f"{param}: {error}", param=param, code="too_long") from error
        self.metrics.observe("tokenize_seconds", time.monotonic() - started)
        return rows, cut

    async def _embed(self, rows: list[Ids], cut: int) -> Embedded:
        vectors = await self._wait(rows, seconds=self.settings.deadline)
        if not np.isfinite(vectors).all():
            raise ApiError(500, "the model gave an embedding that is not finite", code="numeric")
        self.metrics.count("truncated_total", cut)
        return Embedded(vectors, sum(map(len, rows)), cut)

    async def _wait(self, rows: list[Ids], *, seconds: float) -> np.ndarray:
        """Wait for the vectors; a caller that is cancelled takes its rows out of the queue."""
        future = self.batcher.submit(rows, seconds=seconds)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except asyncio.TimeoutError:
            raise TimeoutError from None


def _too_long(at: int, tokens: int, limit: int, param: str) -> ApiError:
    message = f"{param}[{at}] has {tokens} tokens, the limit is {limit}; or send truncate: true"
    return ApiError(400, message, param=param, code="too_long")
