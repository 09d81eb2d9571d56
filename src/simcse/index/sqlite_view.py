"""One commit of an index in a folder, open for reading; it never changes.

An open read transaction of SQLite and the mapped chunks are the view: what writers do meanwhile,
also removing files, does not reach it.
"""

import json
import sqlite3
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simcse.errors import ArtifactError
from simcse.index.approximate import Approximation, Candidates
from simcse.index.chunks import CHUNK_NAME, STRUCTURE_NAME, StoredFile, map_chunk
from simcse.index.exact import Found, gather, merge_top, search_blocks
from simcse.index.filters import Condition, check_fields
from simcse.index.protocol import IndexMetadata
from simcse.index.sqlite_filters import condition_queries, distinct_values, known_fields
from simcse.index.sqlite_schema import (
    DATABASE,
    check_format,
    checksum,
    connect,
    database_errors,
    read_state,
)
from simcse.io.fingerprint import ModelFingerprint
from simcse.io.rows import IndexRow

MASKS = 16  # filters whose rows a view remembers: 1 MB each for a million rows
Stored = tuple[int, str, str, str, int]  # a line of the table rows
ROW_COLUMNS = "position, id, text, metadata, crc"


@dataclass(frozen=True)
class Chunk:
    """Some rows' vectors: the line of the table ``chunks`` and the file it names."""

    number: int  # names the file
    rows: int  # how many vectors it holds
    file: StoredFile  # size and checksum of the file


