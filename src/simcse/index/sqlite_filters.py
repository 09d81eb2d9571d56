"""Metadata of rows as entries of a table in SQLite, and filters as queries on it.

The table ``metadata`` holds for each row and field the field's value, and for a list also each of
its elements: ``(field, type, value, position)``, all of it the primary key. So the positions of
one value, and of a range of values, are one stretch of the table, and the distinct values of a
field are found by skipping from one to the next.
"""

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

from simcse.errors import UsageError
from simcse.index.filters import ORDER_SYMBOLS, Condition, ordered_type

NULL, BOOLEAN, NUMBER, STRING, OBJECT, ARRAY = range(6)
ELEMENT = 8  # added to the type of a list's element
Entry = tuple[str, int, Any]  # field, type, value as SQLite holds it

_POSITIONS = "SELECT position FROM metadata WHERE field = ? AND type = ? AND value "
_NEXT_FIELD = "SELECT field FROM metadata WHERE field > ? ORDER BY field LIMIT 1"
_NEXT_VALUE = (
    "SELECT type, value FROM metadata WHERE field = ? AND (type, value) > (?, ?) AND type < ?"
    " ORDER BY type, value LIMIT 1"
)


def metadata_entries(metadata: Mapping[str, Any]) -> set[Entry]:
    """Return the entries of a row's metadata, without its position."""
    entries = set()
    for name, value in metadata.items():
        entries.add((name, *_encode(value)))
        for element in value if isinstance(value, list) else ():
            type_code, encoded = _encode(element)
            entries.add((name, type_code + ELEMENT, encoded))
    return entries


def condition_queries(condition: Condition) -> list[tuple[str, list[Any]]]:
    """Return queries whose positions together meet the condition, or for ``not_in`` do not meet it.

    Raises:
        UsageError: a text has half of a surrogate pair.
    """
    try:
        json.dumps([condition.field, *condition.values], ensure_ascii=False).encode()
    except (UnicodeEncodeError, TypeError, RecursionError) as error:
        raise UsageError(f"the filter on {condition.field!r} has no JSON value: {error}") from error
    if condition.operator in ORDER_SYMBOLS:
        (value,) = condition.values
        if ordered_type(value) is None:
            return []
        symbol = ORDER_SYMBOLS[condition.operator]
        return [(f"{_POSITIONS} {symbol} ?", [condition.field, *_encode(value)])]
    queries = []
    for type_code, value in map(_encode, condition.values):
        # A list is compared with the elements of a list only: the list itself meets no condition.
        types = [type_code + ELEMENT] if type_code == ARRAY else [type_code, type_code + ELEMENT]
        queries += [(f"{_POSITIONS} = ?", [condition.field, one, value]) for one in types]
    return queries


def known_fields(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield the names of all metadata fields, in order."""
    found = connection.execute("SELECT min(field) FROM metadata").fetchone()
    while found is not None and found[0] is not None:
        yield found[0]
        found = connection.execute(_NEXT_FIELD, found).fetchone()


def distinct_values(connection: sqlite3.Connection, field: str, limit: int) -> list[Any]:
    """Return ``limit`` distinct values of a field, or all if there are fewer."""
    values: list[Any] = []
    last: tuple[Any, ...] = (-1, 0)
    while len(values) < limit:
        found = connection.execute(_NEXT_VALUE, [field, *last, ELEMENT]).fetchone()
        if found is None:
            break
        values.append(_decode(*found))
        last = found
    return values


def _encode(value: Any) -> tuple[int, Any]:  # noqa: ANN401 - any JSON value
    """Return the type of a JSON value and what SQLite compares as Python and PostgreSQL do."""
    if value is None:
        return NULL, 0
    if isinstance(value, bool):
        return BOOLEAN, int(value)
    if isinstance(value, int | float):
        return NUMBER, _number(value)
    if isinstance(value, str):
        return STRING, value
    type_code = OBJECT if isinstance(value, Mapping) else ARRAY
    return type_code, json.dumps(_canonical(value), ensure_ascii=False, sort_keys=True)


def _decode(type_code: int, value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if type_code == NULL:
        return None
    if type_code == BOOLEAN:
        return bool(value)
    return json.loads(value) if type_code in (OBJECT, ARRAY) else value


def _number(value: float) -> float:
    """Return a number that SQLite can hold; only a filter asks for larger whole numbers."""
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    return value


def _canonical(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a nested value with whole numbers as integers: 1.0 and 1 are equal."""
    if isinstance(value, Mapping):
        return {name: _canonical(held) for name, held in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(held) for held in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
