"""Sentences one after another, in constant memory."""

from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from simcse.errors import DataError
from simcse.io.files import (
    BadLines,
    ReadCounts,
    Source,
    clean_text,
    file_format,
    open_bytes,
    read_json_lines,
    read_lines,
)
from simcse.io.parquet import read_parquet


def read_sentences(
    path: str | Path,
    *,
    column: str = "text",
    bad_lines: BadLines = "error",
    counts: ReadCounts | None = None,
) -> Iterator[str]:
    """Stream the sentences of a file, or of standard input for ``-``.

    ``.txt`` and ``.txt.gz`` hold one sentence a line; of ``.jsonl``, ``.jsonl.gz`` and
    ``.parquet`` the field ``column`` is read. Blank sentences are passed over and counted. The
    first sentence is read at once, so an unreadable or empty file fails here, before a caller
    loads a model.

    Raises:
        DataError: the file cannot be read, holds no sentence, or has a bad line (while streaming
            too) and ``bad_lines`` is ``"error"``.
        ResourceError: a ``.parquet`` file, and the extra is not installed.

    Example:
        >>> list(read_sentences("wiki.txt.gz"))  # doctest: +SKIP
        ['One sentence.', 'Another.']
    """
    source = Source(Path(path), bad_lines, ReadCounts() if counts is None else counts)
    sentences = (text for _, text in stream_numbered(source, column))
    first = next(sentences, None)
    if first is None:
        raise DataError(f"{source}: no usable rows ({source.counts})")
    return chain([first], sentences)


def count_lines(path: str | Path) -> int | None:
    """Count a file's lines, for a progress bar; ``None`` for standard input and ``.parquet``.

    Raises:
        DataError: the file cannot be read.
    """
    path = Path(path)
    if str(path) == "-" or file_format(path) == "parquet":
        return None
    with open_bytes(path) as stream:
        return sum(block.count(b"\n") for block in iter(partial(stream.read, 1 << 20), b""))


def stream_numbered(source: Source, column: str = "text") -> Iterator[tuple[int, str]]:
    """Yield line numbers and cleaned sentences lazily, counting rows and blanks; maybe none.

    Raises:
        DataError: as `read_sentences`, when the first sentence is asked for.
    """
    for number, text in _texts(source, column):
        sentence = clean_text(text)
        if sentence:
            source.counts.rows += 1
            yield number, sentence
        else:
            source.counts.blank += 1


def _texts(source: Source, column: str) -> Iterator[tuple[int, str]]:
    name = file_format(source.path)
    if name == "txt":
        return ((number, line) for number, line in read_lines(source) if line is not None)
    if name == "jsonl":
        return _fields(source, read_json_lines(source), column)
    if name == "parquet":
        return _fields(source, read_parquet(source, [column]), column)
    known = ".txt, .jsonl (each also .gz) or .parquet"
    raise DataError(f"{source}: expected {known}, got the format {name!r}")


def _fields(
    source: Source, records: Iterator[tuple[int, Any]], column: str
) -> Iterator[tuple[int, str]]:
    for number, record in records:
        text = record.get(column) if isinstance(record, dict) else None
        if isinstance(text, str):
            yield number, text
        else:
            source.refuse(number, f"expected a text field {column!r}, got {str(record)[:80]}")
