"""Refuses arguments and input that cannot be used, by their names, in one line."""

from numbers import Integral
from typing import Any

import numpy as np


class InputError(ValueError):
    """Tells in one line which input or argument cannot be used; the command exits with code 2."""


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuses what is no whole number, or is below ``least``.

    Raises:
        ValueError: naming it.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{name}={value!r} must be a whole number")
    if value < least:
        raise InputError(f"{name}={value} must be at least {least}")


def check_seed(seed: int) -> None:
    """Refuses a seed of which jax would take the remainder only.

    Raises:
        ValueError: naming it.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"seed={seed} must be within [0, 2**32)")


def checked_rows(rows: np.ndarray, n: int, name: str = "rows") -> np.ndarray:
    """The same rows as int64, sorted.

    Args:
        rows: integers ``[m]``, in any order.
        n: how many rows there are.
        name: what errors call them.

    Raises:
        ValueError: they are not whole numbers, out of range, or not distinct.
    """
    rows = np.asarray(rows)
    if rows.ndim != 1 or not (np.issubdtype(rows.dtype, np.integer) or rows.size == 0):
        raise InputError(f"{name} must be whole numbers [m], not {rows.dtype} {rows.shape}")
    rows = np.sort(rows).astype(np.int64)
    if len(rows) and not 0 <= rows[0] <= rows[-1] < n:
        wrong = rows[0] if rows[0] < 0 else rows[-1]
        raise InputError(f"{name} names row {wrong}, but there are rows 0 to {n - 1}")
    twice = np.flatnonzero(rows[1:] == rows[:-1])
    if len(twice):
        raise InputError(f"{name} must be distinct, but {rows[twice[0]]} is there twice")
    return rows
