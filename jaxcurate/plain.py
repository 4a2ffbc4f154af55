"""From plain mappings to frozen dataclasses, with errors that name the field."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from jaxcurate.checks import InputError

T = TypeVar("T")
_LONGEST = 4096
"""Characters of a text, at most: as many as a path may have."""


def to_dataclass(cls: type[T], fields: Mapping[str, Any], where: str) -> T:
    """Makes a dataclass, nested ones included, of what a configuration file can hold.

    Whole numbers pass for floats, and lists for tuples; nothing else is converted. Numbers have to
    be finite and of 64 bits, and texts of one line: nothing else can be an array's size, a path or
    a heading.

    Args:
        cls: a dataclass whose fields are annotated with plain types, tuples, unions, literals or
            dataclasses.
        fields: its fields by name.
        where: what to call the mapping in errors.

    Raises:
        ValueError: naming a field that is unknown, missing, of the wrong type, or refused by the
            dataclass itself.
    """
    if not isinstance(fields, Mapping):
        raise InputError(f"{where} must be a mapping, not {_told(fields)}")
    known = {field.name: field for field in dataclasses.fields(cls)}
    for name in fields:
        if name not in known:
            name = name if isinstance(name, str) else _told(name)
            raise InputError(f"{where}.{name} is unknown; known are {', '.join(known)}")
    for name, field in known.items():
        no_default = field.default is field.default_factory is dataclasses.MISSING
        if no_default and name not in fields:
            raise InputError(f"{where}.{name} is missing")
    kinds = typing.get_type_hints(cls)
    values = {name: _typed(kinds[name], value, f"{where}.{name}") for name, value in fields.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def _typed(kind: Any, value: Any, where: str) -> Any:
    """``value`` as the annotated type ``kind``."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        if not any(type(value) is type(part) and value == part for part in parts):
            raise InputError(f"{where}={_told(value)}; known: {', '.join(map(repr, parts))}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in parts:
            return None
        (only,) = [part for part in parts if part is not type(None)]
        return _typed(only, value, where)
    if origin is tuple:
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise InputError(f"{where} must be a list, not {_told(value)}")
        if parts[-1] is Ellipsis:
            parts = (parts[0],) * len(value)
        if len(parts) != len(value):
            raise InputError(f"{where} must have {len(parts)} entries, not {len(value)}")
        return tuple(
            _typed(part, entry, f"{where}[{i}]")
            for i, (part, entry) in enumerate(zip(parts, value, strict=True))
        )
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else to_dataclass(kind, value, where)
    return _checked(kind, value, where)


def _checked(kind: type, value: Any, where: str) -> Any:
    """``value`` as a number, a text or a truth value."""
    if not isinstance(value, (int, float) if kind is float else kind) or (
        isinstance(value, bool) and kind is not bool
    ):
        raise InputError(f"{where} must be {kind.__name__}, not {_told(value)}")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InputError(f"{where} must be within 64 bits, not {_told(value)}")
    if kind is float and not math.isfinite(value):
        raise InputError(f"{where}={value} must be finite")
    if isinstance(value, str) and len(value) > _LONGEST:
        raise InputError(f"{where} has {len(value)} characters, at most {_LONGEST}")
    if isinstance(value, str) and any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
        raise InputError(f"{where}={_told(value)} must be one line without control characters")
    return float(value) if kind is float else value


def _told(value: Any) -> str:
    """How an error writes a value: as Python does, or by its type where that is long."""
    try:
        text = repr(value)
    except ValueError:  # of a number with thousands of digits
        text = ""
    return text if 0 < len(text) <= 80 and "\n" not in text else f"<{type(value).__name__}>"
