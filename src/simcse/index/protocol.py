"""What every index does, wherever it keeps its rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from simcse.errors import DataError, UsageError
from simcse.index.approximate import Kind
from simcse.index.filters import Condition
from simcse.io.fingerprint import ModelFingerprint
from simcse.io.rows import Row


@dataclass(frozen=True, slots=True)
class Hit:
    """One row found.

    Attributes:
        id: the row's id.
        score: cosine of query and row.
        text: the sentence.
        metadata: the row's metadata.
    """

    id: str
    score: float
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Commit:
    """What a commit did: rows that are new, that replaced one of the same id, that went."""

    added: int = 0
    updated: int = 0
    removed: int = 0

    def __add__(self, other: "Commit") -> "Commit":
        return Commit(
            self.added + other.added, self.updated + other.updated, self.removed + other.removed
        )


class VectorIndex(Protocol):
    """Rows with vectors, found by cosine; additions and removals count from `commit` on.

    Attributes:
        name: what it is called in messages.
    """

    name: str

    @property
    def fingerprint(self) -> ModelFingerprint:
        """The model whose vectors these are."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """Among others ``kind``, ``approximation``, ``calibration`` and ``progress``."""

    @property
    def version(self) -> int:
        """Counts up with each change that `refresh` took up."""

    def __len__(self) -> int:
        """Rows that a search can find."""

    def require_model(self, other: ModelFingerprint) -> None:
        """Refuse another model than the one that made the vectors."""

    def add(self, rows: Sequence[Row], vectors: np.ndarray) -> None:
        """Stage rows with vectors (N, D); a row replaces the one of the same id."""

    def remove(self, ids: Iterable[str]) -> None:
        """Stage removals; an id that is not there is passed over."""

    def rollback(self) -> None:
        """Forget what is staged."""

    def commit(self, progress: Mapping[str, int] | None = None) -> Commit:
        """Make what is staged durable and visible, all of it or nothing."""

    def search(
        self,
        queries: np.ndarray,
        k: int = 10,
        *,
        threshold: float | None = None,
        where: Sequence[Condition] = (),
    ) -> list[list[Hit]]:
        """Find the ``k`` rows of the highest cosine for each query (Q, D), best first."""

    def refresh(self) -> bool:
        """Take up what others changed; say whether there was anything."""

    def annotate(self, **facts: Any) -> None:  # noqa: ANN401 - plain JSON values
        """Keep facts beside the rows."""

    def sample(self, count: int, *, seed: int = 0) -> tuple[list[Row], np.ndarray]:
        """Draw ``count`` rows, or all if there are fewer, with their vectors (P, D)."""

    def values(self, limit: int) -> dict[str, list[Any]]:
        """Return at least ``limit`` distinct values of each metadata field, or all if fewer."""

    def describe(self) -> dict[str, Any]:
        """Return what the index is, for people and scripts."""

    def compact(self) -> None:
        """Free the space of rows that are gone."""

    def rebuild(self, *, kind: Kind | None = None, recall: float | None = None) -> None:
        """Make all that is derived from the rows anew; may change how the index searches."""

    def verify(self) -> list[str]:
        """Read everything that is stored; return what is wrong with it."""


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
    """Refuse a number of hits or a threshold that make no sense.

    Raises:
        UsageError: ``k`` is no whole number above 0, or the threshold is not in [-1, 1].
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise UsageError(f"k must be a whole number of at least 1, got {k!r}")
    if threshold is not None and not -1 <= threshold <= 1:
        raise UsageError(f"threshold must be a cosine in [-1, 1], got {threshold!r}")
