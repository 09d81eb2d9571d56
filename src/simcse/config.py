"""Frozen dataclass <-> TOML and ``section.key=value`` overrides."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from simcse.errors import ConfigError

if typing.TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def build(cls: type[T], values: Mapping[str, Any], *, section: str = "") -> T:
    """Make the dataclass ``cls`` of nested mappings; unknown keys and wrong types are refused.

    Raises:
        ConfigError: a key is unknown (with the nearest known one) or missing, or a value has
            the wrong type.
    """
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    arguments = {}
    for key, value in values.items():
        where = f"{section}{key}"
        if key not in names:
            raise ConfigError(f"unknown setting {where!r}{_nearest(where, names, section)}")
        arguments[key] = _convert(hints[key], value, where)
    for field in dataclasses.fields(cls):
        if field.name not in arguments and _is_required(field):
            raise ConfigError(f"setting {section}{field.name} is missing")
    return cls(**arguments)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` updated by the nested values of ``over``; neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        nested = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(below, value) if nested else value  # type: ignore[arg-type]
    return merged


def nest(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted names into nested mappings: ``{"loss.temperature": 0.1}`` and ``{"loss": ...}``.

    Example:
        >>> nest({"loss.temperature": 0.1, "loss": {"mlm_weight": 0.1}})
        {'loss': {'temperature': 0.1, 'mlm_weight': 0.1}}
    """
    values: dict[str, Any] = {}
    for name, value in settings.items():
        for key in reversed(name.split(".")):
            value = {key: value}
        values = merge(values, value)
    return values


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """Turn ``["loss.temperature=0.1"]`` into ``{"loss": {"temperature": "0.1"}}``.

    Values stay strings; `build` converts them by the type of their field.

    Raises:
        ConfigError: an assignment has no ``=`` or an empty name.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = (text.strip() for text in assignment.partition("="))
        if not equals or not all(name.split(".")):
            raise ConfigError(f"expected section.key=value, got {assignment!r}")
        values = merge(values, nest({name: value}))
    return values


def to_dict(settings: "DataclassInstance") -> dict[str, Any]:
    """Return the settings as nested plain values for TOML; ``None`` is left out."""

    def plain(value: Any) -> Any:  # noqa: ANN401 - a setting of any type
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items() if each is not None}
        return list(value) if isinstance(value, tuple) else value

    return dict(plain(dataclasses.asdict(settings)))


def _nearest(where: str, names: Iterable[str], section: str) -> str:
    known = [f"{section}{name}" for name in names]
    close = difflib.get_close_matches(where, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def _convert(hint: Any, value: Any, where: str) -> Any:  # noqa: ANN401 - a setting of any type
    """Convert one TOML value or override string to the type ``hint`` of its field."""
    origin = typing.get_origin(hint)
    section = dataclasses.is_dataclass(hint) and isinstance(hint, type)
    if section or origin is Mapping:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is a section, got the value {value!r}")
        return build(hint, value, section=f"{where}.") if section else dict(value)
    if origin in (typing.Union, types.UnionType):
        return _convert_optional(hint, value, where)
    if origin is typing.Literal:
        return _convert_choice(typing.get_args(hint), value, where)
    if origin is tuple:
        return _convert_list(typing.get_args(hint)[0], value, where)
    return _convert_plain(hint, value, where)


def _convert_optional(hint: Any, value: Any, where: str) -> Any:  # noqa: ANN401
    given = next(each for each in typing.get_args(hint) if each is not type(None))
    is_choice = typing.get_origin(given) is typing.Literal and value in typing.get_args(given)
    is_none = isinstance(value, str) and value.lower() in ("none", "")
    if value is None or (is_none and not is_choice):  # a choice may itself be called "none"
        return None
    return _convert(given, value, where)


def _convert_list(item_hint: Any, value: Any, where: str) -> tuple[Any, ...]:  # noqa: ANN401
    if isinstance(value, str):
        value = [item.strip() for item in value.split(",")] if value.strip() else []
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where} must be a list, got {value!r}")
    return tuple(_convert(item_hint, item, where) for item in value)


def _convert_choice(choices: tuple[Any, ...], value: Any, where: str) -> Any:  # noqa: ANN401
    if value not in choices:
        close = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"{where} must be one of {', '.join(choices)}, got {value!r}{hint}")
    return value


def _convert_plain(hint: type, value: Any, where: str) -> Any:  # noqa: ANN401
    problem = ConfigError(f"{where} must be {hint.__name__}, got {value!r}")
    if hint is bool:
        value = _WORDS.get(value.lower()) if isinstance(value, str) else value
        if not isinstance(value, bool):
            raise problem
        return value
    if isinstance(value, bool) or not isinstance(value, str if hint is str else (str, int, float)):
        raise problem
    try:
        number = hint(value)
    except (ValueError, OverflowError):
        raise problem from None
    if isinstance(value, float) and number != value:
        raise problem
    if hint is float and not math.isfinite(number):
        raise ConfigError(f"{where} must be finite, got {value!r}")
    return number
