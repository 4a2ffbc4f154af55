"""Fields of nested dataclasses: set from plain mappings, results by name, explained in words."""

import ast
import dataclasses
import difflib
import functools
import inspect
import itertools
import math
import re
import textwrap
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from jaxcurate.checks import InputError, short_repr

T = TypeVar("T")
_LONGEST = 4096
"""Largest number of characters in a text: as many as a path may have."""


def to_dataclass(cls: type[T], fields: Mapping[str, Any], where: str) -> T:
    """Returns a dataclass, with the dataclasses in it, made from plain values.

    Whole numbers are accepted for floats and lists for tuples; no other value is converted.
    Numbers must be finite and of at most 64 bits, and a text must be a single line, since sizes of
    arrays, paths and headings must be so.

    Args:
        cls: Dataclass whose fields are annotated with plain types, tuples, unions, literals or
            dataclasses.
        fields: Values by the names of the fields.
        where: Name of the mapping in errors.

    Raises:
        InputError: A field is unknown, missing, of the wrong type, or refused by the dataclass;
            the message names it.

    Examples:
        >>> from jaxcurate.curation.level import Level
        >>> from jaxcurate.dataclass_fields import to_dataclass
        >>> to_dataclass(Level, {"n_clusters": 20}, "level").n_clusters
        20
        >>> to_dataclass(Level, {"n_clusters": "20"}, "level")
        Traceback (most recent call last):
        jaxcurate.checks.InputError: level.n_clusters must be int, not '20'
    """
    if hasattr(fields, "to_dict"):  # ml_collections leaves a ConfigDict within a tuple as it is
        fields = getattr(fields, "to_dict")()  # noqa: B009  a mapping for the checker
    if not isinstance(fields, Mapping):
        raise InputError(f"{where} must be a mapping, not {short_repr(fields)}")
    known = {field.name: field for field in dataclasses.fields(typing.cast(Any, cls))}
    for name in fields:
        if name not in known:
            name = name if isinstance(name, str) else short_repr(name)
            raise InputError(unknown(cls, name, where))
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


