"""Evaluation of one encoder on any set of tasks, from one pass of encoding."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse.evaluate import Encode
from simcse.evaluate.classifier import FULL, Protocol
from simcse.evaluate.embeddings import embed_once
from simcse.evaluate.geometry import PAPER_RATING, Geometry, score_geometry
from simcse.evaluate.retrieval import RetrievalResult, RetrievalSet, evaluate_retrieval
from simcse.evaluate.spectrum import Space, space_statistics
from simcse.evaluate.sts import StsResult, embed_task, score_sts
from simcse.evaluate.transfer import TransferResult, count_fits, evaluate_transfer
from simcse.evaluate.vectors import cosine
from simcse.io.benchmarks import StsTask, TransferTask
from simcse.io.embedding_cache import EmbeddingCache

MIN_SECONDS = 1e-3  # a step that took less had nothing to do
ProgressCallback = Callable[[str, int, int], None]  # (step, done, total)
Vectors = NDArray[Any]


@dataclass(frozen=True, eq=False)
class EvaluationSuite:
    """The tasks to evaluate on."""

    # STS tasks by the name of their row in a table
    sts: Mapping[str, StsTask] = field(default_factory=dict)
    transfer: Sequence[TransferTask] = ()  # transfer tasks
    protocol: Protocol = FULL  # how the transfer classifiers are trained
    # the pairs whose embedding space is described; those rated above 4 are positives
    geometry: StsTask | None = None
    retrieval: Sequence[RetrievalSet] = ()  # sets of queries and documents
    k: int = 10  # cut-off of recall and nDCG

    def sentences(self) -> Iterator[str]:
        """Yield every sentence that the tasks need."""
        for task in (*self.sts.values(), *([self.geometry] if self.geometry else [])):
            yield from chain(task.first, task.second)
        for labeled in self.transfer:
            yield from labeled.sentences
        for retrieval_set in self.retrieval:
            yield from chain(retrieval_set.queries, retrieval_set.documents)


@dataclass(frozen=True, slots=True, eq=False)
class ModelEvaluation:
    """The results of one model."""

    model: str  # its name, folder or hub id
    sts: Mapping[str, StsResult] = field(default_factory=dict)  # results by task name
    geometry: Geometry | None = None  # alignment and uniformity, where evaluated
    space: Space | None = None  # spectrum, cosines, hubness, where evaluated
    transfer: Mapping[str, TransferResult] = field(default_factory=dict)  # results by task name
    # results by the name of the set
    retrieval: Mapping[str, RetrievalResult] = field(default_factory=dict)
    # of each STS task's pairs, for paired comparison and density plots
    cosines: Mapping[str, Vectors] = field(default_factory=dict)
    # the model's resolved settings, nested
    settings: Mapping[str, Any] = field(default_factory=dict)
    base: str = ""  # fingerprint of the model without post-processing; empty for a callable
    # time by step; ``encoding`` counts only sentences that were not cached
    seconds: Mapping[str, float] = field(default_factory=dict)


def evaluate_model(
    name: str,
    encode: Encode,
    suite: EvaluationSuite,
    *,
    postprocess_embeddings: Callable[[Vectors], Vectors] = lambda vectors: vectors,
    cache: EmbeddingCache | None = None,
    progress: ProgressCallback = lambda step, done, total: None,
) -> ModelEvaluation:
    """Encode the suite's sentences once and evaluate every task on them.

    Args:
        name: the model's name in tables.
        encode: sentences to vectors (N, D).
        suite: the tasks.
        postprocess_embeddings: applied to vectors after the cache, (N, D) -> (N, K), so that one
            cache serves a model with and without post-processing.
        cache: stores the vectors of ``encode``.
        progress: called with each step, how much of it is done, and its total.

    Raises:
        DataError: ``encode`` did not return one vector for each sentence.
        NumericError: an embedding holds NaN or infinity.
        ResourceError: the cache cannot be written, or the solver is not installed.
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "encoding"):
        cached = embed_once(
            encode, suite.sentences(), cache=cache, progress=partial(progress, "encoding")
        )

    def embed(texts: Sequence[str]) -> Vectors:
        return postprocess_embeddings(np.asarray(cached(texts)))

    with _timed(seconds, "sts"):
        embedded = {task: embed_task(embed, pairs) for task, pairs in suite.sts.items()}
        sts = {task: score_sts(found) for task, found in embedded.items()}
    with _timed(seconds, "geometry"):
        geometry, space = _geometry(embed, suite.geometry)
    with _timed(seconds, "transfer"):
        transfer = {
            task.name: _transfer(embed, task, suite.protocol, progress) for task in suite.transfer
        }
    with _timed(seconds, "retrieval"):
        retrieval = {
            each.name: evaluate_retrieval(embed, each, k=suite.k) for each in suite.retrieval
        }
    cosines = {
        task: cosine(pairs.vectors[pairs.first], pairs.vectors[pairs.second]).astype(np.float32)
        for task, pairs in embedded.items()
    }
    return ModelEvaluation(
        name, sts, geometry, space, transfer, retrieval, cosines, seconds=seconds
    )


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    spent = time.perf_counter() - started
    if spent > MIN_SECONDS:
        seconds[step] = spent


def _transfer(
    encode: Encode, task: TransferTask, protocol: Protocol, progress: ProgressCallback
) -> TransferResult:
    step, done, total = f"transfer {task.name}", 0, count_fits(task, protocol)
    progress(step, 0, total)

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(step, done, total)

    return evaluate_transfer(encode, task, protocol, advance=advance)


def _geometry(encode: Encode, task: StsTask | None) -> tuple[Geometry | None, Space | None]:
    if task is None:
        return None, None
    embedded = embed_task(encode, task)
    positive, vectors = task.scores > PAPER_RATING, embedded.vectors
    first, second = embedded.first[positive], embedded.second[positive]
    return score_geometry(embedded), space_statistics(
        vectors, positives=(vectors[first], vectors[second])
    )
