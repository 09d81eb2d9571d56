"""Writing training files: chosen rows of another file, byte for byte, and pairs."""

import bisect
import contextlib
import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from simcse.errors import DataError
from simcse.io.files import Source, atomic_path, file_format, open_bytes
from simcse.io.formats import csv_rows

FILTERED = ("txt", "tsv", "jsonl", "csv")  # formats of which a row is whole lines


def filter_rows(path: Path, output: Path, lines: NDArray[np.int64], *, header: int = 0) -> None:
    """Write the rows that begin at the physical ``lines`` to ``output``, byte for byte.

    ``output`` must have the format of ``path``; ``.gz`` is added or left off freely.
    The header's line, if any, is copied, too.

    Raises:
        DataError: the formats differ, or are none of which a row is whole lines.
    """
    if file_format(path) not in FILTERED or file_format(output) != file_format(path):
        raise DataError(
            f"expected two files of one format out of {', '.join(FILTERED)}, "
            f"found {path} and {output}"
        )
    wanted = {header, *lines.tolist()}
    with atomic_path(output) as temporary, open_bytes(path) as stored:
        with _writer(temporary, packed=output.suffix.lower() == ".gz") as written:
            for number, line in _row_of_lines(path, stored):
                if number in wanted:
                    written.write(line if line.endswith(b"\n") else line + b"\n")


def write_pairs(output: Path, rows: Iterable[tuple[str, ...]], *, negatives: int = 0) -> int:
    """Write pairs, or rows with up to ``negatives`` hard negatives, below a header; count them.

    Raises:
        DataError: ``output`` is not named as a ``.tsv`` file.
    """
    if file_format(output) != "tsv":
        raise DataError(f"pairs are written as .tsv or .tsv.gz, found {output}")
    several = [f"negative{i}" for i in range(1, negatives + 1)]
    header = ("anchor", "positive", *(several if negatives > 1 else ["negative"] * negatives))
    count = 0
    with atomic_path(output) as temporary:
        with _writer(temporary, packed=output.suffix.lower() == ".gz") as written:
            written.write(("\t".join(header) + "\n").encode())
            for count, row in enumerate(rows, 1):  # noqa: B007 - the last one is returned
                written.write(("\t".join(row) + "\n").encode())
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
