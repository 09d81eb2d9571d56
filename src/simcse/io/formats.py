"""The formats of records: rows of txt, tsv, csv, jsonl and parquet files, one after another."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from types import ModuleType
from typing import Any

from simcse.errors import DataError, ResourceError, SimcseError
from simcse.io.files import Source, clean_text, file_format, read_json_lines, read_lines

RawRow = tuple[int, Any]  # physical line (or Parquet row) from 1; a list of cells or a dictionary
FORMATS = ".txt, .tsv, .csv, .jsonl (each also .gz) or .parquet"
SAMPLE_ROWS = 100  # rows that are read ahead to decide what the columns are
SAMPLE_CHARACTERS = 1 << 20  # fewer rows where they are long
PARQUET_ROWS = 4096  # rows decoded together


@dataclass(frozen=True)
class RawRows:
    """The rows of one file, of which the first have been read ahead."""

    sample: list[RawRow]  # the first rows
    names: list[str]  # the columns of a .parquet file
    # Yields all rows, the sample included; only the named columns of a .parquet.
    read: Callable[[Sequence[str] | None], Iterator[RawRow]]


def open_rows(source: Source) -> RawRows:
    """Open a file and read its first rows ahead.

    A bad row or damage that the sample meets is reported when the reader gets there.

    Raises:
        DataError: the format is not known, or a ``.parquet`` file cannot be read.
        ResourceError: the file is ``.parquet``, and pyarrow is not installed.
    """
    name = file_format(source.path)
    if name == "parquet":
        return _open_parquet(source)
    if name not in _READERS:
        raise DataError(f"{source}: expected {FORMATS}, found the format {name!r}")
    rows = _READERS[name](source)
    if name == "txt":  # its column is known
        return RawRows([], [], lambda _: rows)
    return _read_ahead(rows if name == "jsonl" else _without_blank(source, rows))


def _read_ahead(rows: Iterator[RawRow]) -> RawRows:
    sample, failure, size = list[RawRow](), None, 0
    try:
        for row in islice(rows, SAMPLE_ROWS):
            sample.append(row)
            size += len(str(row[1]))
            if size > SAMPLE_CHARACTERS:
                break
    except SimcseError as error:
        failure = error

    def read(_: Sequence[str] | None) -> Iterator[RawRow]:
        yield from sample
        if failure is not None:
            raise failure
        yield from rows

    return RawRows(sample, [], read)


def csv_rows(source: Source) -> Iterator[RawRow]:
    """Yield each record's first physical line and its cells; a quoted cell may span lines.

    Raises:
        DataError: a quote is left open or misplaced, with ``bad_lines="error"``.
    """
    last_bad = 0

    def physical_lines() -> Iterator[str]:
        nonlocal last_bad
        for number, line in read_lines(source):
            last_bad = number if line is None else last_bad
            yield (line or "").replace("\0", " ") + "\n"  # Python 3.10's csv refuses NUL

    reader = csv.reader(physical_lines(), strict=True)
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            source.refuse(first, f"bad CSV record, is a quote left open? ({error})")
            continue
        if last_bad < first:
            yield first, cells


def import_pyarrow() -> ModuleType:
    """Return the module ``pyarrow`` with ``pyarrow.parquet`` loaded.

    Raises:
        ResourceError: the extra is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        message = "Parquet files need an extra: pip install 'simcse-next[parquet]'"
        raise ResourceError(message) from error
    return pyarrow  # type: ignore[no-any-return]


def _text_rows(source: Source) -> Iterator[RawRow]:
    for number, line in read_lines(source):
        if line is None:
            continue
        if text := clean_text(line):
            yield number, [text]
        else:
            source.counts.blank += 1


def _tsv_rows(source: Source) -> Iterator[RawRow]:
    return ((number, line.split("\t")) for number, line in read_lines(source) if line is not None)


def _json_rows(source: Source) -> Iterator[RawRow]:
    """Yield objects or lists, whichever the first line holds."""
    wanted: type | None = None
    for number, value in read_json_lines(source):
        if wanted is None and isinstance(value, dict | list):
            wanted = type(value)
        if wanted is not None and isinstance(value, wanted):
            yield number, value
        else:
            expected = "a list of strings" if wanted is list else "a JSON object"
            source.refuse(number, f"expected {expected}, found {str(value)[:80]}")


def _without_blank(source: Source, rows: Iterable[RawRow]) -> Iterator[RawRow]:
    """Clean every cell; pass over and count the rows that have none left."""
    for number, cells in rows:
        cleaned = [clean_text(cell) for cell in cells]
        if any(cleaned):
            yield number, cleaned
        else:
            source.counts.blank += 1


def _open_parquet(source: Source) -> RawRows:
    pyarrow = import_pyarrow()
    try:
        table = pyarrow.parquet.ParquetFile(source.path)
        first = next(table.iter_batches(batch_size=SAMPLE_ROWS), None)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"cannot read {source}: {error}") from error

    def read(names: Sequence[str] | None) -> Iterator[RawRow]:
        try:
            with table:
                batches = table.iter_batches(PARQUET_ROWS, columns=names and list(names))
                rows = chain.from_iterable(batch.to_pylist() for batch in batches)
                yield from enumerate(rows, start=1)
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"cannot read {source}: {error}") from error

    sample = [] if first is None else first.to_pylist()
    return RawRows(list(enumerate(sample, start=1)), table.schema_arrow.names, read)


_READERS: dict[str, Callable[[Source], Iterator[RawRow]]] = {
    "txt": _text_rows,
    "tsv": _tsv_rows,
    "csv": csv_rows,
    "jsonl": _json_rows,
}
