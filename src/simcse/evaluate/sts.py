"""Semantic textual similarity: how well the cosine ranks sentence pairs (Gao et al. 2021, 6.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simcse.errors import DataError
from simcse.evaluate import Encode
from simcse.evaluate.vectors import cosine
from simcse.io.benchmarks import StsTask

STS_TASKS = ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sickr")
Aggregation = Literal["all", "mean", "wmean"]
NOISE = 1e-6  # float32 embeddings leave errors of about 1e-7 in a cosine


@dataclass(frozen=True, slots=True)
class Correlation:
    """Agreement of cosines and gold scores, x100.

    Attributes:
        pairs: sentence pairs behind the two numbers.
        spearman: rank correlation, the paper's measure; ``None`` where it is undefined.
        pearson: linear correlation; ``None`` where it is undefined.
    """

    pairs: int
    spearman: float | None
    pearson: float | None


@dataclass(frozen=True, slots=True)
class StsResult:
    """One task's scores.

    Attributes:
        task: the task's name.
        aggregations: ``all`` is one correlation over the concatenated subsets (the paper and
            MTEB), ``mean`` the mean over subsets, ``wmean`` the same weighted by their pairs;
            appendix B compares them. The means are ``None`` if any subset is.
        subsets: each subset's own correlation, in the task's order.
        zero_vectors: distinct sentences whose embedding is all zeros; their cosines count as 0.
    """

    task: str
    aggregations: Mapping[Aggregation, Correlation]
    subsets: Mapping[str, Correlation]
    zero_vectors: int

    def spearman(self, aggregation: Aggregation = "all") -> float | None:
        """Return the task's Spearman x100, ``None`` where it is undefined."""
        return self.aggregations[aggregation].spearman


@dataclass(frozen=True, slots=True)
class EmbeddedTask:
    """A task whose distinct sentences were encoded once, for every measure to share.

    Attributes:
        task: the pairs and their gold scores.
        vectors: (U, D), one row a distinct sentence.
        first: (N,), the row of each pair's first sentence.
        second: (N,), the row of each pair's second sentence.
    """

    task: StsTask
    vectors: NDArray[Any]
    first: NDArray[np.intp]
    second: NDArray[np.intp]

    @property
    def zero_vectors(self) -> int:
        """Count the sentences whose embedding is all zeros."""
        return int((~self.vectors.any(axis=1)).sum())


def embed_task(encode: Encode, task: StsTask) -> EmbeddedTask:
    """Encode each distinct sentence of ``task``, all in one call.

    Raises:
        DataError: ``encode`` did not return one vector for each sentence.
    """
    rows: dict[str, int] = {}
    first = [rows.setdefault(sentence, len(rows)) for sentence in task.first]
    second = [rows.setdefault(sentence, len(rows)) for sentence in task.second]
    vectors = np.asarray(encode(list(rows)))
    if vectors.ndim != 2 or len(vectors) != len(rows):
        raise DataError(
            f"encode must return shape ({len(rows)}, D) for {len(rows)} sentences of {task.name}, "
            f"got {vectors.shape}"
        )
    return EmbeddedTask(task, vectors, np.array(first, np.intp), np.array(second, np.intp))


def evaluate_sts(encode: Encode, task: StsTask) -> StsResult:
    """Score an encoder on one STS task: cosine, Spearman and Pearson x100.

    Raises:
        DataError: ``encode`` did not return one vector for each sentence.
        NumericError: an embedding holds NaN or infinity.

    Example:
        >>> evaluate_sts(encoder.encode, read_sts(path)).spearman("all")  # doctest: +SKIP
        82.03
    """
    return score_sts(embed_task(encode, task))


def score_sts(embedded: EmbeddedTask) -> StsResult:
    """Score a task that is already embedded, as `evaluate_sts` does.

    Raises:
        NumericError: an embedding holds NaN or infinity.
    """
    task, vectors = embedded.task, embedded.vectors
    cosines = cosine(vectors[embedded.first], vectors[embedded.second])  # (N,)
    names = np.array(task.subsets)
    subsets = {
        name: correlation(cosines[names == name], task.scores[names == name])
        for name in dict.fromkeys(task.subsets)
    }
    aggregations: dict[Aggregation, Correlation] = {
        "all": correlation(cosines, task.scores),
        "mean": _average(list(subsets.values()), weighted=False),
        "wmean": _average(list(subsets.values()), weighted=True),
    }
    return StsResult(task.name, aggregations, subsets, embedded.zero_vectors)


def correlation(cosines: ArrayLike, scores: ArrayLike) -> Correlation:
    """Correlate cosines (N,) with gold scores (N,), x100.

    Undefined, hence ``None``, for fewer than two pairs and where one side is constant. Cosines
    that spread less than the noise of float32 are constant: a collapsed model has no ranking.

    Example:
        >>> correlation([0.1, 0.5, 0.9], [1, 2, 5]).spearman
        100.0
    """
    stats: Any = import_module("scipy.stats")  # takes a second: only when a score is wanted
    left, right = np.asarray(cosines, np.float64), np.asarray(scores, np.float64)
    if len(left) < 2 or not (np.ptp(left) > NOISE and np.ptp(right) > 0):  # also where NaN
        return Correlation(len(left), None, None)
    spearman = float(stats.spearmanr(left, right).statistic)
    return Correlation(
        len(left), 100 * spearman, 100 * float(stats.pearsonr(left, right).statistic)
    )


def sts_average(
    results: Mapping[str, StsResult], *, aggregation: Aggregation = "all"
) -> float | None:
    """Average Spearman x100 over the paper's seven tasks; ``None`` if any is missing.

    ``results`` is keyed by the names in `STS_TASKS`; other keys are not counted.
    """
    scores = [results[task].spearman(aggregation) for task in STS_TASKS if task in results]
    return _mean(scores) if len(scores) == len(STS_TASKS) else None


def _average(subsets: Sequence[Correlation], *, weighted: bool) -> Correlation:
    pairs = [subset.pairs for subset in subsets]
    weights = pairs if weighted else None
    return Correlation(
        sum(pairs),
        _mean([subset.spearman for subset in subsets], weights),
        _mean([subset.pearson for subset in subsets], weights),
    )


def _mean(scores: Sequence[float | None], weights: Sequence[int] | None = None) -> float | None:
    known = [score for score in scores if score is not None]
    return float(np.average(known, weights=weights)) if len(known) == len(scores) else None
