"""Files into an index: encoded, committed every so often, and taken up again after a crash."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from simcse.index.protocol import Commit, VectorIndex
from simcse.index.writer import SEGMENT_ROWS
from simcse.io.files import BadLines, ReadCounts, sha256_file
from simcse.io.records import Note, read_index_rows
from simcse.io.rows import Row

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
    observe: Callable[[int, int], None] = lambda rows, skipped: None,
) -> Commit:
    """Add the rows of files to an index; a row replaces the one of the same id.

    How many rows of each file are in is committed with them. Called again with the same files
    after an interruption, it goes on where it was; standard input is read anew.

    Args:
        index: gets the rows.
        files: as `read_index_rows` reads them.
        encode: the index's model.
        columns: columns of text and id; see `read_index_rows`.
        bad_lines: stop at a bad line, or skip and count it.
        counts: counts rows, blank lines and skipped rows.
        note: called with a line about the columns of each table.
        observe: told after each batch how many rows came by, and how many of those an earlier
            call had done.

    Raises:
        DataError: a file is missing or has a bad row.
        ResourceError: the disk is full, or another process is writing.
    """
    total, progress = Commit(), index.facts["progress"]
    for path in files:
        rows = read_index_rows(path, columns=columns, bad_lines=bad_lines, counts=counts, note=note)
        source = f"{_source(path)} {columns}"
        done = progress.get(source, 0)
        observe(sum(1 for _ in itertools.islice(rows, done)), done)
        for batch, due in _batches(rows):
            index.add(batch, encode([row.text for row in batch]))
            done += len(batch)
            observe(len(batch), 0)
            if due:
                total += index.commit({source: done})
        total += index.commit({source: done})
    return total


def _batches(rows: Iterator[Row]) -> Iterator[tuple[list[Row], bool]]:
    """Yield batches, and whether a commit is due after each."""
    staged, last = 0, time.monotonic()
    while batch := list(itertools.islice(rows, ENCODE_ROWS)):
        staged += len(batch)
        due = staged >= SEGMENT_ROWS or time.monotonic() - last > COMMIT_SECONDS
        yield batch, due
        if due:
            staged, last = 0, time.monotonic()


def _source(path: str | Path) -> str:
    """Name a file by its bytes, so that only the same file is taken up again."""
    return f"<stdin {time.time_ns()}>" if str(path) == "-" else sha256_file(Path(path))