def unknown(cls: type, name: str, where: str) -> str:
    """Returns an error message for an unknown field, with the field that may have been meant.

    Args:
        cls: Dataclass. Its ``OLD_FIELDS``, if it has any, map fields of older releases to the
            fields to write instead.
        name: Name that is not a field.
        where: Name of the dataclass in the message.

    Examples:
        >>> from jaxcurate.curation.level import Level
        >>> from jaxcurate.dataclass_fields import unknown
        >>> unknown(Level, "n_cluster", "level").split("?")[0]
        'level.n_cluster is unknown; did you mean n_clusters'
    """
    old = getattr(cls, "OLD_FIELDS", {})
    if name in old:
        return f"{where}.{name} is of an older release: write {where}.{old[name]}"
    known = [field.name for field in dataclasses.fields(cls)]
    near = difflib.get_close_matches(name, known, 1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"{where}.{name} is unknown{meant or ';'} known are {', '.join(known)}"


def dataclasses_in(cls: type) -> dict[str, type]:
    """Returns a dataclass and all dataclasses in its fields, by the names of their classes.

    Examples:
        >>> from jaxcurate.curation.level import Level
        >>> from jaxcurate.dataclass_fields import dataclasses_in
        >>> list(dataclasses_in(Level))
        ['Level']
    """
    classes = {cls.__name__: cls}
    for kind in typing.get_type_hints(cls).values():
        inner = _without_none(kind)
        for part in (inner, *typing.get_args(inner)):
            if isinstance(part, type) and dataclasses.is_dataclass(part):
                classes |= dataclasses_in(part)
    return classes


def kind_of(cls: type, path: str, where: str) -> Any:
    """Returns the type of the field at a path such as ``cluster.levels[0].n_fit``.

    Args:
        cls: Dataclass in which the path begins.
        path: Names of fields, and numbers in brackets.
        where: Name of the dataclass in errors.

    Raises:
        InputError: There is no such field; the message names the nearest one.

    Examples:
        >>> from jaxcurate.curation.level import Level
        >>> from jaxcurate.dataclass_fields import kind_of
        >>> kind_of(Level, "n_clusters", "level")
        <class 'int'>
    """
    kind: Any = cls
    for step in re.findall(r"[^.\[\]]+", path):
        kind = _without_none(kind)
        if dataclasses.is_dataclass(kind):
            if step not in {field.name for field in dataclasses.fields(kind)}:
                raise InputError(unknown(typing.cast(type, kind), step, where))
            kind, where = typing.get_type_hints(kind)[step], f"{where}.{step}"
        elif typing.get_origin(kind) is tuple and step.isdigit():
            kind, where = typing.get_args(kind)[0], f"{where}[{step}]"
        else:
            raise InputError(f"{where} has no field {step}")
    return kind


def may_be_none(kind: Any) -> bool:
    """Returns whether a field of this type may be None.

    Examples:
        >>> from jaxcurate.dataclass_fields import may_be_none
        >>> may_be_none(int | None), may_be_none(int)
        (True, False)
    """
    return type(None) in typing.get_args(kind)


def placeholders(value: Any) -> Any:
    """Returns a dataclass as nested dicts, with a typed placeholder in place of each None.

    ml_collections then accepts a value of this type from the command line.
    """
    from ml_collections import config_dict

    if isinstance(value, tuple):
        return tuple(
            config_dict.ConfigDict(plain) if isinstance(plain, dict) else plain
            for plain in map(placeholders, value)
        )
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    plain, kinds = {}, typing.get_type_hints(type(value))
    for field in dataclasses.fields(value):
        inner, kind = getattr(value, field.name), _without_none(kinds[field.name])
        if typing.get_origin(kind) is typing.Literal:
            kind = str
        elif dataclasses.is_dataclass(kind):
            kind = config_dict.ConfigDict
        fits = inner is None and kind in (int, float, str, config_dict.ConfigDict)
        plain[field.name] = config_dict.placeholder(kind) if fits else placeholders(inner)
    return plain


class Field(typing.NamedTuple):
    """Field that a user may set, in words."""

    path: str
    """Names of the enclosing fields and of the field, such as ``cluster.max_iter``."""
    kind: str
    """Type in words, or the names that it may have."""
    default: str
    """Default as Python writes it; empty if there is none."""
    meaning: str
    """Docstring of the field."""


def explained(cls: type, within: str = "") -> list[Field]:
    """Returns the fields of a dataclass and of the dataclasses in it, with their docstrings.

    A field whose values are the keys of a table has the table as ``metadata={"known": table}``.

    Args:
        cls: Dataclass.
        within: Path of the dataclass, with a dot at its end, put before the names.

    Examples:
        >>> from jaxcurate.curation.level import Level
        >>> from jaxcurate.dataclass_fields import explained
        >>> explained(Level)[0].path
        'n_clusters'
    """
    results, kinds, meanings = [], typing.get_type_hints(cls), _meanings(cls)
    for field in dataclasses.fields(cls):
        kind, path = kinds[field.name], f"{within}{field.name}"
        inner = _without_none(kind)
        parts = typing.get_args(inner) if typing.get_origin(inner) is tuple else ()
        if parts and dataclasses.is_dataclass(parts[0]):
            results += explained(typing.cast(type, parts[0]), f"{path}[0].")
        elif dataclasses.is_dataclass(inner):
            results += explained(typing.cast(type, inner), f"{path}.")
        else:
            has = field.default is not dataclasses.MISSING
            default = repr(field.default) if has else ""
            words = _in_words(kind, field.metadata.get("known", ()))
            results.append(Field(path, words, default, meanings.get(field.name, "")))
    return results


@functools.cache
def _meanings(cls: type) -> dict[str, str]:
    """Returns the attribute docstrings of a dataclass, inherited ones too, each as one line."""
    results = {}
    for base in cls.__bases__:
        if dataclasses.is_dataclass(base):
            results |= _meanings(base)
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(tree, ast.ClassDef)
    for before, after in itertools.pairwise(tree.body):
        if (
            isinstance(before, ast.AnnAssign)
            and isinstance(before.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            results[before.target.id] = " ".join(str(after.value.value).split())
    return results


def _without_none(kind: Any) -> Any:
    """Returns a type without its alternative None."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(kind) if part is not type(None)]
        return typing.Union[tuple(parts)]  # noqa: UP007  a single type stays as it is
    return kind


def _in_words(kind: Any, known: Collection[str] = ()) -> str:
    """Returns a type in words.

    Args:
        kind: Annotated type of a field.
        known: Names that the field may have; empty if it may have any.
    """
    if may_be_none(kind):
        return f"{_in_words(_without_none(kind), known)} or None"
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(map(str, typing.get_args(kind)))
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(map(_in_words, typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        first, *rest = typing.get_args(kind)
        rest = ["..."] if rest == [Ellipsis] else [_in_words(part) for part in rest]
        return f"({', '.join([_in_words(first, known), *rest])})"
    return " or ".join(known) or getattr(kind, "__name__", str(kind))


def _typed(kind: Any, value: Any, where: str) -> Any:
    """Returns ``value`` as the annotated type ``kind``, or refuses it."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        if not any(type(value) is type(part) and value == part for part in parts):
            raise InputError(f"{where}={short_repr(value)}; known: {', '.join(map(repr, parts))}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in parts:
            return None
        if isinstance(value, str) and not value:
            raise InputError(f"{where}='' must not be empty; {where}=None leaves it out")
        *others, last = [part for part in parts if part is not type(None)]
        for part in others:  # the first type that takes the value, so that 1 stays whole
            if type(value) is part:
                return _typed(part, value, where)
        if others and not isinstance(value, int | float if last is float else last):
            names = ", ".join(part.__name__ for part in (*others, last))
            raise InputError(f"{where} must be one of {names}, not {short_repr(value)}")
        return _typed(last, value, where)
    if origin is tuple:
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise InputError(f"{where} must be a list, not {short_repr(value)}")
        if parts[-1] is Ellipsis:
            parts = (parts[0],) * len(value)
        if len(parts) != len(value):
            raise InputError(f"{where} must have {len(parts)} entries, not {len(value)}")
        return tuple(
            _typed(part, entry, f"{where}[{i}]")
            for i, (part, entry) in enumerate(zip(parts, value, strict=True))
        )
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else to_dataclass(kind, value, where)
    return _checked(kind, value, where)


def _checked(kind: type, value: Any, where: str) -> Any:
    """Returns ``value`` as a number, a text or a bool, or refuses it."""
    if not isinstance(value, (int, float) if kind is float else kind) or (
        isinstance(value, bool) and kind is not bool
    ):
        raise InputError(f"{where} must be {kind.__name__}, not {short_repr(value)}")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InputError(f"{where} must be within 64 bits, not {short_repr(value)}")
    if kind is float and not math.isfinite(value):
        raise InputError(f"{where}={value} must be finite")
    if isinstance(value, str) and len(value) > _LONGEST:
        raise InputError(f"{where} has {len(value)} characters, at most {_LONGEST}")
    if isinstance(value, str) and any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
        raise InputError(f"{where}={short_repr(value)} must be one line without control characters")
    return float(value) if kind is float else value
