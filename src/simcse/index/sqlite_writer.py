"""One transaction of an index in a folder: all of it is committed, or nothing."""

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from simcse.errors import ArtifactError
from simcse.index.approximate import IndexType, build_structure
from simcse.index.chunks import (
    CHUNK_NAME,
    CHUNK_ROWS,
    STRUCTURE_NAME,
    StoredFile,
    map_chunk,
    read_chunk,
    remove_unknown,
    sync_folder,
    write_chunk,
    writing,
)
from simcse.index.protocol import StagedRow
from simcse.index.sqlite_filters import metadata_entries
from simcse.index.sqlite_schema import DATABASE, checksum, connect, database_errors, write_state
from simcse.index.sqlite_view import Chunk, View, close_quietly, pack_live, parse_row
from simcse.io.locks import lock_folder
from simcse.io.rows import IndexRow

BUSY = "another process is writing {folder}; try again when it is done"
LOCK_SECONDS = 10.0  # a commit takes less; a longer write of another process is an error


class Writer:
    """What a transaction writes; begin one with `transaction`.

    Attributes:
        base: the newest commit, which this one follows.
        folder: where files are written.
        state: everything beside the rows, to be changed before the commit.
    """

    def __init__(self, base: View, connection: sqlite3.Connection) -> None:
        self.base, self.connection, self.folder = base, connection, base.folder
        self.state = dict(base.state)
        self.live = base.live.copy()
        self.chunks = list(base.chunks)
        self._dimensions = base.fingerprint.dimensions

    def remove(self, rows: Sequence[tuple[int, IndexRow]]) -> None:
        """Remove rows by position."""
        for position, row in rows:
            self.connection.execute("DELETE FROM rows WHERE position = ?", [position])
            self.connection.executemany(
                "DELETE FROM metadata WHERE field = ? AND type = ? AND value = ? AND position = ?",
                [(*entry, position) for entry in metadata_entries(row.metadata)],
            )
            self.live[position] = False
        while self.chunks and not self.live[self._start(-1) :].any() and self._is_free(-1):
            self.live = self.live[: self._start(-1)]
            self.chunks.pop()

    def append(self, staged: Sequence[StagedRow]) -> None:
        """Add rows behind the others.

        Small chunks at the end are merged with the new vectors, so that many small commits do not
        leave many chunks: a chunk is merged if it is no larger than what is behind it. So each
        vector is written about log N times. Checksums of the merged chunks are compared first.

        Raises:
            ArtifactError: a merged chunk is damaged.
        """
        if not staged:
            return
        self._insert(staged)
        vectors = [np.stack([row.vector for row in staged])]
        count = len(staged)
        while self.chunks and self._is_free(-1):
            last = self.chunks[-1]
            if last.rows > count or last.rows + count > CHUNK_ROWS:
                break
            vectors.insert(0, read_chunk(last.file, last.rows, self._dimensions))
            count += self.chunks.pop().rows
        self._write_chunks(np.concatenate(vectors))

    def compact(self) -> None:
        """Write all rows anew without the removed ones, in full chunks; all of them are checked.

        Raises:
            ArtifactError: a chunk or a row is damaged.
        """
        for table in ("rows", "metadata"):
            self.connection.execute(f"DELETE FROM {table}")  # noqa: S608 - a constant
        self.live, self.chunks = np.empty(0, bool), []
        kept: list[StagedRow] = []
        for _, rows, vectors in checked_chunks(self.base):
            kept += [
                StagedRow(row, json.dumps(row.metadata, ensure_ascii=False), vector)
                for row, vector in zip(rows, vectors, strict=True)
            ]
            while len(kept) >= CHUNK_ROWS:
                self._append_chunk(kept[:CHUNK_ROWS])
                kept = kept[CHUNK_ROWS:]
        if kept:
            self._append_chunk(kept)

    def rebuild_metadata(self) -> None:
        """Derive the table ``metadata`` anew from the rows; all of them are checked.

        Raises:
            ArtifactError: a chunk or a row is damaged.
        """
        self.connection.execute("DELETE FROM metadata")
        for positions, rows, _ in checked_chunks(self.base):
            self._insert_metadata(zip(positions.tolist(), rows, strict=True))

    def build(self, index_type: IndexType, floor: float) -> None:
        """Write the structure of an approximate type, or none for ``exact`` and for no rows."""
        self.state |= {"index_type": index_type, "recall_floor": floor}
        self.state |= {"approximation": None, "structure": None}
        if index_type == "exact" or not self.chunks:
            return
        blocks = [map_chunk(chunk.file, chunk.rows, self._dimensions) for chunk in self.chunks]
        number = self._next_number()
        path = self.folder / STRUCTURE_NAME.format(number)
        built = build_structure(blocks, index_type, floor=floor, path=path)
        self.state["approximation"] = built.to_json()
        file = StoredFile.of(path)
        self.state["structure"] = {"number": number, "bytes": file.size, "sha256": file.sha256}

    def copy_files(self) -> None:
        """Copy all files under new names into the folder, checksums compared."""
        chunks, self.chunks = self.chunks, []
        for chunk in chunks:
            number = self._next_number()
            path = self.folder / CHUNK_NAME.format(number)
            chunk.file.copy_to(path)
            copied = StoredFile(path, chunk.file.size, chunk.file.sha256)
            self.chunks.append(Chunk(number, chunk.rows, copied))
        if (file := self.base.structure) is not None:
            number = self._next_number()
            file.copy_to(self.folder / STRUCTURE_NAME.format(number))
            self.state["structure"] = {**self.state["structure"], "number": number}

    def write_commit(self, version: int) -> None:
        """Write the lines that name the chunks, and the state, as a commit of that number."""
        sync_folder(self.folder)
        lines, start = [], 0
        for chunk in self.chunks:
            live = pack_live(self.live[start : start + chunk.rows])
            line = (chunk.number, chunk.rows, chunk.file.size, chunk.file.sha256, live)
            lines.append((*line, checksum(*line)))
            start += chunk.rows
        self.connection.execute("DELETE FROM chunks")
        self.connection.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?)", lines)
        write_state(self.connection, version, self.state)

    def file_names(self) -> set[str]:
        """Return the names of all files of this commit beside the database."""
        names = {chunk.file.path.name for chunk in self.chunks}
        if (structure := self.state["structure"]) is not None:
            names.add(STRUCTURE_NAME.format(structure["number"]))
        return names

    def _append_chunk(self, staged: Sequence[StagedRow]) -> None:
        self._insert(staged)
        self._write_chunks(np.stack([row.vector for row in staged]))

    def _insert(self, staged: Sequence[StagedRow]) -> None:
        start = len(self.live)
        self.connection.executemany(
            "INSERT INTO rows VALUES (?, ?, ?, ?, ?)",
            [
                (at, row.id, row.text, text, checksum(row.id, row.text, text, vector=vector))
                for at, (row, text, vector) in enumerate(staged, start)
            ],
        )
        self._insert_metadata(enumerate((row for row, *_ in staged), start))
        self.live = np.concatenate([self.live, np.ones(len(staged), bool)])

    def _insert_metadata(self, rows: Iterator[tuple[int, IndexRow]]) -> None:
        self.connection.executemany(
            "INSERT INTO metadata VALUES (?, ?, ?, ?)",
            [(*entry, at) for at, row in rows for entry in metadata_entries(row.metadata)],
        )

    def _write_chunks(self, vectors: np.ndarray) -> None:
        for start in range(0, len(vectors), CHUNK_ROWS):
            part = vectors[start : start + CHUNK_ROWS]
            number = self._next_number()
            file = write_chunk(self.folder / CHUNK_NAME.format(number), part)
            self.chunks.append(Chunk(number, len(part), file))

    def _next_number(self) -> int:
        number = int(self.state["next_number"])
        self.state["next_number"] = number + 1
        return number

    def _start(self, which: int) -> int:
        return sum(chunk.rows for chunk in self.chunks[:which])

    def _is_free(self, which: int) -> bool:
        """Return whether a chunk may change: those that the structure covers stay."""
        covered = self.state["approximation"]
        return covered is None or self._start(which) >= covered["rows"]


