"""Retrieval: the ranks of the relevant documents when documents are ranked by cosine."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from simcse.errors import DataError, UsageError
from simcse.evaluate import Encode
from simcse.evaluate.significance import mean_intervals
from simcse.evaluate.vectors import COSINE_DECIMALS, Floats, unit

METRICS = ("mrr", "recall", "ndcg")
CHUNK_CELLS = 1 << 22  # cosines held at once; 32 MB in float64


@dataclass(frozen=True, slots=True, eq=False)
class RetrievalResult:
    """Ranking quality over all queries, each number in [0, 1]."""

    queries: int  # queries averaged over
    documents: int  # documents ranked for each of them
    k: int  # cut-off of the recall and of nDCG
    mrr: float  # mean of 1 / rank of the best relevant document, over the full ranking
    recall: float  # mean share of a query's relevant documents among its first ``k``
    ndcg: float  # mean discounted gain of the first ``k`` over that of the best possible ranking
    # 95 % bootstrap intervals of the three, by name; queries are resampled
    intervals: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, eq=False)
class RetrievalSet:
    """Queries, documents and their relevance."""

    name: str  # the name of the set in tables
    queries: tuple[str, ...]  # (N,) distinct queries
    documents: tuple[str, ...]  # (M,) distinct documents
    relevant: tuple[tuple[int, ...], ...]  # (N,) each query's documents, as rows of ``documents``
    own: tuple[int, ...] | None = None  # (N,) the row of each query that is itself a document


def pairs_set(name: str, pairs: Iterable[tuple[str, str]]) -> RetrievalSet:
    """Make each pair's first sentence a query for its second, among all seconds.

    A query of several pairs has several relevant documents.
    """
    documents: dict[str, int] = {}
    relevant: dict[str, set[int]] = {}
    for query, document in pairs:
        relevant.setdefault(query, set()).add(documents.setdefault(document, len(documents)))
    wanted = tuple(tuple(sorted(rows)) for rows in relevant.values())
    return RetrievalSet(name, tuple(relevant), tuple(documents), wanted)


def groups_set(name: str, pairs: Iterable[tuple[str, str]]) -> RetrievalSet:
    """Make each sentence a query for the others of its group, among all other sentences.

    Pairs that share a sentence are one group: captions of one image, questions of one meaning.

    Raises:
        DataError: no two different sentences are paired.
    """
    members = sentence_groups(pairs)
    texts = tuple(members)
    own = tuple(row for row, text in enumerate(texts) if len(members[text]) > 1)
    if not own:
        raise DataError(f"{name}: no two different sentences are paired")
    relevant = tuple(tuple(other for other in members[texts[row]] if other != row) for row in own)
    return RetrievalSet(name, tuple(texts[row] for row in own), texts, relevant, own)


def evaluate_retrieval(
    encode: Encode, retrieval_set: RetrievalSet, *, k: int = 10
) -> RetrievalResult:
    """Encode a set's queries and documents and rank them as `retrieval` does."""
    documents, queries = encode(retrieval_set.documents), encode(retrieval_set.queries)
    return retrieval(queries, documents, retrieval_set.relevant, k=k, own=retrieval_set.own)


def retrieval(
    queries: ArrayLike,
    documents: ArrayLike,
    relevant: Sequence[int] | Sequence[Collection[int]],
    *,
    k: int = 10,
    own: Sequence[int] | None = None,
) -> RetrievalResult:
    """Rank documents (M, D) by cosine for each query (N, D) and score the relevant ones.

    ``relevant`` gives each query its document's row, or the rows of several. A tie counts
    for the irrelevant document, so that a collapsed model, for which all tie, ranks last. ``own``
    gives each query that is itself a document its row, which is then left out of its ranking.

    Raises:
        UsageError: ``k`` is below 1.
        DataError: the shapes do not fit, or a query has no relevant document or an unknown one.
        NumericError: a row holds NaN or infinity.

    Example:
        >>> retrieval([[1.0, 0.0]], [[0.9, 0.1], [1.0, 0.0]], [1], k=1).mrr
        1.0
    """
    scores = query_scores(queries, documents, relevant, k=k, own=own)
    mrr, recall, ndcg = scores.mean(axis=0).tolist()
    intervals = dict(zip(METRICS, map(tuple, mean_intervals(scores).tolist()), strict=True))
    counts = len(scores), len(np.asarray(documents))
    return RetrievalResult(*counts, k, mrr, recall, ndcg, intervals)


