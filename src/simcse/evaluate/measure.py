"""Everything that can be measured of one encoder, from one pass of encoding."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse.evaluate import Encode
from simcse.evaluate.classifier import FULL, Protocol
from simcse.evaluate.embeddings import embed_once
from simcse.evaluate.geometry import PAPER_RATING, Geometry, measure_geometry
from simcse.evaluate.retrieval import RetrievalResult, RetrievalSet, evaluate_retrieval
from simcse.evaluate.spectrum import Space, measure_space
from simcse.evaluate.sts import EmbeddedTask, StsResult, embed_task, score_sts
from simcse.evaluate.transfer import TransferResult, count_fits, evaluate_transfer
from simcse.evaluate.vectors import cosine
from simcse.io.benchmarks import StsTask, TransferTask
from simcse.io.embedding_cache import EmbeddingCache

SHORTEST = 1e-3  # seconds: a part that took less was not asked for
Report = Callable[[str, int, int], None]  # told what is under way, how much is done, of how much
Vectors = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Plan:
    """What to measure.

    Attributes:
        sts: STS tasks by the name of their row in a table.
        transfer: transfer tasks.
        protocol: how their classifiers are trained.
        geometry: the pairs whose space is measured; those rated above 4 are positives.
        retrieval: sets of queries and documents.
        k: cut-off of recall and nDCG.
    """

    sts: Mapping[str, StsTask] = field(default_factory=dict)
    transfer: Sequence[TransferTask] = ()
    protocol: Protocol = FULL
    geometry: StsTask | None = None
    retrieval: Sequence[RetrievalSet] = ()
    k: int = 10

    def sentences(self) -> Iterator[str]:
        """Yield every sentence that will be looked at."""
        rated = [*self.sts.values(), *([self.geometry] if self.geometry else [])]
        for task in rated:
            yield from chain(task.first, task.second)
        for labeled in self.transfer:
            yield from labeled.sentences
        for asked in self.retrieval:
            yield from chain(asked.queries, asked.documents)


@dataclass(frozen=True, slots=True, eq=False)
class ModelEvaluation:
    """What was measured of one model.

    Attributes:
        model: its name, folder or hub id.
        sts: results by task name.
        geometry: alignment and uniformity, where measured.
        space: spectrum, cosines, hubness, where measured.
        transfer: results by task name.
        retrieval: results by the name of the set.
        cosines: of each STS task's pairs, for paired comparison and density plots.
        settings: the model's resolved settings, nested.
        base: fingerprint of the model without post-processing; empty for a callable.
        seconds: time by part; ``encoding`` is that of what was not cached.
    """

    model: str
    sts: Mapping[str, StsResult] = field(default_factory=dict)
    geometry: Geometry | None = None
    space: Space | None = None
    transfer: Mapping[str, TransferResult] = field(default_factory=dict)
    retrieval: Mapping[str, RetrievalResult] = field(default_factory=dict)
    cosines: Mapping[str, Vectors] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    base: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)


def measure_model(
    name: str,
    encode: Encode,
    plan: Plan,
    *,
    refine: Callable[[Vectors], Vectors] = lambda vectors: vectors,
    cache: EmbeddingCache | None = None,
    report: Report = lambda what, done, total: None,
) -> ModelEvaluation:
    """Encode the plan's sentences once and measure everything on them.

    Args:
        name: what the model is called in tables.
        encode: sentences to vectors (N, D).
        plan: what to measure.
        refine: what becomes of vectors that are looked up, (N, D) -> (N, K), so that the cache
            serves a model with and without post-processing.
        cache: keeps the vectors of ``encode``.
        report: is told of the progress.

    Raises:
        DataError: ``encode`` did not return one vector for each sentence.
        NumericError: an embedding holds NaN or infinity.
        ResourceError: the cache cannot be written, or the solver is not installed.
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "encoding"):
        look_up = embed_once(
            encode,
            plan.sentences(),
            cache=cache,
            advance=lambda done, total: report("encoding", done, total),
        )

    def refined(texts: Sequence[str]) -> Vectors:
        return refine(np.asarray(look_up(texts)))

    with _timed(seconds, "sts"):
        embedded = {task: embed_task(refined, pairs) for task, pairs in plan.sts.items()}
        sts = {task: score_sts(found) for task, found in embedded.items()}
    with _timed(seconds, "geometry"):
        geometry, space = _geometry(refined, plan.geometry)
    with _timed(seconds, "transfer"):
        transfer = {
            task.name: evaluate_transfer(
                refined, task, plan.protocol, advance=_Fits(task, plan.protocol, report)
            )
            for task in plan.transfer
        }
    with _timed(seconds, "retrieval"):
        found = {
            asked.name: evaluate_retrieval(refined, asked, k=plan.k) for asked in plan.retrieval
        }
    cosines = {task: _cosines(pairs).astype(np.float32) for task, pairs in embedded.items()}
    return ModelEvaluation(name, sts, geometry, space, transfer, found, cosines, seconds=seconds)


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    spent = time.perf_counter() - started
    if spent > SHORTEST:
        seconds[part] = spent


class _Fits:
    """Counts a task's fits for the progress."""

    def __init__(self, task: TransferTask, protocol: Protocol, report: Report) -> None:
        self.what, self.report = f"transfer {task.name}", report
        self.done, self.total = 0, count_fits(task, protocol)
        report(self.what, 0, self.total)

    def __call__(self, count: int) -> None:
        self.done += count
        self.report(self.what, self.done, self.total)


def _geometry(encode: Encode, task: StsTask | None) -> tuple[Geometry | None, Space | None]:
    if task is None:
        return None, None
    embedded = embed_task(encode, task)
    geometry = measure_geometry(embedded)
    positive = task.scores > PAPER_RATING
    first, second = embedded.first[positive], embedded.second[positive]
    vectors = embedded.vectors
    return geometry, measure_space(vectors, positives=(vectors[first], vectors[second]))


def _cosines(embedded: EmbeddedTask) -> Vectors:
    return cosine(embedded.vectors[embedded.first], embedded.vectors[embedded.second])