@contextlib.contextmanager
def transaction(folder: Path, *, check: Callable[[View], None] | None = None) -> Iterator[Writer]:
    """Hold the writers' lock, and commit what the block writes, all of it or nothing.

    Raises:
        ResourceError: the disk is full, or another process writes for `LOCK_SECONDS`.
        ArtifactError: the index is damaged.
    """
    path = folder / DATABASE
    with lock_folder(folder, wait=LOCK_SECONDS, busy=BUSY):
        base = View.open(folder)
        before = {file.path.name for file in base.files()}
        remove_unknown(folder, before)
        with writing(folder), database_errors(path):
            connection, committing = connect(path, write=True), False
            try:
                connection.execute("BEGIN IMMEDIATE")
                writer = Writer(base, connection)
                yield writer
                writer.write_commit(base.version + 1)
                committing = True
                connection.execute("COMMIT")
            finally:
                close_quietly(connection)
                if not committing:  # from here on the files may belong to the commit
                    remove_unknown(folder, before)
        remove_unknown(folder, writer.file_names())


def free_space(folder: Path) -> None:
    """Give the space of rows that were removed back to the disk.

    Raises:
        ResourceError: the disk is full, or another process is writing.
    """
    with lock_folder(folder, wait=LOCK_SECONDS, busy=BUSY), database_errors(folder / DATABASE):
        connection = connect(folder / DATABASE, write=True)
        try:
            connection.execute("VACUUM")
            # Readers, this process too, keep the log in use: then a later checkpoint empties it.
            connection.execute("PRAGMA busy_timeout=0")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            close_quietly(connection)


def checked_chunks(view: View) -> Iterator[tuple[np.ndarray, list[IndexRow], np.ndarray]]:
    """Yield each chunk's live positions (n,), rows and vectors (n, D), their checksums compared.

    Raises:
        ArtifactError: a chunk or a row is damaged, or one is missing.
    """
    for chunk, start in zip(view.chunks, view.starts.tolist(), strict=False):
        vectors = read_chunk(chunk.file, chunk.rows, view.fingerprint.dimensions)
        positions = np.flatnonzero(view.live[start : start + chunk.rows]) + start
        stored = view.stored_rows(start, start + chunk.rows)
        if [line[0] for line in stored] != positions.tolist():
            raise ArtifactError(f"{view.path} is damaged: rows of {chunk.file.path.name}")
        vectors = vectors[positions - start]
        pairs = zip(stored, vectors, strict=True)
        yield positions, [parse_row(line, vector, view.path) for line, vector in pairs], vectors
