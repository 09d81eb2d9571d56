"""Exact search: inner products with every row, by NumPy, or faster by FAISS where it is there."""

import functools
from collections.abc import Iterator, Sequence
from types import ModuleType

import numpy as np

QUERIES_TOGETHER = 256  # with a chunk of 32,768 rows that is 34 MB of scores
FEW_QUERIES = 8
FEW_ROWS = 8  # rows are gathered before the product where fewer than one in eight is allowed
Found = tuple[np.ndarray, np.ndarray]  # scores (Q, K) and positions (Q, K); -1 where there is none


def top_rows(
    vectors: np.ndarray, queries: np.ndarray, k: int, allowed: np.ndarray | None = None
) -> Found:
    """Find the rows of the highest inner product: (N, D), (Q, D) -> scores and rows (Q, <=k).

    Args:
        vectors: float32, may be memory-mapped.
        queries: float32.
        k: number of rows to find for each query.
        allowed: (N,) bool, the rows to consider; ``None`` for all.
    """
    rows = None if allowed is None or allowed.all() else np.flatnonzero(allowed)
    if rows is not None and len(rows) * FEW_ROWS < len(vectors):
        vectors, allowed = vectors[rows], None
    else:
        rows, allowed = None, allowed if rows is not None else None
    top = _top_by_numpy if optional_faiss() is None else _top_by_faiss
    blocks = [
        top(vectors, queries[start : start + QUERIES_TOGETHER], k, allowed)
        for start in range(0, len(queries), QUERIES_TOGETHER)
    ]
    scores = np.concatenate([block[0] for block in blocks])
    found = np.concatenate([block[1] for block in blocks])
    if rows is not None:
        found = np.where(found < 0, -1, rows[found] if len(rows) else -1)
    return scores, found


@functools.cache
def optional_faiss() -> ModuleType | None:
    """Return the module ``faiss`` if it is installed."""
    try:
        import faiss
    except ImportError:
        return None
    return faiss


def _top_by_faiss(
    vectors: np.ndarray, queries: np.ndarray, k: int, allowed: np.ndarray | None
) -> Found:
    faiss = optional_faiss()
    k = min(k, len(vectors))
    scores = np.empty((len(queries), k), np.float32)
    rows = np.empty((len(queries), k), np.int64)
    pointer, selector = faiss.swig_ptr, None  # type: ignore[union-attr]
    if allowed is not None:
        bits = np.packbits(allowed, bitorder="little")
        selector = faiss.IDSelectorBitmap(len(allowed), pointer(bits))  # type: ignore[union-attr]
    faiss.knn_inner_product(  # type: ignore[union-attr]
        *(pointer(queries), pointer(vectors), vectors.shape[1], len(queries), len(vectors), k),
        *(pointer(scores), pointer(rows), selector),
    )
    return scores, rows


def _top_by_numpy(
    vectors: np.ndarray, queries: np.ndarray, k: int, allowed: np.ndarray | None
) -> Found:
    scores = _inner_products(vectors, queries)  # (Q, N)
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    if k < scores.shape[1]:
        rows = np.argpartition(scores, -k, axis=1)[:, -k:]  # (Q, k)
        scores = np.take_along_axis(scores, rows, 1)
    else:
        rows = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return scores, np.where(np.isneginf(scores), -1, rows)


def _inner_products(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return (Q, N): for few queries the plain loop reads the vectors faster than BLAS does."""
    if len(queries) > FEW_QUERIES:
        return np.ascontiguousarray((vectors @ queries.T).T)
    return np.stack([np.einsum("nd,d->n", vectors, query) for query in queries])


def merge_top(found: Sequence[Found], k: int) -> Found:
    """Return the ``k`` best of several results, best first; ties in the order of the rows."""
    scores = np.concatenate([scores for scores, _ in found], axis=1)
    positions = np.concatenate([positions for _, positions in found], axis=1)
    scores = np.where(positions < 0, -np.inf, np.clip(scores, -1, 1))  # rounding passes 1
    order = np.lexsort((positions, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)


def search_blocks(
    blocks: Sequence[np.ndarray],
    queries: np.ndarray,
    k: int,
    *,
    allowed: np.ndarray | None = None,
    first: int = 0,
) -> Found:
    """Find the ``k`` best rows of several arrays: unit (Q, D) -> scores, positions (Q, <=k).

    Args:
        blocks: float32 arrays (n, D), one after another the N rows of the index.
        queries: float32 of unit length.
        k: number of rows to find for each query.
        allowed: (N,) bool, the rows to consider; ``None`` for all.
        first: position of the first row to consider, at the start of a block.
    """
    found = [(np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64))]
    if len(queries):
        for start, block in starts_of(blocks):
            mask = None if allowed is None else allowed[start : start + len(block)]
            if start < first or (mask is not None and not mask.any()):
                continue
            scores, rows = top_rows(block, queries, k, mask)
            found.append((scores, np.where(rows < 0, -1, rows + start)))
    return merge_top(found, k)


def starts_of(blocks: Sequence[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each array with the position of its first row."""
    start = 0
    for block in blocks:
        yield start, block
        start += len(block)


def gather(blocks: Sequence[np.ndarray], positions: np.ndarray) -> np.ndarray:
    """Return rows by their position over all arrays: (P,) -> (P, D)."""
    starts = np.cumsum([0, *map(len, blocks)])
    which = np.searchsorted(starts, positions, side="right") - 1
    rows = np.empty((len(positions), blocks[0].shape[1]), np.float32)
    for block in np.unique(which):
        mine = which == block
        rows[mine] = blocks[block][positions[mine] - starts[block]]
    return rows
