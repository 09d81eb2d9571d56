"""Rows of an index: a text with an id and metadata."""

import datetime
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from simcse.errors import DataError
from simcse.io.files import clean_text

MAX_ID_BYTES = 512
_CONTAINERS = (Mapping, list, tuple)
MAX_DEPTH = 64  # of nested metadata; recursive readers fail at a few hundred


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One sentence of an index."""

    id: str  # identifies the row; two rows of an index never share one
    text: str  # the sentence
    # JSON values by name, which searches filter on and hits return.
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


def _iso(value: object) -> str:
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"expected text, got half of a surrogate pair: {error}") from error
