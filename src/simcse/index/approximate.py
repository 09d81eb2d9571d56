"""Approximate search with FAISS: candidates from a derived structure, scored exactly.

Every kind only proposes candidates; their scores are then computed from the stored float32
vectors, so a score never depends on the kind, and int8 and 1-bit codes lose no precision in it.
How well the candidates hold the true neighbors is measured at each build.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from simcse.errors import ArtifactError, ConfigError, NumericError, ResourceError
from simcse.io.files import sha256_file

Kind = Literal["exact", "hnsw", "ivf", "int8", "binary"]
KINDS: tuple[Kind, ...] = ("exact", "hnsw", "ivf", "int8", "binary")
FILE = "approximate.faiss"
RECALL = 0.95  # that a build must reach if nothing else is said
RECALL_AT = 10
RECALL_QUERIES = 256
TRAINING_ROWS = 262_144  # IVF centroids and quantizers learn from at most so many
EFFORTS = (64, 128, 256, 512, 1024)  # candidates a query; doubled until the floor is met


@dataclass(frozen=True)
class Approximation:
    """A derived structure for approximate search, and how good it was measured to be.

    Attributes:
        kind: one of `KINDS`, not ``exact``.
        rows: it covers the first so many rows; later ones are searched exactly.
        effort: candidates it looks for; ``nprobe`` and ``efSearch`` follow from it.
        recall: share of the exact 10 nearest neighbors that it finds, over `queries` rows of
            the index, each looked for without itself.
        floor: what ``recall`` had to reach.
        queries: rows the recall was measured with.
    """

    kind: Kind
    rows: int
    effort: int
    recall: float
    floor: float
    queries: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values for the manifest."""
        return asdict(self)


