"""Retrieval: where the relevant documents land when documents are ranked by cosine."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simcse.errors import DataError, UsageError
from simcse.evaluate.vectors import COSINE_DECIMALS, Floats, unit

CHUNK_CELLS = 1 << 22  # cosines held at once; 32 MB in float64


@dataclass(frozen=True, slots=True)
class RetrievalResult:
    """Ranking quality over all queries, each number in [0, 1].

    Attributes:
        queries: queries averaged over.
        documents: documents ranked for each of them.
        k: cut-off of the recall.
        mrr: mean of 1 / rank of the best relevant document, over the full ranking.
        recall: mean share of a query's relevant documents among its first ``k``.
    """

    queries: int
    documents: int
    k: int
    mrr: float
    recall: float


def retrieval(
    queries: ArrayLike,
    documents: ArrayLike,
    relevant: Sequence[int] | Sequence[Collection[int]],
    *,
    k: int = 10,
) -> RetrievalResult:
    """Rank documents (M, D) by cosine for each query (N, D) and find the relevant ones.

    ``relevant`` gives each query its document's row, or the rows of several. A tie goes to the
    other document, so that a collapsed model, for which all documents tie, ranks last.

    Raises:
        UsageError: ``k`` is below 1.
        DataError: the shapes do not fit, or a query has no relevant document or an unknown one.
        NumericError: a row holds NaN or infinity.

    Example:
        >>> retrieval([[1.0, 0.0]], [[0.9, 0.1], [1.0, 0.0]], [1], k=1).mrr
        1.0
    """
    if k < 1:
        raise UsageError(f"k must be at least 1, got {k}")
    asked, ranked = unit(queries), unit(documents)
    if asked.shape[1] != ranked.shape[1]:
        raise DataError(f"queries have shape {asked.shape}, documents {ranked.shape}")
    rows = _relevant_rows(relevant, queries=len(asked), documents=len(ranked))
    reciprocal, recalled = 0.0, 0.0
    chunk = max(1, CHUNK_CELLS // len(ranked))
    for start in range(0, len(asked), chunk):
        cosines = (asked[start : start + chunk] @ ranked.T).round(COSINE_DECIMALS)  # (chunk, M)
        for query, row in zip(cosines, rows[start : start + chunk], strict=True):
            ranks = _ranks(query, row)
            reciprocal += 1 / float(ranks[0])
            recalled += float((ranks <= k).mean())
    count = len(asked)
    return RetrievalResult(count, len(ranked), k, reciprocal / count, recalled / count)


def _ranks(cosines: Floats, relevant: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the 1-based ranks, ascending, of the relevant documents: (M,), (R,) -> (R,)."""
    found = np.sort(cosines[relevant])[::-1]
    at_least = np.array([np.count_nonzero(cosines >= score) for score in found])
    others = at_least - (found >= found[:, None]).sum(axis=1)  # those in front, ties included
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
