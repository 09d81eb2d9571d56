"""Filters on metadata: conditions that a row must all meet."""

import difflib
import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from simcse.errors import UsageError
from simcse.io.segments import Segment

Operator = Literal["in", "not_in", "gt", "gte", "lt", "lte"]
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
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
    """One field's condition; a row without the field meets none but ``not_in``.

    A field that holds a list meets ``in`` if one of its values does.

    Attributes:
        field: name of the metadata field.
        operator: how the field's value is compared.
        values: what it is compared with; several only for ``in`` and ``not_in``.
    """

    field: str
    operator: Operator
    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:  # noqa: ANN401 - any JSON value
        """Say whether a value the field has meets the condition."""
        if self.operator in ("in", "not_in"):
            held = value if isinstance(value, list) else [value]
            found = any(_same(one, wanted) for one in held for wanted in self.values)
            return found == (self.operator == "in")
        kind = ordered_kind(value)
        if kind is None or kind != ordered_kind(self.values[0]):
            return False  # a number and a text have no order
        return _ORDER[self.operator](value, self.values[0])


def ordered_kind(value: Any) -> Literal["number", "string"] | None:  # noqa: ANN401 - any JSON value
    """Say which order a JSON value has its place in, if any; true and false have none."""
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
        if word not in ("in", "not_in", *_ORDER):
            known = ", ".join(("in", "not_in", *_ORDER))
            raise UsageError(f"filter on {name!r}: unknown operator {word!r}, known: {known}")
        if word in _ORDER:
            found.append(Condition(name, word, (value,)))
        elif isinstance(value, list):
            found.append(Condition(name, word, tuple(value)))
        else:
            raise UsageError(f"filter on {name!r}: {word!r} takes a list, got {value!r}")
    return found


def segment_mask(segment: Segment, where: Sequence[Condition]) -> np.ndarray:
    """Return which rows of a segment meet all conditions: (N,) bool."""
    mask = np.ones(len(segment), bool)
    names = list(segment.values)
    for condition in where:
        absent = condition.operator == "not_in"
        if condition.field not in names:
            mask &= absent
            continue
        holds = [condition.holds(value) for value in segment.values[condition.field]]
        codes = segment.codes[names.index(condition.field)]
        mask &= np.array([*holds, absent])[codes]  # code -1, no value, is the last
    return mask


def check_fields(where: Sequence[Condition], known: Sequence[str]) -> None:
    """Refuse a filter on a field that no row has: it is far more often a slip than meant.

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


def _same(held: Any, wanted: Any) -> bool:  # noqa: ANN401 - any JSON values
    return bool(held == wanted) and isinstance(held, bool) == isinstance(wanted, bool)