def query_scores(
    queries: ArrayLike,
    documents: ArrayLike,
    relevant: Sequence[int] | Sequence[Collection[int]],
    *,
    k: int = 10,
    own: Sequence[int] | None = None,
) -> Floats:
    """Return each query's reciprocal rank, recall and nDCG, (N, 3); arguments as `retrieval`."""
    if k < 1:
        raise UsageError(f"k must be at least 1, got {k}")
    left, right = unit(queries), unit(documents)
    if left.shape[1] != right.shape[1]:
        raise DataError(
            f"expected queries and documents of one width, got shapes {left.shape}, {right.shape}"
        )
    rows = _relevant_rows(relevant, queries=len(left), documents=len(right))
    scores = np.empty((len(left), 3))
    chunk = max(1, CHUNK_CELLS // len(right))
    for start in range(0, len(left), chunk):
        cosines = (left[start : start + chunk] @ right.T).round(COSINE_DECIMALS)  # (chunk, M)
        if own is not None:
            cosines[np.arange(len(cosines)), np.asarray(own[start : start + chunk])] = -np.inf
        for number, query in enumerate(cosines, start):
            scores[number] = _scores(_ranks(query, rows[number]), k)
    return scores


def sentence_groups(pairs: Iterable[tuple[str, str]]) -> dict[str, list[int]]:
    """Number the distinct sentences in order and map each to its group, as numbers."""
    rows: dict[str, int] = {}
    links = [
        (rows.setdefault(first, len(rows)), rows.setdefault(second, len(rows)))
        for first, second in pairs
    ]
    return dict(zip(rows, groups(links, count=len(rows)), strict=True))


def groups(pairs: Sequence[tuple[int, int]], *, count: int) -> list[list[int]]:
    """Return the group of each of ``count`` rows: the rows that pairs connect it with.

    Example:
        >>> groups([(0, 1), (1, 2)], count=4)
        [[0, 1, 2], [0, 1, 2], [0, 1, 2], [3]]
    """
    links = np.array(pairs, np.intp).reshape(-1, 2)
    graph = scipy.sparse.coo_array(
        (np.ones(len(links)), (links[:, 0], links[:, 1])), (count, count)
    )
    _, found = scipy.sparse.csgraph.connected_components(graph, directed=False)
    members: dict[int, list[int]] = {}
    for row, group in enumerate(found.tolist()):
        members.setdefault(group, []).append(row)
    return [members[group] for group in found.tolist()]


def _scores(ranks: NDArray[np.intp], k: int) -> tuple[float, float, float]:
    """Return a query's reciprocal rank, recall and nDCG from its ascending ranks."""
    within = ranks[ranks <= k]
    best = np.arange(1, min(len(ranks), k) + 1)
    ndcg = (1 / np.log2(within + 1)).sum() / (1 / np.log2(best + 1)).sum()
    return 1 / float(ranks[0]), len(within) / len(ranks), float(ndcg)


def _ranks(cosines: Floats, relevant: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the 1-based ranks, ascending, of the relevant documents: (M,), (R,) -> (R,)."""
    found = np.sort(cosines[relevant])[::-1]
    at_least = np.array([np.count_nonzero(cosines >= score) for score in found])
    others = at_least - (found >= found[:, None]).sum(axis=1)  # irrelevant ones, ties included
    ranks: NDArray[np.intp] = others + np.arange(1, len(found) + 1)
    return ranks


def _relevant_rows(
    relevant: Sequence[int] | Sequence[Collection[int]], *, queries: int, documents: int
) -> list[NDArray[np.intp]]:
    """Return each query's distinct relevant rows, all of them known documents."""
    if not queries:
        raise DataError("retrieval needs at least one query")
    if len(relevant) != queries:
        raise DataError(f"expected relevant rows for {queries} queries, got {len(relevant)}")
    rows = []
    for query, wanted in enumerate(relevant):
        several = wanted if isinstance(wanted, Collection) else [wanted]
        row = np.unique(np.array(list(several), np.intp))
        if not len(row) or row[0] < 0 or row[-1] >= documents:
            raise DataError(f"query {query}: expected rows of 0..{documents - 1}, got {several}")
        rows.append(row)
    return rows
