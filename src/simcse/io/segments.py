"""One segment of an index on disk: vectors and rows, and what is derived from them.

==================== ======= ==============================================================
vectors.safetensors          (N, D) float32, unit length, one tensor ``embeddings``
rows.jsonl                   N lines ``{"id", "text", "metadata"}`` in the vectors' order
offsets.npy          derived (N + 1,) int64, where each line of rows.jsonl begins
keys.npy             derived (N,) ``key`` (hash of the id) and ``row``, in the keys' order
codes.npy            derived (F, N) int32, which of its field's values each row has, or -1
values.json          derived the distinct values of each of the F metadata fields
==================== ======= ==============================================================
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from simcse.errors import ArtifactError, ResourceError
from simcse.io.checkpoints import read_json
from simcse.io.rows import Row
from simcse.io.vectors import read_vectors, vector_writer

VECTORS = "vectors.safetensors"
ROWS = "rows.jsonl"
OFFSETS = "offsets.npy"
KEYS = "keys.npy"
CODES = "codes.npy"
VALUES = "values.json"
TRUTH = (VECTORS, ROWS)
DERIVED = (OFFSETS, KEYS, CODES, VALUES)
KEY = np.dtype([("key", "S16"), ("row", "<u4")])


class Segment:
    """A segment opened for reading; its arrays are memory-mapped when first used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def vectors(self) -> np.ndarray:
        """(N, D) float32."""
        return read_vectors(self.folder / VECTORS).view(np.ndarray)

    @cached_property
    def offsets(self) -> np.ndarray:
        """(N + 1,) int64."""
        return _load(self.folder / OFFSETS)

    @cached_property
    def values(self) -> dict[str, list[Any]]:
        """The distinct values of each metadata field."""
        return read_json(self.folder / VALUES)

    @cached_property
    def codes(self) -> np.ndarray:
        """(F, N) int32."""
        return _load(self.folder / CODES)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lines(self, rows: Iterable[int]) -> Iterator[str]:
        """Yield the stored lines of some rows."""
        try:
            with (self.folder / ROWS).open("rb") as stream:
                for row in rows:
                    stream.seek(int(self.offsets[row]))
                    yield stream.read(int(self.offsets[row + 1] - self.offsets[row])).decode()
        except (OSError, ValueError) as error:
            raise ArtifactError(f"cannot read {self.folder / ROWS}: {error}") from error

    def rows(self, rows: Iterable[int]) -> Iterator[Row]:
        """Yield some rows."""
        return (Row(**json.loads(line)) for line in self.lines(rows))

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the row of each key, or -1: (K,) S16 -> (K,) int64."""
        known = _load(self.folder / KEYS)
        if not len(known):
            return np.full(len(keys), -1)
        in_order = np.ascontiguousarray(known["key"])
        at = np.minimum(np.searchsorted(in_order, keys), len(known) - 1)
        return np.where(in_order[at] == keys, known["row"][at].astype(np.int64), -1)


def key(row_id: str) -> bytes:
    """Return the hash an id is found by; 128 bits, so two ids never share one."""
    return hashlib.blake2b(row_id.encode(), digest_size=16).digest()


def row_line(row: Row) -> str:
    """Return the line a row is stored as."""
    record = {"id": row.id, "text": row.text, "metadata": row.metadata}
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def write_segment(folder: Path, lines: Sequence[str], vectors: np.ndarray) -> None:
    """Write a segment of N >= 1 rows: N lines, vectors (N, D) of unit length.

    The folder must not be one that readers know yet.

    Raises:
        ResourceError: the disk is full or read-only.
    """
    try:
        folder.mkdir(parents=True)
        (folder / ROWS).write_bytes("".join(lines).encode())
    except OSError as error:
        raise ResourceError(f"cannot write {folder}: {error.strerror}") from error
    with vector_writer(folder / VECTORS) as append:
        append(lines, vectors)
    derive(folder)


def derive(folder: Path) -> None:
    """Write what is derived from a segment's rows.

    Raises:
        ArtifactError: the rows are damaged.
        ResourceError: the disk is full or read-only.
    """
    offsets, keys, columns = [0], [], _Columns()
    try:
        with (folder / ROWS).open("rb") as stream:
            for number, line in enumerate(stream):
                record = json.loads(line)
                offsets.append(offsets[-1] + len(line))
                keys.append((key(record["id"]), number))
                columns.add(number, record["metadata"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{folder / ROWS} is damaged: {error!r}") from error
    try:
        np.save(folder / OFFSETS, np.array(offsets, np.int64))
        np.save(folder / KEYS, np.sort(np.array(keys, KEY), order="key"))
        np.save(folder / CODES, columns.codes(len(keys)))
        (folder / VALUES).write_text(json.dumps(columns.values), encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"cannot write {folder}: {error.strerror}") from error


class _Columns:
    """Metadata, field by field, as numbers of distinct values."""

    def __init__(self) -> None:
        self.values: dict[str, list[Any]] = {}
        self.known: dict[str, dict[str, int]] = {}
        self.cells: dict[str, list[tuple[int, int]]] = {}

    def add(self, row: int, metadata: Mapping[str, Any]) -> None:
        for name, value in metadata.items():
            values = self.values.setdefault(name, [])
            code = self.known.setdefault(name, {}).setdefault(json.dumps(value), len(values))
            if code == len(values):
                values.append(value)
            self.cells.setdefault(name, []).append((row, code))

    def codes(self, rows: int) -> np.ndarray:
        table = np.full((len(self.values), rows), -1, np.int32)
        for at, name in enumerate(self.values):
            where, codes = np.array(self.cells[name]).T
            table[at, where] = codes
        return table


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(f"cannot read {path}: {error}") from error
