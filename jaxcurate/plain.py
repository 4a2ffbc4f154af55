"""From plain mappings to frozen dataclasses, with errors that name the field."""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from jaxcurate.checks import InputError

T = TypeVar("T")


def to_dataclass(cls: type[T], fields: Mapping[str, Any], where: str) -> T:
    """Makes a dataclass, nested ones included, of what a configuration file can hold.

    Whole numbers pass for floats, and lists for tuples; nothing else is converted.

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
        raise InputError(f"{where} must be a mapping, not {fields!r}")
    known = {field.name: field for field in dataclasses.fields(cls)}
    for name in fields:
        if name not in known:
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
        if value not in parts:
            raise InputError(f"{where}={value!r}; known: {', '.join(map(repr, parts))}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in parts:
            return None
        (only,) = [part for part in parts if part is not type(None)]
        return _typed(only, value, where)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise InputError(f"{where} must be a list, not {value!r}")
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
    if kind is float and type(value) is int:
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{where} must be {kind.__name__}, not {value!r}")
    return value
