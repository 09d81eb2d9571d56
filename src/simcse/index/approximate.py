"""Approximate search with FAISS: candidates from a derived structure, scored exactly.

Every index type only proposes candidates; their scores are then computed from the stored float32
vectors, so a score never depends on the type, and int8 and 1-bit codes lose no precision in it.
Each build measures how many of the true neighbors the candidates contain.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from simcse.errors import ArtifactError, ConfigError, NumericError, ResourceError
from simcse.index.exact import gather, search_blocks

IndexType = Literal["exact", "hnsw", "ivf", "int8", "binary"]
INDEX_TYPES: tuple[IndexType, ...] = ("exact", "hnsw", "ivf", "int8", "binary")
RECALL = 0.95  # default floor of a build
RECALL_AT = 10
RECALL_QUERIES = 256
TRAINING_ROWS = 262_144  # sample for IVF centroids and quantizers
SEARCH_EFFORTS = (64, 128, 256, 512, 1024)  # candidates a query; doubled until the floor is met


@dataclass(frozen=True)
class Approximation:
    """A derived structure for approximate search, and its measured recall."""

    index_type: IndexType  # one of `INDEX_TYPES`, not exact
    rows: int  # number of rows it covers, from the first on; later ones are searched exactly
    search_effort: int  # number of candidates a query; nprobe and efSearch follow from it
    # Fraction of the exact 10 nearest neighbors that it finds, over `queries` rows of the index,
    # each searched without itself.
    recall: float
    floor: float  # lowest recall that the build accepted
    queries: int  # number of rows the recall was measured with

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Any) -> "Approximation | None":  # noqa: ANN401 - any JSON value
        """Return the value that `to_json` gave, or ``None`` for ``None``."""
        return None if stored is None else cls(**stored)


class Candidates:
    """An opened structure that proposes rows for queries."""

    def __init__(self, index: Any, search_effort: int) -> None:  # noqa: ANN401 - faiss is untyped
        self.index = index
        self.search_effort = search_effort
        if hasattr(index, "hnsw"):
            index.hnsw.efSearch = search_effort
        elif hasattr(index, "nprobe"):
            index.nprobe = max(1, min(index.nlist, search_effort // 8))

    @classmethod
    def read(cls, path: Path, stored: np.ndarray, sha256: str, search_effort: int) -> "Candidates":
        """Open a stored structure; its bytes are checked before FAISS interprets them.

        Args:
            path: name of the file in messages.
            stored: (N,) uint8, the bytes of the file, memory-mapped.
            sha256: checksum of the file when it was written.
            search_effort: number of candidates a query.

        Raises:
            ArtifactError: the bytes are not those that were written.
            ResourceError: the extra is not installed.
        """
        if hashlib.sha256(stored.data).hexdigest() != sha256:
            raise ArtifactError(
                f"{path} is damaged: its SHA-256 differs from the recorded one. Build it again "
                f"with: simcse index rebuild {path.parent}"
            )
        faiss, position = import_faiss(), 0

        def read(count: int) -> bytes:
            nonlocal position
            position += count
            return stored[position - count : position].tobytes()

        return cls(faiss.read_index(faiss.PyCallbackIOReader(read)), search_effort)

    def __call__(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Propose at least ``k`` rows a query, -1 where there are fewer: (Q, D) -> (Q, C)."""
        wanted = min(max(k, self.search_effort), self.index.ntotal)
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
        message = "approximate search needs an extra: pip install 'simcse-next[index]'"
        raise ResourceError(message) from error
    return faiss


def check_index_type(index_type: str, recall: float) -> None:
    """Check an index type and the recall it must reach.

    Raises:
        ConfigError: with the known types.
    """
    if index_type not in INDEX_TYPES:
        known = ", ".join(INDEX_TYPES)
        raise ConfigError(f"the index type must be one of {known}, got {index_type!r}")
    if not 0 <= recall <= 1:
        raise ConfigError(f"recall must be in [0, 1], got {recall!r}")


