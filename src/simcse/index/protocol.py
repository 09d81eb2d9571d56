"""The protocol of every index, and what the implementations share."""

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from simcse.errors import DataError, UsageError
from simcse.index.approximate import Approximation, IndexType
from simcse.index.filters import Condition
from simcse.io.fingerprint import ModelFingerprint
from simcse.io.rows import IndexRow, metadata_json


@dataclass(frozen=True, slots=True)
class SearchHit:
    """One row found."""

    id: str  # the row's id
    score: float  # cosine of query and row
    text: str  # the sentence
    metadata: Mapping[str, Any] = field(default_factory=dict)  # the row's metadata


@dataclass(frozen=True, slots=True)
class Commit:
    """Numbers of rows that a commit added, replaced by one of the same id, and removed."""

    added: int = 0
    updated: int = 0
    removed: int = 0

    def __add__(self, other: "Commit") -> "Commit":
        return Commit(
            self.added + other.added, self.updated + other.updated, self.removed + other.removed
        )


@dataclass(frozen=True)
class IndexMetadata:
    """The state of an index beside its rows, as of one commit."""

    name: str  # folder or address of the index, for messages
    fingerprint: ModelFingerprint  # the model that made the vectors
    version: int  # number that changes with each commit
    rows: int  # number of rows that a search can find
    index_type: IndexType  # how the index searches
    recall_floor: float  # recall@10 that an approximate type must reach
    approximation: Approximation | None  # the structure for approximate search, if one was built
    calibration: Mapping[str, Any] | None  # see `simcse.index.calibration`, if it was measured
    progress: Mapping[str, int]  # number of rows that an unfinished build has committed, by source
    written: str  # time of the last commit, ISO 8601
    # Returns distinct values of each metadata field: the given number of them, or all if there are
    # fewer.
    read_values: Callable[[int], dict[str, list[Any]]] = field(compare=False, repr=False)
    # Returns sizes on disk for people, with at least bytes.
    read_storage: Callable[[], dict[str, int]] = field(compare=False, repr=False)

    def require_model(self, other: ModelFingerprint) -> None:
        """Check that another model is the one that made the vectors.

        Raises:
            ArtifactError: with the settings that differ.
        """
        fix = f"Search with that model, or build anew: simcse index build NEW --model {other.name}"
        self.fingerprint.require(other, what=f"the index {self.name}", fix=fix)

    def describe(self) -> dict[str, Any]:
        """Return all of this as plain values, for people and scripts."""
        return {
            "rows": self.rows,
            **self.read_storage(),
            "version": self.version,
            "written": self.written,
            "model": self.fingerprint.name,
            "fingerprint": self.fingerprint.sha256,
            "dimensions": self.fingerprint.dimensions,
            "settings": dict(self.fingerprint.settings),
            "index_type": self.index_type,
            "approximation": self.approximation and self.approximation.to_json(),
            "fields": sorted(self.read_values(1)),
            "unfinished": bool(self.progress),
        }


class VectorIndex(Protocol):
    """Rows with vectors, found by cosine; changes are staged in memory until `commit`."""

    @property
    def metadata(self) -> IndexMetadata:
        """The state beside the rows, as of the commit that is searched."""

    def __len__(self) -> int:
        """Number of rows that a search can find."""

    def add(self, rows: Sequence[IndexRow], vectors: np.ndarray) -> None:
        """Stage rows with vectors (N, D); a row replaces the one of the same id."""

    def remove(self, ids: Iterable[str]) -> None:
        """Stage removals; an unknown id is ignored."""

    def commit(self, **metadata: Any) -> Commit:  # noqa: ANN401 - plain JSON values
        """Make staged changes and metadata durable and visible, all of them or nothing.

        Args:
            metadata: ``calibration=...``, or ``progress=...``: a mapping is merged with the stored
                progress of other sources, ``None`` clears it.
        """

    def search(
        self,
        queries: np.ndarray,
        k: int = 10,
        *,
        threshold: float | None = None,
        where: Sequence[Condition] = (),
    ) -> list[list[SearchHit]]:
        """Find the ``k`` rows of the highest cosine for each query (Q, D), best first."""

    def sample(self, count: int, *, seed: int = 0) -> tuple[list[IndexRow], np.ndarray]:
        """Draw ``count`` rows, or return all if there are fewer, with their vectors (P, D)."""

    def refresh(self, *, discard: bool = False) -> bool:
        """Go on with the newest commit; return whether there was a newer one.

        Args:
            discard: forget the staged changes.
        """

    def rebuild(
        self,
        *,
        index_type: IndexType | None = None,
        recall: float | None = None,
        compact: bool = False,
    ) -> None:
        """Make everything derived from the rows anew; may change how the index searches.

        Args:
            index_type: how the index searches from now on; by default as before.
            recall: recall@10 an approximate type must reach; by default as before.
            compact: also free the space of removed and replaced rows.
        """

    def verify(self) -> list[str]:
        """Read everything that is stored; return a message for each damage found."""


