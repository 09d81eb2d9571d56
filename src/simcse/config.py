"""Frozen dataclass <-> TOML and ``section.key=value`` overrides. Knows no setting itself."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from simcse.errors import ConfigError

if typing.TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def build(cls: type[T], values: Mapping[str, Any], *, section: str = "") -> T:
    """Make the dataclass ``cls`` from nested mappings, refusing unknown keys and wrong types.

    Raises:
        ConfigError: a key is unknown (with the nearest known one) or a value has the wrong type.
    """
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    arguments = {}
    for key, value in values.items():
        where = f"{section}{key}"
        if key not in names:
            raise ConfigError(f"unknown setting {where!r}{_nearest(where, names, section)}")
        arguments[key] = _convert(hints[key], value, where)
    return cls(**arguments)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the nested values of ``over`` laid on top; neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        nested = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(below, value) if nested else value  # type: ignore[arg-type]
    return merged


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """Turn ``["loss.temperature=0.1"]`` into ``{"loss": {"temperature": "0.1"}}``.

    Values stay strings; `build` converts them by the type of the field they land in.

    Raises:
        ConfigError: an assignment has no ``=`` or an empty name.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        parts = name.strip().split(".")
        if not equals or not all(parts):
            raise ConfigError(f"expected section.key=value, got {assignment!r}")
        nested: Any = value.strip()
        for part in reversed(parts):
            nested = {part: nested}
        values = merge(values, nested)
    return values


def to_dict(settings: "DataclassInstance") -> dict[str, Any]:
    """Return the settings as nested plain values for TOML; ``None`` is left out."""

    def clean(value: Any) -> Any:  # noqa: ANN401 - plain values of any kind
        if isinstance(value, dict):
            return {key: clean(inner) for key, inner in value.items() if inner is not None}
        return list(value) if isinstance(value, tuple) else value

    plain = clean(dataclasses.asdict(settings))
    return dict(plain)


def _nearest(where: str, names: Iterable[str], section: str) -> str:
    known = [f"{section}{name}" for name in names]
    close = difflib.get_close_matches(where, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def _convert(hint: Any, value: Any, where: str) -> Any:  # noqa: ANN401 - a setting of any type
    """Convert one TOML value or override string to the type ``hint`` of its field."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is a section, got the value {value!r}")
        return build(hint, value, section=f"{where}.")
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_optional(hint, value, where)
    if origin is typing.Literal:
        return _convert_choice(typing.get_args(hint), value, where)
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        inner = typing.get_args(hint)[0]
        return tuple(_convert(inner, item, where) for item in items)
    return _convert_plain(hint, value, where)


def _convert_optional(hint: Any, value: Any, where: str) -> Any:  # noqa: ANN401
    if value is None or (isinstance(value, str) and value.lower() in ("none", "")):
        return None
    inner = next(part for part in typing.get_args(hint) if part is not type(None))
    return _convert(inner, value, where)


def _convert_choice(choices: tuple[Any, ...], value: Any, where: str) -> Any:  # noqa: ANN401
    if value not in choices:
        close = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"{where} must be one of {', '.join(choices)}, got {value!r}{hint}")
    return value


def _convert_plain(hint: type, value: Any, where: str) -> Any:  # noqa: ANN401
    problem = ConfigError(f"{where} must be {hint.__name__}, got {value!r}")
    if hint is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in words:
            return words[value.lower()]
        raise problem
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise problem
    if hint is not str and isinstance(value, float) and hint is int and not value.is_integer():
        raise problem
    if hint is str and not isinstance(value, str):
        raise problem
    try:
        return hint(value)
    except ValueError:
        raise problem from None
