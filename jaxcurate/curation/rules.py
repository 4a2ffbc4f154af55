"""Rules on columns, and the rows that fail them."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxcurate.checks import InputError, check_instance, short_repr

_LONGEST_LIST = 60
"""Largest number of characters of a list of values in a reason."""


@dataclass(frozen=True)
class Rule:
    """Rule on a column, which a row must satisfy to be kept.

    Numbers are compared as numbers, where True is 1, and texts character by character, so that
    dates such as ``"2024-05-31"`` are compared as dates. A column of dates is compared with dates
    that are given as such texts.

    Raises:
        InputError: the rule asks for nothing or for something that no value can satisfy, or its
            values are both numbers and texts.

    Examples:
        >>> Rule("side", min=64).tests
        ('side below 64',)
        >>> Rule("language", isin=("de", "en")).tests
        ("language not in ('de', 'en')",)
    """

    column: str
    """Name of the column."""
    min: int | float | str | None = None
    """Smallest value that is kept. None for no limit."""
    max: int | float | str | None = None
    """Largest value that is kept. None for no limit."""
    isin: tuple[int | float | str, ...] | None = None
    """Values that are kept. None for all."""
    keep_missing: bool = False
    """True to keep rows whose value is missing: null in a file, and None, NaN or NaT in an array.
    By default they are dropped, since they satisfy no rule. An empty text is not missing."""

    def __post_init__(self) -> None:
        if not self.column:
            raise InputError("column='' must be the name of a column")
        if isinstance(self.isin, list):
            object.__setattr__(self, "isin", tuple(self.isin))
        if self.isin is not None:
            check_instance("isin", self.isin, tuple, "such as ('de', 'en')")
        bounds = {name: getattr(self, name) for name in ("min", "max")}
        values = {name: value for name, value in bounds.items() if value is not None}
        values |= {f"isin[{i}]": value for i, value in enumerate(self.isin or ())}
        if not values:
            least = "isin=() keeps no row" if self.isin == () else "min, max or isin is needed"
            raise InputError(f"rule on {self.column!r}: {least}")
        for name, value in values.items():
            if not isinstance(value, str | int | float | np.number) or value != value:
                shown = f"{name}={short_repr(value)}"
                raise InputError(f"rule on {self.column!r}: {shown} must be a number or a text")
        if len({isinstance(value, str) for value in values.values()}) > 1:
            raise InputError(f"rule on {self.column!r} has both numbers and texts")
        if None not in (self.min, self.max) and self.min > self.max:  # type: ignore[operator]
            raise InputError(
                f"rule on {self.column!r}: min={self.min!r} is above max={self.max!r}, so that no "
                "row would be kept"
            )

    @property
    def is_text(self) -> bool:
        """True if the values of the rule are texts."""
        values = self.min, self.max, *(self.isin or ())
        return any(isinstance(value, str) for value in values)

    @property
    def tests(self) -> tuple[str, ...]:
        """Reasons for which the rule can drop a row, in the order in which they are tested."""
        tests = []
        if self.min is not None:
            tests.append(f"{self.column} below {self.min}")
        if self.max is not None:
            tests.append(f"{self.column} above {self.max}")
        if self.isin is not None:
            known = str(self.isin)
            known = known if len(known) <= _LONGEST_LIST else f"a list of {len(self.isin)}"
            tests.append(f"{self.column} not in {known}")
        return tuple(tests)

    @property
    def missing(self) -> str:
        """Reason of a row that is dropped because its value is missing."""
        return f"{self.column} missing"


class Column(NamedTuple):
    """Column in a form that can be compared with the values of a rule."""

    values: np.ndarray
    """Numbers, bools, unicode or datetime64 ``[n]``, with some value in place of a missing one."""
    missing: np.ndarray
    """bool ``[n]``: True for missing values."""


def prepared(columns: Mapping[str, np.ndarray], rule: Rule) -> Column:
    """Returns the column of a rule.

    Raises:
        InputError: there is no such column, or its values cannot be compared with the rule's.

    Examples:
        >>> columns = {"word": np.array(["a", None], object)}
        >>> prepared(columns, Rule("word", min="a")).missing
        array([False,  True])
    """
    name = rule.column
    if name not in columns:
        near = difflib.get_close_matches(name, columns, 3)
        known = f"nearest are {', '.join(near)}" if near else f"known are {', '.join(columns)}"
        raise InputError(f"rule on {name!r}: there is no such column; {known}")
    values = np.asarray(columns[name])
    if values.ndim != 1:
        raise InputError(f"column {name!r} has shape {values.shape}, not a value for each row")
    if values.dtype.kind in "OT":
        column = _from_objects(values.astype(object), name)
    else:
        column = Column(values, values != values)  # NaN and NaT alone differ from themselves
    if column.missing.all():
        return column  # without a value there is nothing to compare
    if (kind := column.values.dtype.kind) not in "biufUM":
        raise InputError(f"column {name!r} is of type {values.dtype}, which no rule can compare")
    if (kind in "UM") != rule.is_text:
        has, given = ("numbers", "texts") if rule.is_text else ("texts or dates", "numbers")
        raise InputError(f"rule on {name!r}: the column has {has}, but the rule has {given}")
    return column


def _from_objects(values: np.ndarray, name: str) -> Column:
    """Returns Python objects as a column of unicode or float64.

    Raises:
        InputError: the objects are not all texts or all numbers; the message names the column.
    """
    missing = np.fromiter((value is None or value != value for value in values), bool, len(values))
    present = values[~missing]
    if all(isinstance(value, str) for value in present):
        filled = np.zeros(len(values), f"U{max(1, max(map(len, present), default=1))}")
    elif all(isinstance(value, int | float | np.number | np.bool_) for value in present):
        filled = np.zeros(len(values), np.float64)
    else:
        kinds = sorted({type(value).__name__ for value in present})
        raise InputError(
            f"column {name!r} must have numbers or texts alone, not {', '.join(kinds)}"
        )
    filled[~missing] = present
    return Column(filled, missing)


def failures(rule: Rule, column: Column) -> list[tuple[str, np.ndarray]]:
    """Returns each reason of a rule with the rows, bool ``[n]``, that fail its test.

    Args:
        rule: the rule.
        column: the result of :func:`prepared` for it.

    Raises:
        InputError: the column has dates, but the rule has a text that is no date.

    Examples:
        >>> rule = Rule("side", min=64)
        >>> failures(rule, prepared({"side": np.array([32.0, 200, np.nan])}, rule))[0]
        ('side below 64', array([ True, False, False]))
    """
    values, missing = column
    failed = [np.zeros(len(values), bool)] * len(rule.tests)
    if not missing.all():
        failed = [test & ~missing for test in _tests(rule, values)]
    results = [*zip(rule.tests, failed, strict=True)]
    return results if rule.keep_missing else [*results, (rule.missing, missing)]


def _tests(rule: Rule, values: np.ndarray) -> list[np.ndarray]:
    """Returns for each test of a rule whether a value fails it, bool ``[n]``."""
    tests = []
    # A limit beyond float16 or float32 becomes infinite, which compares as it should.
    with np.errstate(over="ignore"):
        if rule.min is not None:
            tests.append(values < _comparable(rule, rule.min, values))
        if rule.max is not None:
            tests.append(values > _comparable(rule, rule.max, values))
        if rule.isin is not None:
            known = np.asarray([_comparable(rule, value, values) for value in rule.isin])
            # 0.1 in float32 is not 0.1 in float64, but is meant.
            known = known.astype(values.dtype) if values.dtype.kind == "f" else known
            tests.append(~np.isin(values, known))
    return tests


def _comparable(rule: Rule, value: Any, values: np.ndarray) -> Any:
    """Returns a value of a rule in the type of a column: a date if the column has dates."""
    if values.dtype.kind != "M":
        return value
    try:
        return np.datetime64(value)
    except ValueError as error:
        raise InputError(
            f"rule on {rule.column!r}: {value!r} is no date, such as '2024-05-31'"
        ) from error
