"""Rows of an index: a text with an id and metadata, from text, JSONL and Parquet."""

import datetime
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simcse.errors import DataError
from simcse.io.files import (
    BadLines,
    ReadCounts,
    Source,
    clean_text,
    file_format,
    read_json_lines,
    read_lines,
)
from simcse.io.parquet import read_parquet

MAX_ID_BYTES = 512
_CONTAINERS = (Mapping, list, tuple)
MAX_DEPTH = 64  # of nested metadata; recursive readers fail at a few hundred


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One sentence of an index.

    Attributes:
        id: identifies the row; two rows of an index never share one.
        text: the sentence.
        metadata: JSON values by name, which searches filter on and hits return.
    """

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


def make_row(text: object, id: object = None, metadata: object = None) -> IndexRow:
    r"""Check and clean the values of a row; a row without an id has its text's hash as id.

    The same text added twice is therefore one row, and adding a file again after a crash
    duplicates nothing.

    Raises:
        DataError: the text is blank, the id is not text or a whole number, or the metadata cannot
            be stored (see `metadata_json`).

    Example:
        >>> make_row("A man plays the guitar.\n").id
        '9e03df7d049ed310'
    """
    if not isinstance(text, str) or not (cleaned := clean_text(text)):
        raise DataError(f"expected a text that is not blank, got {str(text)[:80]!r}")
    plain = {} if metadata is None else json.loads(metadata_json(metadata))
    if id is None:
        return IndexRow(text_id(cleaned), cleaned, plain)
    if isinstance(id, bool) or not isinstance(id, str | int):
        raise DataError(f"expected an id that is text or a whole number, got {id!r}")
    name = clean_text(str(id))
    if not 0 < len(_utf8(name)) <= MAX_ID_BYTES:
        raise DataError(f"expected an id of 1 to {MAX_ID_BYTES} bytes, got {name[:80]!r}")
    return IndexRow(name, cleaned, plain)


def text_id(text: str) -> str:
    """Return the id of a row that has none of its own: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(_utf8(text)).hexdigest()[:16]


def metadata_json(metadata: object) -> str:
    """Return the JSON text of a row's metadata; dates become ISO text.

    This is the one rule on what every index can store and give back: an object of JSON values,
    nested at most 64 deep, with finite numbers and whole numbers of at most 64 bits.

    Raises:
        DataError: the metadata is anything else.
    """
    if not isinstance(metadata, Mapping):
        raise DataError(f"expected metadata as a JSON object, got {str(metadata)[:80]}")
    try:
        _check_values(metadata, MAX_DEPTH)
        text = json.dumps(metadata, allow_nan=False, default=_iso, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"expected metadata of JSON values: {error}") from error
    return text


def _check_values(value: object, depth: int) -> None:
    if isinstance(value, str):
        return
    if isinstance(value, _CONTAINERS):
        if not depth:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        for held in value.values() if isinstance(value, Mapping) else value:
            _check_values(held, depth - 1)
    elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"{str(value)[:30]} is a whole number of more than 64 bits")


def read_rows(
    path: str | Path,
    *,
    id_column: str = "id",
    text_column: str = "text",
    bad_lines: BadLines = "error",
    counts: ReadCounts | None = None,
) -> Iterator[IndexRow]:
    """Stream the rows of a file, or of standard input for ``-``, in constant memory.

    ``.txt`` holds one sentence a line. Of ``.jsonl`` and ``.parquet`` the field ``text_column``
    is the sentence, ``id_column`` its id where there is one, and every other field metadata.
    ``.txt`` and ``.jsonl`` may end in ``.gz``.

    Raises:
        DataError: while streaming: the file cannot be read, or a row is wrong (``file:line``)
            and ``bad_lines`` is ``"error"``.
        ResourceError: a ``.parquet`` file, and the extra is not installed.
    """
    source = Source(Path(path), bad_lines, ReadCounts() if counts is None else counts)
    for number, record in _records(source, text_column):
        text = record.pop(text_column, None)
        if isinstance(text, str) and not clean_text(text):
            source.counts.blank += 1
            continue
        try:
            row = make_row(text, record.pop(id_column, None), record)
        except DataError as error:
            source.refuse(
                number, f"{error} in the field {text_column!r}" if not text else str(error)
            )
            continue
        source.counts.rows += 1
        yield row


def _records(source: Source, text_column: str) -> Iterator[tuple[int, dict[str, Any]]]:
    name = file_format(source.path)
    if name == "txt":
        yield from (
            (at, {text_column: line}) for at, line in read_lines(source) if line is not None
        )
    elif name == "jsonl":
        for number, value in read_json_lines(source):
            if isinstance(value, dict):
                yield number, value
            else:
                source.refuse(number, f"expected a JSON object, got {str(value)[:80]}")
    elif name == "parquet":
        yield from read_parquet(source)
    else:
        known = ".txt, .jsonl (each also .gz) or .parquet"
        raise DataError(f"{source}: expected {known}, got the format {name!r}")


def _iso(value: object) -> str:
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"expected text, got half of a surrogate pair: {error}") from error
