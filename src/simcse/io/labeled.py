"""Labeled pairs: two sentences and whether they match."""

from collections.abc import Iterator
from pathlib import Path

from simcse.errors import DataError
from simcse.io.files import Source, clean_text, file_format, read_json_lines, read_lines

Pair = tuple[str, str, int]


def read_labeled_pairs(path: str | Path) -> list[Pair]:
    """Read pairs of sentences labeled 1, a match, or 0.

    ``.tsv`` holds label, first and second sentence, without header or quoting; ``.jsonl`` objects
    with ``label``, ``first`` and ``second``. Both may end in ``.gz``.

    Raises:
        DataError: the file cannot be read, is empty, or has a wrong row (``file:line``).
    """
    source = Source(Path(path))
    readers = {"tsv": _cells, "jsonl": _fields}
    name = file_format(source.path)
    if name not in readers:
        raise DataError(f"{source}: expected .tsv or .jsonl (each also .gz), got {name!r}")
    pairs = []
    for number, row in readers[name](source):
        if len(row) != 3 or str(row[0]) not in ("0", "1") or isinstance(row[0], bool):
            raise DataError(f"{source}:{number}: expected a label 0 or 1 and two sentences")
        first, second = (clean_text(text) if isinstance(text, str) else "" for text in row[1:])
        if not (first and second):
            raise DataError(f"{source}:{number}: a sentence is missing or blank")
        pairs.append((first, second, int(str(row[0]))))
    if not pairs:
        raise DataError(f"{source}: no pairs")
    return pairs


def _cells(source: Source) -> Iterator[tuple[int, list[object]]]:
    for number, line in read_lines(source):
        if line is not None and line.strip():
            yield number, list(line.split("\t"))


def _fields(source: Source) -> Iterator[tuple[int, list[object]]]:
    for number, value in read_json_lines(source):
        held = value if isinstance(value, dict) else {}
        yield number, [held.get(name) for name in ("label", "first", "second")]