class Candidates:
    """An opened structure that proposes rows for queries."""

    def __init__(self, index: Any, effort: int) -> None:  # noqa: ANN401 - faiss has no type stubs
        self.index = index
        self.set_effort(effort)

    @classmethod
    def read(cls, path: Path, checksum: str, effort: int) -> "Candidates":
        """Open a stored structure; its bytes are checked before FAISS interprets them.

        Raises:
            ArtifactError: the file is not the one that was written.
            ResourceError: the extra is not installed.
        """
        if sha256_file(path) != checksum:
            raise ArtifactError(f"{path} is damaged: its SHA-256 is not the one noted")
        return cls(import_faiss().read_index(str(path)), effort)

    def set_effort(self, effort: int) -> None:
        """Look for so many candidates from now on."""
        self.effort = effort
        if hasattr(self.index, "hnsw"):
            self.index.hnsw.efSearch = effort
        elif hasattr(self.index, "nprobe"):
            self.index.nprobe = max(1, min(self.index.nlist, effort // 8))

    def __call__(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Propose at least ``k`` rows a query, -1 where there are fewer: (Q, D) -> (Q, C)."""
        wanted = min(max(k, self.effort), self.index.ntotal)
        _, found = self.index.search(queries, wanted)
        return np.asarray(found)


def import_faiss() -> ModuleType:
    """Return the module ``faiss``.

    Raises:
        ResourceError: the extra is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        message = "an index needs an extra: pip install 'simcse-next[index]'"
        raise ResourceError(message) from error
    return faiss


def check_kind(kind: str, recall: float) -> None:
    """Refuse a kind of search there is not, or a recall that is no share.

    Raises:
        ConfigError: with what there is.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if not 0 <= recall <= 1:
        raise ConfigError(f"recall must be in [0, 1], got {recall!r}")


def build(blocks: list[np.ndarray], kind: Kind, *, floor: float, path: Path) -> Approximation:
    """Build the structure over the vectors of ``blocks``, measure it, write it to ``path``.

    Args:
        blocks: arrays (n, D) float32 of unit length, one after another the index's rows.
        kind: not ``exact``.
        floor: recall@10 that must be reached.
        path: file to write.

    Raises:
        NumericError: the floor is not reached at the highest effort.
        ResourceError: the disk is full, or the extra is not installed.
    """
    faiss = import_faiss()
    rows, dimensions = sum(map(len, blocks)), blocks[0].shape[1]
    index = faiss.index_factory(dimensions, _recipe(kind, rows), faiss.METRIC_INNER_PRODUCT)
    if kind == "hnsw":
        index.hnsw.efConstruction = 128
    index.train(_sample(blocks, TRAINING_ROWS))
    for block in blocks:
        index.add(np.ascontiguousarray(block))
    approximation = _measure(index, blocks, kind, floor)
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:  # how FAISS says that the disk is full
        raise ResourceError(f"cannot write {path}: {error}") from error
    return approximation


def exact_top(
    vectors: np.ndarray, queries: np.ndarray, k: int, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows of the highest inner product: (N, D), (Q, D) -> scores and rows (Q, k).

    Where fewer than ``k`` rows are allowed, the rest of a line is -1.

    Args:
        vectors: float32, may be memory-mapped.
        queries: float32.
        k: at most N.
        allowed: (N,) bool, the rows to consider; ``None`` for all.
    """
    faiss = import_faiss()
    scores = np.empty((len(queries), k), np.float32)
    rows = np.empty((len(queries), k), np.int64)
    pointer, selector = faiss.swig_ptr, None
    if allowed is not None:
        bits = np.packbits(allowed, bitorder="little")
        selector = faiss.IDSelectorBitmap(len(allowed), pointer(bits))
    faiss.knn_inner_product(
        *(pointer(queries), pointer(vectors), vectors.shape[1], len(queries), len(vectors), k),
        *(pointer(scores), pointer(rows), selector),
    )
    return scores, rows


def _recipe(kind: Kind, rows: int) -> str:
    """Return FAISS's name of the structure; 8-bit codes, because scores are exact anyway."""
    lists = max(1, min(rows // 39, int(4 * rows**0.5)))  # FAISS wants 39 rows a centroid
    recipes = {"hnsw": "HNSW32_SQ8", "ivf": f"IVF{lists},SQ8", "int8": "SQ8", "binary": "RaBitQ"}
    return recipes[kind]


def _sample(blocks: list[np.ndarray], count: int) -> np.ndarray:
    """Return up to ``count`` rows, evenly spread over the blocks."""
    rows = sum(map(len, blocks))
    step = max(1, -(-rows // count))
    return np.concatenate([np.asarray(block[::step]) for block in blocks])


def _measure(
    index: Any,  # noqa: ANN401 - faiss has no type stubs
    blocks: list[np.ndarray],
    kind: Kind,
    floor: float,
) -> Approximation:
    """Raise the effort until recall@10 against exact search reaches the floor."""
    queries = np.ascontiguousarray(_sample(blocks, RECALL_QUERIES))
    rows = sum(map(len, blocks))
    truth = _exact_scores(blocks, queries, min(RECALL_AT + 1, rows))[:, 1:]  # without itself
    recall = 0.0
    for effort in EFFORTS:
        candidates = Candidates(index, effort)
        found = candidates(queries, RECALL_AT + 1)
        recall = _recall(blocks, queries, truth, found)
        if recall >= floor:
            return Approximation(kind, rows, effort, round(recall, 4), floor, len(queries))
    raise too_low(kind, recall, EFFORTS[-1], floor)


def too_low(kind: Kind, recall: float, effort: int, floor: float) -> NumericError:
    """Return the refusal of a structure that finds too little."""
    return NumericError(
        f"{kind}: recall@{RECALL_AT} is {recall:.4f} with {effort} candidates, the floor is "
        f"{floor}; lower it with --recall, or take another kind"
    )


def _exact_scores(blocks: list[np.ndarray], queries: np.ndarray, k: int) -> np.ndarray:
    """Return the ``k`` highest scores of each query, descending: (Q, k)."""
    parts = [exact_top(block, queries, min(k, len(block)))[0] for block in blocks]
    return -np.sort(-np.concatenate(parts, axis=1), axis=1)[:, :k]


def _recall(
    blocks: list[np.ndarray], queries: np.ndarray, truth: np.ndarray, found: np.ndarray
) -> float:
    scores = [
        gather(blocks, rows[rows >= 0]) @ query for query, rows in zip(queries, found, strict=True)
    ]
    return share_found(truth, [-np.sort(-line)[1:] for line in scores])  # without itself


def share_found(truth: np.ndarray, found: Sequence[np.ndarray]) -> float:
    """Return the share of true neighbors found; rows that tie with the last true one count.

    Args:
        truth: (Q, K), the K highest scores of each query, descending.
        found: for each query the scores of what was found.
    """
    if not truth.shape[1]:
        return 1.0
    pairs = zip(truth, found, strict=True)
    shares = [np.count_nonzero(scores >= best[-1] - 1e-6) for best, scores in pairs]
    return float(np.minimum(shares, truth.shape[1]).mean() / truth.shape[1])


def gather(blocks: list[np.ndarray], positions: np.ndarray) -> np.ndarray:
    """Return rows by their position over all blocks: (P,) -> (P, D)."""
    starts = np.cumsum([0, *map(len, blocks)])
    which = np.searchsorted(starts, positions, side="right") - 1
    rows = np.empty((len(positions), blocks[0].shape[1]), np.float32)
    for block in np.unique(which):
        mine = which == block
        rows[mine] = blocks[block][positions[mine] - starts[block]]
    return rows
