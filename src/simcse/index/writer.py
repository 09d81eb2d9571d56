"""Rows into segments of a new generation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simcse.index.snapshot import SEGMENTS
from simcse.io.segments import write_segment

SEGMENT_ROWS = 32_768  # 50 MB of vectors of 384 dimensions


class SegmentWriter:
    """Cuts rows into segments of ``size`` rows, below the folder of a new generation.

    Attributes:
        number: of the next segment.
        names: of the segments written.
    """

    def __init__(self, new: Path, number: int, *, size: int) -> None:
        self.new = new
        self.number = number
        self.size = size
        self.names: list[str] = []
        self.lines: list[str] = []
        self.vectors: list[np.ndarray] = []

    def append(self, lines: list[str], vectors: np.ndarray) -> None:
        """Take n lines as they are stored and their vectors (n, D)."""
        self.lines += lines
        self.vectors.append(vectors)
        while len(self.lines) >= self.size:
            self._write(self.size)

    def close(self) -> None:
        """Write what is left."""
        if self.lines:
            self._write(len(self.lines))

    def facts(self, base: Mapping[str, Any], kept: Sequence[str] = ()) -> dict[str, Any]:
        """Return the facts of ``base`` with the segments that were kept and written."""
        return {**base, "segments": [*kept, *self.names], "next_segment": self.number}

    def _write(self, count: int) -> None:
        vectors = np.concatenate(self.vectors)
        name = f"{self.number:06d}"
        write_segment(self.new / SEGMENTS / name, self.lines[:count], vectors[:count])
        self.lines, self.vectors = self.lines[count:], [vectors[count:]]
        self.names.append(name)
        self.number += 1