def build_structure(
    blocks: Sequence[np.ndarray], index_type: IndexType, *, floor: float, path: Path
) -> Approximation:
    """Build the structure over the vectors of ``blocks``, measure it, write it to ``path``.

    Args:
        blocks: arrays (n, D) float32 of unit length, one after another the rows of the index.
        index_type: not ``exact``.
        floor: recall@10 that must be reached.
        path: file to write.

    Raises:
        NumericError: the floor is not reached at the highest effort.
        ResourceError: the disk is full, or the extra is not installed.
    """
    faiss = import_faiss()
    rows, dimensions = sum(map(len, blocks)), blocks[0].shape[1]
    factory = _factory_string(index_type, rows)
    index = faiss.index_factory(dimensions, factory, faiss.METRIC_INNER_PRODUCT)
    if index_type == "hnsw":
        index.hnsw.efConstruction = 128
    index.train(_spread_sample(blocks, TRAINING_ROWS))
    for block in blocks:
        index.add(np.ascontiguousarray(block))
    approximation = _reach_floor(index, blocks, index_type, floor)
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:  # FAISS reports a full disk this way
        raise ResourceError(f"cannot write {path}: {error}") from error
    return approximation


def _factory_string(index_type: IndexType, rows: int) -> str:
    """Return FAISS's name of the structure; 8-bit codes, because scores are exact anyway."""
    lists = max(1, min(rows // 39, int(4 * rows**0.5)))  # FAISS wants 39 rows a centroid
    names = {"hnsw": "HNSW32_SQ8", "ivf": f"IVF{lists},SQ8", "int8": "SQ8", "binary": "RaBitQ"}
    return names[index_type]


def _spread_sample(blocks: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Return up to ``count`` rows, evenly spread over the blocks."""
    rows = sum(map(len, blocks))
    step = max(1, -(-rows // count))
    return np.concatenate([np.asarray(block[::step]) for block in blocks])


def _reach_floor(
    index: Any,  # noqa: ANN401 - faiss is untyped
    blocks: Sequence[np.ndarray],
    index_type: IndexType,
    floor: float,
) -> Approximation:
    """Raise the effort until recall@10 against exact search reaches the floor."""
    queries = np.ascontiguousarray(_spread_sample(blocks, RECALL_QUERIES))
    rows = sum(map(len, blocks))
    truth = search_blocks(blocks, queries, RECALL_AT + 1)[0][:, 1:]  # without itself
    recall = 0.0
    for search_effort in SEARCH_EFFORTS:
        proposed = Candidates(index, search_effort)(queries, RECALL_AT + 1)
        scores = [
            -np.sort(-(gather(blocks, line[line >= 0]) @ query))[1:]  # without itself
            for query, line in zip(queries, proposed, strict=True)
        ]
        recall = recall_of(truth, scores)
        if recall >= floor:
            return Approximation(
                index_type, rows, search_effort, round(recall, 4), floor, len(queries)
            )
    raise recall_error(index_type, recall, SEARCH_EFFORTS[-1], floor)


def recall_error(
    index_type: IndexType, recall: float, search_effort: int, floor: float
) -> NumericError:
    """Return the error of a structure that finds too few of the true neighbors."""
    return NumericError(
        f"{index_type}: recall@{RECALL_AT} is {recall:.4f} with {search_effort} candidates, below "
        f"the floor {floor}. Choose a lower one with --recall, or another type with --type."
    )


def recall_of(truth: np.ndarray, found: Sequence[np.ndarray]) -> float:
    """Return the fraction of true neighbors found; rows that tie with the last true one count.

    Args:
        truth: (Q, K), the K highest scores of each query, descending.
        found: for each query the scores of the rows found.
    """
    if not truth.shape[1]:
        return 1.0
    pairs = zip(truth, found, strict=True)
    counts = [np.count_nonzero(scores >= best[-1] - 1e-6) for best, scores in pairs]
    return float(np.minimum(counts, truth.shape[1]).mean() / truth.shape[1])