class View:
    """Rows are addressed by position: the chunks one after another, removed rows counted.

    Attributes:
        version: number of the commit.
        state: everything stored beside the rows, as JSON values.
        chunks: the files of the vectors.
        blocks: their vectors, (n, D) float32 each.
        live: (N,) bool, False at removed and replaced rows.
    """

    def __init__(self, folder: Path, before: "View | None" = None) -> None:
        self.folder, self.path = folder, folder / DATABASE
        with database_errors(self.path):
            self.connection = connect(self.path)
            weakref.finalize(self, self.connection.close)
            check_format(self.connection, self.path)
            self.connection.execute("BEGIN")
            self.version, self.state = read_state(self.connection)
            lines = self.connection.execute("SELECT * FROM chunks ORDER BY number").fetchall()
        self.lock = threading.Lock()  # of the connection
        self._candidates: Candidates | None = None
        self._read_state()
        self._read_chunks(lines)
        self._map_structure(before)
        self.masks: OrderedDict[str, np.ndarray] = OrderedDict()

    @classmethod
    def open(cls, folder: Path, before: "View | None" = None) -> "View":
        """Open the newest commit.

        Args:
            folder: of the index.
            before: an earlier view, whose open structure is taken over if it is the same.

        Raises:
            ArtifactError: there is no index, or it is damaged.
        """
        folder = Path(folder)
        if not (folder / DATABASE).exists():
            raise ArtifactError(f"no index at {folder}; make one: simcse index build {folder} FILE")
        failed = None
        while True:
            try:
                return cls(folder, before)
            except ArtifactError:
                newest = newest_version(folder)
                if newest == failed:  # else a writer may have removed a file meanwhile
                    raise
                failed = newest

    @property
    def name(self) -> str:
        """How messages call the index."""
        return str(self.folder)

    def __len__(self) -> int:
        return self.count

    def files(self) -> list[StoredFile]:
        """Return all files beside the database."""
        structure = [] if self.structure is None else [self.structure]
        return [*(chunk.file for chunk in self.chunks), *structure]

    def search(
        self, queries: np.ndarray, k: int, where: Sequence[Condition] = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the ``k`` best positions of each query: unit (Q, D) -> scores, positions (Q, <=k).

        A filtered search is exact whatever the index's type: an approximate structure that is
        asked for one row in a thousand returns too few.

        Raises:
            UsageError: no row has a field of the filter.
            ArtifactError: the approximate structure is damaged.
            ResourceError: it needs an extra that is not installed.
        """
        k = min(k, len(self))
        if not k:
            return search_blocks([], queries, 0)
        if where:
            return search_blocks(self.blocks, queries, k, allowed=self.allowed(where))
        candidates = self.candidates()
        if candidates is not None:
            return self._approximate(candidates, queries, k)
        allowed = None if len(self) == len(self.live) else self.live
        return search_blocks(self.blocks, queries, k, allowed=allowed)

    def allowed(self, where: Sequence[Condition]) -> np.ndarray:
        """Return which rows meet all conditions: (N,) bool; the last filters are remembered."""
        key = repr(where)
        with self.lock, database_errors(self.path):
            if key not in self.masks:
                check_fields(where, list(known_fields(self.connection)))
                mask = self.live.copy()
                for condition in where:
                    mask &= self._meets(condition)
                self.masks[key] = mask
                if len(self.masks) > MASKS:
                    self.masks.popitem(last=False)
            self.masks.move_to_end(key)
            return self.masks[key]

    def candidates(self) -> Candidates | None:
        """Return the approximate structure, if the index has one."""
        if self.structure is None or self.approximation is None:
            return None
        with self.lock:
            if self._candidates is None:
                search_effort = self.approximation.search_effort
                self._candidates = Candidates.read(
                    self.structure.path, self._mapped, self.structure.sha256, search_effort
                )
            return self._candidates

    def rows(self, positions: Iterable[int]) -> Iterator[IndexRow]:
        """Yield the rows at some positions; each is checked with its vector.

        Raises:
            ArtifactError: a row or its vector is damaged.
        """
        query = f"SELECT {ROW_COLUMNS} FROM rows WHERE position = ?"
        for position in positions:
            at = int(position)
            with self.lock, database_errors(self.path):
                stored = self.connection.execute(query, [at]).fetchone()
            if stored is None:
                raise ArtifactError(f"{self.path} is damaged: it has no row {at}")
            yield parse_row(stored, self.vector(at), self.path)

    def stored_rows(self, start: int, end: int) -> list[Stored]:
        """Return the lines of the table ``rows`` from one position to before another, unchecked."""
        query = f"SELECT {ROW_COLUMNS} FROM rows WHERE position >= ? AND position < ? ORDER BY 1"
        with self.lock, database_errors(self.path):
            return self.connection.execute(query, [start, end]).fetchall()

    def find(self, row_id: str) -> tuple[int, IndexRow] | None:
        """Return position and row of an id, if there is one.

        Raises:
            ArtifactError: the row or its vector is damaged.
        """
        query = f"SELECT {ROW_COLUMNS} FROM rows WHERE id = ?"
        with self.lock, database_errors(self.path):
            stored = self.connection.execute(query, [row_id]).fetchone()
        if stored is None:
            return None
        return stored[0], parse_row(stored, self.vector(stored[0]), self.path)

    def vector(self, position: int) -> np.ndarray:
        """Return the unit vector at a position: (D,) float32.

        Raises:
            ArtifactError: there is none.
        """
        which = int(np.searchsorted(self.starts, position, side="right")) - 1
        if not 0 <= position < len(self.live):
            raise ArtifactError(f"{self.path} is damaged: there is no vector at {position}")
        vector: np.ndarray = self.blocks[which][position - self.starts[which]]
        return vector

    def vectors(self, positions: np.ndarray) -> np.ndarray:
        """Return the unit vectors at some positions: (P,) -> (P, D) float32."""
        return gather(self.blocks, positions)

    def metadata(self) -> IndexMetadata:
        """Return the state beside the rows."""
        return IndexMetadata(
            name=self.name,
            fingerprint=self.fingerprint,
            version=self.version,
            rows=len(self),
            index_type=self.state["index_type"],
            recall_floor=self.state["recall_floor"],
            approximation=self.approximation,
            calibration=self.state["calibration"],
            progress=self.state["progress"],
            written=self.state["written"],
            read_values=self.values,
            read_storage=self.storage,
        )

    def values(self, limit: int) -> dict[str, list[Any]]:
        """Return ``limit`` distinct values of each metadata field, or all if there are fewer."""
        with self.lock, database_errors(self.path):
            names = list(known_fields(self.connection))
            return {name: distinct_values(self.connection, name, limit) for name in names}

    def storage(self) -> dict[str, int]:
        """Return how much is stored: removed rows, chunks, bytes."""
        database = sum(
            file.stat().st_size for file in self.folder.glob(f"{DATABASE}*") if file.is_file()
        )
        return {
            "deleted": len(self.live) - len(self),
            "chunks": len(self.chunks),
            "bytes": database + sum(file.size for file in self.files()),
        }

    def _read_state(self) -> None:
        try:
            self.fingerprint = ModelFingerprint(**self.state["fingerprint"])
            self.approximation = Approximation.from_json(self.state["approximation"])
            stored = self.state["structure"]
            self.structure = None
            if stored is not None:
                path = self.folder / STRUCTURE_NAME.format(_number(stored["number"]))
                self.structure = StoredFile(path, stored["bytes"], stored["sha256"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{self.path} is damaged: {error!r}") from error

    def _read_chunks(self, lines: Sequence[tuple[Any, ...]]) -> None:
        self.chunks: list[Chunk] = []
        self.blocks: list[np.ndarray] = []
        masks = [np.empty(0, bool)]
        for number, rows, size, sha256, live, crc in lines:
            if checksum(number, rows, size, sha256, live) != crc:
                raise ArtifactError(f"{self.path} is damaged: line {number} of the table chunks")
            file = StoredFile(self.folder / CHUNK_NAME.format(_number(number)), size, sha256)
            self.chunks.append(Chunk(number, rows, file))
            self.blocks.append(map_chunk(file, rows, self.fingerprint.dimensions))
            masks.append(unpack_live(live, rows))
        self.live = np.concatenate(masks)
        self.count = int(self.live.sum())
        self.starts = np.cumsum([0, *(chunk.rows for chunk in self.chunks)])

    def _map_structure(self, before: "View | None") -> None:
        self._mapped: np.ndarray = np.empty(0, np.uint8)
        self.structure_problem: str | None = None  # why the derived structure cannot be used
        if self.structure is None:
            return
        try:
            self.structure.require_size()
        except ArtifactError as error:
            self.structure_problem = str(error)
            return
        self._mapped = np.memmap(self.structure.path, np.uint8, "r").view(np.ndarray)
        if before is not None and before.structure == self.structure:
            self._candidates = before._candidates

    def _meets(self, condition: Condition) -> np.ndarray:
        hits = np.zeros(len(self.live), bool)
        try:
            for query, values in condition_queries(condition):
                found = self.connection.execute(query, values)
                hits[np.fromiter((position for (position,) in found), np.int64)] = True
        except (IndexError, TypeError, ValueError, OverflowError) as error:
            raise ArtifactError(f"{self.path} is damaged: table metadata: {error}") from error
        return ~hits if condition.operator == "not_in" else hits

    def _approximate(self, candidates: Candidates, queries: np.ndarray, k: int) -> Found:
        proposed = candidates(queries, k)  # (Q, C)
        proposed = np.where((proposed >= 0) & self.live[proposed], proposed, -1)
        covered = self.approximation.rows if self.approximation else 0
        if ((proposed >= 0).sum(axis=1) < min(k, self.live[:covered].sum())).any():
            # Too many candidates were removed since the structure was built.
            return search_blocks(self.blocks, queries, k, allowed=self.live)
        scores = np.empty(proposed.shape, np.float32)
        for at, (query, row) in enumerate(zip(queries, proposed, strict=True)):
            scores[at] = self.vectors(np.maximum(row, 0)) @ query
        later = search_blocks(self.blocks, queries, k, allowed=self.live, first=covered)
        return merge_top([(scores, proposed), later], k)


def newest_version(folder: Path) -> int:
    """Return the number of the newest commit.

    Raises:
        ArtifactError: the database is missing or damaged.
    """
    path = folder / DATABASE
    with database_errors(path):
        connection = connect(path)
        try:
            check_format(connection, path)
            return read_state(connection)[0]
        finally:
            connection.close()


def parse_row(stored: Stored, vector: np.ndarray, path: Path) -> IndexRow:
    """Return a stored row after comparing its checksum, which covers the vector (D,).

    Raises:
        ArtifactError: the row or its vector is damaged.
    """
    _, row_id, text, metadata, crc = stored
    if checksum(row_id, text, metadata, vector=vector) != crc:
        raise ArtifactError(f"{path} is damaged: row {row_id!r} or its vector")
    return IndexRow(row_id, text, json.loads(metadata))


def pack_live(live: np.ndarray) -> bytes | None:
    """Return which rows of a chunk are live (n,) as bits; ``None`` where all are."""
    return None if live.all() else np.packbits(live).tobytes()


def unpack_live(stored: bytes | None, rows: int) -> np.ndarray:
    """Return what `pack_live` was given: (n,) bool."""
    if stored is None:
        return np.ones(rows, bool)
    return np.unpackbits(np.frombuffer(stored, np.uint8), count=rows).astype(bool)


def close_quietly(connection: sqlite3.Connection) -> None:
    """Undo what was not committed, and close."""
    if connection.in_transaction:
        connection.rollback()
    connection.close()


def _number(stored: object) -> int:
    """Return the number that names a file; a name is never made of anything else."""
    if isinstance(stored, bool) or not isinstance(stored, int) or stored < 1:
        raise ArtifactError(f"the index names a file by {stored!r}: expected a whole number")
    return stored