class StagedRow(NamedTuple):
    """A row to be written: its metadata as JSON text and its vector (D,) of unit length."""

    row: IndexRow
    metadata: str
    vector: np.ndarray


class Staging:
    """Changes of an index in memory, by id; the last change of an id counts."""

    def __init__(self) -> None:
        self._staged: dict[str, StagedRow | None] = {}  # None: to be removed

    @property
    def metadata(self) -> IndexMetadata:
        """The state beside the rows."""
        raise NotImplementedError

    def add(self, rows: Sequence[IndexRow], vectors: np.ndarray) -> None:
        """Stage rows with vectors (N, D); a row replaces the one of the same id.

        Raises:
            DataError: the shapes do not fit, a vector is zero or not finite, or metadata cannot
                be stored.
        """
        units = unit_rows(vectors, dimensions=self.metadata.fingerprint.dimensions)
        if len(rows) != len(units):
            raise DataError(f"expected a vector for each of {len(rows)} rows, got {len(units)}")
        texts = [metadata_json(row.metadata) for row in rows]
        for staged in map(StagedRow, rows, texts, units):
            self._stage(staged.row.id, staged)

    def remove(self, ids: Iterable[str]) -> None:
        """Stage removals; an unknown id is ignored.

        Raises:
            TypeError: ``ids`` is one string; put it in a list.
        """
        if isinstance(ids, str):
            raise TypeError("remove takes a list of ids; for one id pass [id]")
        for row_id in ids:
            self._stage(row_id, None)

    def _stage(self, row_id: str, staged: StagedRow | None) -> None:
        self._staged.pop(row_id, None)  # so that the order is that of the last change
        self._staged[row_id] = staged


def unit_rows(vectors: np.ndarray, *, dimensions: int) -> np.ndarray:
    """Scale vectors (N, D) to length 1 in float32.

    Raises:
        DataError: the shape is another, or a row is zero or not finite.
    """
    given = np.asarray(vectors)
    if given.ndim != 2 or given.shape[1] != dimensions:
        raise DataError(f"expected vectors of shape (N, {dimensions}), got {given.shape}")
    rows = given.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)  # (N, 1)
    broken = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(broken):
        raise DataError(
            f"row {broken[0]} has a vector that is zero or not finite: it has no cosine"
        )
    return np.ascontiguousarray(rows / lengths, np.float32)


def check_search(k: int, threshold: float | None) -> None:
    """Check a number of hits and a threshold.

    Raises:
        UsageError: ``k`` is no whole number above 0, or the threshold is not in [-1, 1].
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise UsageError(f"k must be a whole number of at least 1, got {k!r}")
    if threshold is not None and not -1 <= threshold <= 1:
        raise UsageError(f"threshold must be a cosine in [-1, 1], got {threshold!r}")


def check_changes(changes: Mapping[str, Any]) -> None:
    """Check the names of metadata that a commit changes.

    Raises:
        TypeError: a name is unknown.
    """
    unknown = set(changes) - {"progress", "calibration"}
    if unknown:
        raise TypeError(f"commit changes progress and calibration, got {sorted(unknown)}")


def merge_metadata(stored: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored metadata with changes: progress is merged by source, ``None`` clears it."""
    merged = {**stored, **changes, "written": now()}
    if "progress" in changes:
        progress = changes["progress"]
        merged["progress"] = {} if progress is None else {**stored["progress"], **progress}
    return merged


def now() -> str:
    """Return the time as ISO 8601 to the second, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
