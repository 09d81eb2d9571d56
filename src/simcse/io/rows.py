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


@dataclass(frozen=True, slots=True)
class Row:
    """One sentence of an index.

    Attributes:
        id: what it is replaced and removed by; two rows of an index never share one.
        text: the sentence.
        metadata: JSON values by name, which searches filter on and hits give back.
    """

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


def make_row(text: object, id: object = None, metadata: object = None) -> Row:
    r"""Check and clean what a row is made of; without an id the text's hash is its id.

    So the same text added twice is one row, and adding a file again after a crash doubles
    nothing.

    Raises:
        DataError: the text is blank, the id is not text or a whole number, or the metadata is
            not a JSON object.

    Example:
        >>> make_row("A man plays the guitar.\n").id
        '9e03df7d049ed310'
    """
    if not isinstance(text, str) or not (cleaned := clean_text(text)):
        raise DataError(f"expected a text that is not blank, got {str(text)[:80]!r}")
    if id is None:
        return Row(text_id(cleaned), cleaned, _metadata(metadata))
    if isinstance(id, bool) or not isinstance(id, str | int):
        raise DataError(f"expected an id that is text or a whole number, got {id!r}")
    name = clean_text(str(id))
    if not 0 < len(_utf8(name)) <= MAX_ID_BYTES:
        raise DataError(f"expected an id of 1 to {MAX_ID_BYTES} bytes, got {name[:80]!r}")
    return Row(name, cleaned, _metadata(metadata))


def text_id(text: str) -> str:
    """Return the id of a row that has none of its own: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(_utf8(text)).hexdigest()[:16]


def _metadata(metadata: object) -> dict[str, Any]:
    """Return metadata as plain JSON values; dates become ISO text."""
    if metadata is None:
        return {}
    try:
        text = json.dumps(metadata, allow_nan=False, default=_iso, ensure_ascii=False)
        text.encode()
        plain = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"expected metadata of JSON values: {error}") from error
    if not isinstance(plain, dict):
        raise DataError(f"expected metadata as a JSON object, got {str(metadata)[:80]}")
    return plain


def _iso(value: object) -> str:
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"expected text, got a lone surrogate: {error}") from error
