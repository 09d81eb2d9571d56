"""Filters on metadata: conditions that a row must all meet."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from simcse.errors import UsageError

Operator = Literal["in", "not_in", "gt", "gte", "lt", "lte"]
ORDER_SYMBOLS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_SYMBOLS: dict[str, Operator] = {
    "=": "in",
    "!=": "not_in",
    ">": "gt",
    ">=": "gte",
    "<": "lt",
    "<=": "lte",
}
_TERM = re.compile(r"\s*([^=<>!]+?)\s*(!=|>=|<=|=|>|<)\s*(.*?)\s*", re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """A condition on one field; a row without the field meets only ``not_in``.

    A field that holds a list meets ``in`` if one of its values does, and no ordering. Only numbers
    are compared with numbers, and texts with texts by their code points; true is not 1. A row
    meets ``not_in`` where it does not meet ``in``.
    """

    field: str  # name of the metadata field
    operator: Operator  # how the field's value is compared
    values: tuple[Any, ...]  # what it is compared with; several only for in and not_in


def ordered_type(value: Any) -> Literal["number", "string"] | None:  # noqa: ANN401 - any JSON value
    """Return the type by which a JSON value is ordered, if any; true and false have no order."""
    if isinstance(value, str):
        return "string"
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else None


def parse_condition(text: str) -> Condition:
    """Read a condition of the command line: ``lang=en``, ``year>=2000``, ``lang!=en``.

    What reads as a JSON number or as true, false or null is one, and equality also takes it as
    text.

    Raises:
        UsageError: the text is no condition.

    Example:
        >>> parse_condition("year>=2000")
        Condition(field='year', operator='gte', values=(2000,))
    """
    match = _TERM.fullmatch(text)
    if match is None:
        raise UsageError(f"expected a filter such as lang=en or year>=2000, got {text!r}")
    name, symbol, written = match.groups()
    try:
        value = json.loads(written)
    except ValueError:
        value = written
    equality = symbol in ("=", "!=")
    values = (value, written) if equality and not isinstance(value, str) else (value,)
    return Condition(name, _SYMBOLS[symbol], values)


def parse_filter(conditions: Mapping[str, Any]) -> tuple[Condition, ...]:
    """Read the filter of a request: ``{"lang": "en", "tag": ["a", "b"], "year": {"gte": 2000}}``.

    A value means equality, a list one of its values, an object one or more of the operators.

    Raises:
        UsageError: an operator is unknown, or takes a list and got none.
    """
    return tuple(
        condition for name, wanted in conditions.items() for condition in _conditions(name, wanted)
    )


def _conditions(name: str, wanted: Any) -> list[Condition]:  # noqa: ANN401 - any JSON value
    if not isinstance(wanted, dict):
        return [Condition(name, "in", tuple(wanted) if isinstance(wanted, list) else (wanted,))]
    found = []
    for word, value in wanted.items():
        if word not in ("in", "not_in", *ORDER_SYMBOLS):
            known = ", ".join(("in", "not_in", *ORDER_SYMBOLS))
            raise UsageError(f"filter on {name!r}: unknown operator {word!r}, known: {known}")
        if word in ORDER_SYMBOLS:
            found.append(Condition(name, word, (value,)))
        elif isinstance(value, list):
            found.append(Condition(name, word, tuple(value)))
        else:
            raise UsageError(f"filter on {name!r}: {word!r} takes a list, got {value!r}")
    return found


def check_fields(where: Sequence[Condition], known: Sequence[str]) -> None:
    """Check that some row has each field: a filter on another one is almost always a typo.

    Raises:
        UsageError: with the nearest field there is.
    """
    for condition in where:
        if condition.field not in known:
            close = difflib.get_close_matches(condition.field, known, n=1)
            hint = (
                f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"
            )
            raise UsageError(f"no row has a metadata field {condition.field!r}; {hint}")
