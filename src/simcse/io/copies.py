"""Writing training files: chosen rows of another one, byte for byte, and pairs."""

import bisect
import contextlib
import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from simcse.errors import DataError
from simcse.io.records import csv_rows
from simcse.io.files import Source, atomic_path, file_format, open_bytes

COPIED = ("txt", "tsv", "jsonl", "csv")


def copy_rows(path: Path, output: Path, keep: NDArray[np.int64], *, header: bool = False) -> None:
    """Write the rows that begin at the physical lines ``keep`` to ``output``, in their order.

    ``output`` must have the format of ``path``; ``.gz`` is added or left off freely. With
    ``header`` the first line is copied, too.

    Raises:
        DataError: the formats differ, or are none of which a row is whole lines.
    """
    if file_format(path) not in COPIED or file_format(output) != file_format(path):
        raise DataError(
            f"expected two files of one format out of {', '.join(COPIED)}, got {path} and {output}"
        )
    wanted = set(keep.tolist()) | ({1} if header else set())
    with atomic_path(output) as temporary, open_bytes(path) as lines:
        with _writer(temporary, packed=output.suffix.lower() == ".gz") as written:
            for number, line in _row_of_lines(path, lines):
                if number in wanted:
                    written.write(line if line.endswith(b"\n") else line + b"\n")


def write_pairs(output: Path, pairs: Iterable[tuple[str, ...]]) -> int:
    """Write pairs or triplets of cleaned texts, parted by tabs, a line each; return how many.

    Raises:
        DataError: ``output`` is not named as such a file.
    """
    if file_format(output) != "tsv":
        raise DataError(f"pairs are written as .tsv or .tsv.gz, got {output}")
    count = 0
    with atomic_path(output) as temporary:
        with _writer(temporary, packed=output.suffix.lower() == ".gz") as written:
            for count, pair in enumerate(pairs, 1):  # noqa: B007 - the last one is returned
                written.write(("\t".join(pair) + "\n").encode())
    return count


@contextlib.contextmanager
def _writer(path: Path, *, packed: bool) -> Iterator[BinaryIO]:
    with path.open("wb") as plain:
        if not packed:
            yield plain
            return
        with gzip.GzipFile("", "wb", fileobj=plain, mtime=0) as file:  # same rows, same bytes
            yield cast(BinaryIO, file)


def _row_of_lines(path: Path, lines: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield each line with the number of the line its row begins at."""
    if file_format(path) != "csv":
        yield from enumerate(lines, 1)
        return
    begins = [number for number, _ in csv_rows(Source(path, "skip"))]
    for number, line in enumerate(lines, 1):
        row = bisect.bisect_right(begins, number)
        yield begins[row - 1] if row else 0, line
