"""What every index does in memory before a commit, wherever it keeps its rows."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from simcse.errors import DataError
from simcse.index.protocol import unit_rows
from simcse.io.fingerprint import ModelFingerprint
from simcse.io.rows import Row

Staged = tuple[Row, np.ndarray]


class StagedIndex(ABC):
    """Stages additions and removals by id; the last word on an id counts, and its place in order.

    Attributes:
        name: what the index is called in messages.
    """

    name: str

    def __init__(self) -> None:
        self._staged: dict[str, Staged | None] = {}  # None: to be removed

    @property
    @abstractmethod
    def fingerprint(self) -> ModelFingerprint:
        """The model whose vectors these are."""

    def require_model(self, other: ModelFingerprint) -> None:
        """Refuse another model than the one that made the vectors.

        Raises:
            ArtifactError: with what differs.
        """
        mend = f"Search with that model, or build anew: simcse index build NEW --model {other.name}"
        self.fingerprint.require(other, what=f"the index {self.name}", fix=mend)

    def add(self, rows: Sequence[Row], vectors: np.ndarray) -> None:
        """Stage rows with vectors (N, D); a row replaces the one of the same id.

        Raises:
            DataError: the shapes do not fit, or a vector is zero or not finite.
        """
        units = unit_rows(vectors, dimensions=self.fingerprint.dimensions)
        if len(rows) != len(units):
            raise DataError(f"expected a vector for each of {len(rows)} rows, got {len(units)}")
        for row, unit in zip(rows, units, strict=True):
            self._stage(row.id, (row, unit))

    def remove(self, ids: Iterable[str]) -> None:
        """Stage removals; an id that is not there is passed over.

        Raises:
            TypeError: ``ids`` is one string; put it in a list.
        """
        if isinstance(ids, str):
            raise TypeError("remove takes a list of ids; for one id pass [id]")
        for row_id in ids:
            self._stage(row_id, None)

    def rollback(self) -> None:
        """Forget what is staged."""
        self._staged.clear()

    def _describe_model(self) -> dict[str, Any]:
        return {
            "model": self.fingerprint.name,
            "fingerprint": self.fingerprint.sha256,
            "dimensions": self.fingerprint.dimensions,
            "settings": dict(self.fingerprint.settings),
        }

    def _stage(self, row_id: str, staged: Staged | None) -> None:
        self._staged.pop(row_id, None)
        self._staged[row_id] = staged
