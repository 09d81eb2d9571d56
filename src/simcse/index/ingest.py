"""Files into an index: encoded, committed at intervals, and resumed after a crash."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from simcse.index.chunks import CHUNK_ROWS
from simcse.index.protocol import Commit, VectorIndex
from simcse.io.files import BadLines, ReadCounts, sha256_file
from simcse.io.records import Note, read_index_rows
from simcse.io.rows import IndexRow

ENCODE_ROWS = 2048  # encoded together
COMMIT_SECONDS = 60.0  # of work that a crash may cost
Encode = Callable[[Sequence[str]], np.ndarray]


def ingest(
    index: VectorIndex,
    files: Sequence[str | Path],
    encode: Encode,
    *,
    columns: str = "",
    bad_lines: BadLines = "error",
    counts: ReadCounts | None = None,
    note: Note | None = None,
    on_batch: Callable[[int, int], None] = lambda rows, skipped: None,
) -> Commit:
    """Add the rows of files to an index; a row replaces the one of the same id.

    The number of rows done of each file is committed with them. Called again with the same files
    after an interruption, it resumes; standard input is read from its start.

    Args:
        index: gets the rows.
        files: as `read_index_rows` reads them.
        encode: the index's model.
        columns: columns of text and id; see `read_index_rows`.
        bad_lines: stop at a bad line, or skip and count it.
        counts: numbers of rows, blank lines and bad lines, which are updated.
        note: called with a line about the columns of each table.
        on_batch: called after each batch with the number of rows read, and the number of those
            that an earlier call had committed.

    Raises:
        DataError: a file is missing or has a bad row.
        ResourceError: the disk is full, or another process is writing.
    """
    total, progress = Commit(), index.metadata.progress
    for path in files:
        rows = read_index_rows(path, columns=columns, bad_lines=bad_lines, counts=counts, note=note)
        source = f"{_source(path)} {columns}"
        done = progress.get(source, 0)
        on_batch(sum(1 for _ in itertools.islice(rows, done)), done)
        for batch, due in _batches(rows):
            index.add(batch, encode([row.text for row in batch]))
            done += len(batch)
            on_batch(len(batch), 0)
            if due:
                total += index.commit(progress={source: done})
        total += index.commit(progress={source: done})
    return total


def _batches(rows: Iterator[IndexRow]) -> Iterator[tuple[list[IndexRow], bool]]:
    """Yield batches, and whether a commit is due after each."""
    staged, last = 0, time.monotonic()
    while batch := list(itertools.islice(rows, ENCODE_ROWS)):
        staged += len(batch)
        due = staged >= CHUNK_ROWS or time.monotonic() - last > COMMIT_SECONDS
        yield batch, due
        if due:
            staged, last = 0, time.monotonic()


def _source(path: str | Path) -> str:
    """Name a file by its bytes, so that only the same file is resumed."""
    return f"<stdin {time.time_ns()}>" if str(path) == "-" else sha256_file(Path(path))
