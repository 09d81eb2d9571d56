"""Filters on metadata as SQL of PostgreSQL; every name and value of a user is a parameter."""

from collections.abc import Sequence
from typing import Any

from psycopg.sql import SQL, Composable
from psycopg.types.json import Jsonb

from simcse.index.filters import ORDER_SYMBOLS, Condition, ordered_type

SqlFragment = tuple[Composable, list[Any]]

# Both can use the index on metadata: the field is the value, or a list that holds it.
_IS = SQL("(metadata @> %s OR metadata @> %s)")
# For lists and objects `@>` would also take those that hold more.
_HOLDS = SQL(
    "EXISTS (SELECT FROM jsonb_array_elements(CASE jsonb_typeof(metadata -> %s) WHEN 'array'"
    " THEN metadata -> %s ELSE jsonb_build_array(metadata -> %s) END) AS one WHERE one = %s)"
)
# CASE, because AND does not say what is computed first and a text is no number.
_NUMBER = SQL(
    "CASE jsonb_typeof(metadata -> %s) WHEN 'number'"
    " THEN (metadata ->> %s)::numeric {order} (%s::jsonb #>> '{{}}')::numeric ELSE false END"
)
_TEXT = SQL(
    "CASE jsonb_typeof(metadata -> %s) WHEN 'string'"
    " THEN (metadata ->> %s) COLLATE \"C\" {order} (%s::jsonb #>> '{{}}') ELSE false END"
)


def where_sql(where: Sequence[Condition]) -> SqlFragment:
    """Return an expression for all conditions, and its parameters.

    Example:
        >>> where_sql([Condition("lang", "in", ("de",))])[0].as_string()
        'TRUE AND (metadata @> %s OR metadata @> %s)'
    """
    fragments = [_condition(condition) for condition in where]
    text = SQL(" AND ").join([SQL("TRUE"), *(part for part, _ in fragments)])
    return text, [value for _, values in fragments for value in values]


def _condition(condition: Condition) -> SqlFragment:
    if condition.operator in ORDER_SYMBOLS:
        return _ordered(condition)
    fragments = [_equal(condition.field, value) for value in condition.values]
    text = SQL(" OR ").join([SQL("FALSE"), *(part for part, _ in fragments)])
    if condition.operator == "in" and len(fragments) == 1:
        return fragments[0]
    form = SQL("({})") if condition.operator == "in" else SQL("NOT ({})")
    return form.format(text), [value for _, values in fragments for value in values]


def _equal(field: str, value: Any) -> SqlFragment:  # noqa: ANN401 - any JSON value
    if isinstance(value, list | dict):
        return _HOLDS, [field, field, field, Jsonb(value)]
    return _IS, [Jsonb({field: value}), Jsonb({field: [value]})]


def _ordered(condition: Condition) -> SqlFragment:
    value = condition.values[0]
    compared = ordered_type(value)
    if compared is None:
        return SQL("FALSE"), []
    form = _NUMBER if compared == "number" else _TEXT
    text = form.format(order=SQL(ORDER_SYMBOLS[condition.operator]))
    return text, [condition.field, condition.field, Jsonb(value)]
