"""Files into an index: encoded, committed at intervals, and resumed after a crash."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from simcse.index.chunks import CHUNK_ROWS
from simcse.index.protocol import Commit, VectorIndex
from simcse.io.files import BadLines, ReadCounts, sha256_file
from simcse.io.rows import IndexRow, read_rows

ENCODE_ROWS = 2048  # encoded together
COMMIT_SECONDS = 60.0  # of work that a crash may cost
Encode = Callable[[Sequence[str]], np.ndarray]


def ingest(
    index: VectorIndex,
    files: Sequence[str | Path],
    encode: Encode,
    *,
    id_column: str = "id",
    text_column: str = "text",
    bad_lines: BadLines = "error",
    counts: ReadCounts | None = None,
    on_batch: Callable[[int, int], None] = lambda rows, skipped: None,
) -> Commit:
    """Add the rows of files to an index; a row replaces the one of the same id.

    The number of rows done of each file is committed with them. Called again with the same files
    after an interruption, it goes on where it was; standard input is read anew.

    Args:
        index: gets the rows.
        files: as `read_rows` takes them.
        encode: the index's model.
        id_column: field with the rows' ids.
        text_column: field with the rows' texts.
        bad_lines: stop at a bad line, or skip and count it.
        counts: numbers of rows, blank lines and bad lines, which are updated.
        on_batch: called after each batch with the number of rows read, and the number of those
            that an earlier call had committed.

    Raises:
        DataError: a file is missing or has a bad row.
        ResourceError: the disk is full, or another process is writing.
    """
    total, progress = Commit(), index.metadata.progress
    for path in files:
        rows = read_rows(
            path, id_column=id_column, text_column=text_column, bad_lines=bad_lines, counts=counts
        )
        source = f"{_source(path)} {id_column} {text_column}"
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
