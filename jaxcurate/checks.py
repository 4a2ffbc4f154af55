"""Refuses arguments and input that cannot be used, by their names, in one line."""

from collections.abc import Collection, Sequence
from numbers import Integral
from typing import Any

import jax.numpy as jnp
import numpy as np

LARGEST = float(np.finfo(np.float32).max)
"""Results are float32, which holds no larger number."""
_ROW_FAULTS = (
    "has a NaN or an infinity, first in row {}",
    f"has a number beyond float32 ({LARGEST:.2g}), first in row {{}}",
    "has no direction in row {}, all zeros",
)
_ROWS_SHOWN = 5
_LONGEST_NAME = 200
"""Bytes of a folder's name, of which file systems take 255."""
NO_FAULTS = np.zeros((len(_ROW_FAULTS), 1 + _ROWS_SHOWN), np.int64)
"""Counts of faults, as :func:`faults_of` returns them, of rows without any."""


class InputError(ValueError):
    """Tells in one line which input or argument cannot be used; the command exits with code 2."""


def told(value: Any) -> str:
    """Returns how an error writes a value: as Python does, or by its type where that is long."""
    text = repr(value)
    return text if len(text) <= 80 and "\n" not in text else f"<{type(value).__name__}>"


def check_whole(name: str, value: Any, least: int | None = None) -> None:
    """Refuses what is no whole number, or is below ``least``, if that is given.

    Raises:
        ValueError: naming it.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{name}={told(value)} must be a whole number")
    if least is not None and value < least:
        raise InputError(f"{name}={value} must be at least {least}")


def check_given(name: str, value: int | str | None, otherwise: str) -> None:
    """Refuses an empty text, and a number below 1: what is not given is None.

    Args:
        name: of the argument.
        value: of the argument.
        otherwise: what None does, as a verb and its object.

    Raises:
        InputError: naming it, and what to write instead.
    """
    if value == "":
        raise InputError(f"{name}='' must not be empty; None {otherwise}")
    if value is None or isinstance(value, str):
        return
    check_whole(name, value)
    if value < 1:
        raise InputError(f"{name}={value} must be at least 1; None {otherwise}")


def check_seed(seed: int) -> None:
    """Refuses a seed of which jax would take the remainder only, or what is no whole number.

    Raises:
        ValueError: naming it.
    """
    check_whole("seed", seed)
    if not 0 <= seed < 2**32:
        raise InputError(f"seed={seed} must be within [0, 2**32)")


def check_choice(name: str, value: Any, known: Collection[str]) -> None:
    """Refuses what is none of the known names.

    Raises:
        ValueError: naming it, and what is known.
    """
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{name}={told(value)}; known: {', '.join(map(repr, known))}")


def check_name(name: str) -> None:
    """Refuses a name that a folder may not have on every file system.

    Raises:
        InputError: naming it.
    """
    if not name.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"name={name!r} must be of letters, digits, '-' and '_'")
    if len(name.encode()) > _LONGEST_NAME:
        raise InputError(f"name={name!r} has more than {_LONGEST_NAME} bytes")


def check_instance(name: str, value: Any, kind: type, hint: str = "") -> None:
    """Refuses what is of another type.

    Args:
        name: of the argument.
        value: of the argument.
        kind: what it must be.
        hint: what to do instead.

    Raises:
        ValueError: naming it and its type.
    """
    if not isinstance(value, kind):
        hint = f"; {hint}" if hint else ""
        raise InputError(f"{name} must be a {kind.__name__}, not {type(value).__name__}{hint}")


def is_real(dtype: np.dtype) -> bool:
    """Tells whether a type holds integers or floats: numpy's, and bfloat16 or smaller of
    ml_dtypes."""
    return jnp.issubdtype(dtype, np.floating) or jnp.issubdtype(dtype, np.integer)


def as_real(x: Any, name: str = "x") -> np.ndarray:
    """Returns ``x`` as a numpy array of real numbers, without a copy where it is one.

    numpy stores bfloat16 in a ``.npy`` file as two bytes of unknown meaning; such an array is
    taken for what it is.

    Args:
        x: an array of numpy or jax, a memory map, or what numpy makes one of, such as nested
            lists or a data frame of numbers.
        name: what errors call it.

    Raises:
        ValueError: naming ``x`` and what it is: a sparse matrix, an array with masked entries,
            or an array of something else than real numbers.
    """
    if type(x).__module__.startswith("scipy.sparse"):
        raise InputError(f"{name} is a sparse matrix; {name}.toarray() gives the array to pass")
    if np.ma.is_masked(x):
        raise InputError(f"{name} has masked entries; fill them, or leave their rows out")
    try:
        array = np.asarray(x)
    except (TypeError, ValueError) as error:
        message = str(error).split(chr(10))[0]
        raise InputError(f"{name} is no array of numbers ({message})") from error
    if array.dtype.kind == "O" and array.ndim == 0:
        raise InputError(f"{name} must be an array of real numbers, not {type(x).__name__}")
    if array.dtype == np.dtype("V2"):
        array = array.view(jnp.bfloat16)
    if not is_real(array.dtype):
        raise InputError(f"{name} must hold real numbers, not {array.dtype}")
    return array


def checked_rows(rows: np.ndarray, n: int, name: str = "rows") -> np.ndarray:
    """Returns the same rows as int64, sorted.

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


def faults_of(
    part: np.ndarray, rows: Sequence[int] | np.ndarray, *, beyond: bool = True, zeros: bool = False
) -> np.ndarray:
    """Counts the rows that have each fault, and tells the first few of them.

    Args:
        part: real numbers ``[b, d]``.
        rows: the number of each of its rows.
        beyond: numbers that float32 cannot hold are a fault.
        zeros: so are rows that are all zeros.

    Returns:
        int64 ``[3, 6]``: for a NaN or an infinity, for numbers beyond float32, and for zeros, how
        many rows there are, then the numbers of the first.
    """
    finite = np.all(np.isfinite(part), axis=1)
    wide = np.where(finite[:, None], part, 1).astype(np.float64)
    found = NO_FAULTS.copy()
    flags = ~finite, (np.abs(wide) > LARGEST).any(axis=1) & beyond, ~wide.any(axis=1) & zeros
    for one, flagged in zip(found, flags, strict=True):
        at = np.flatnonzero(flagged)
        one[0] = len(at)
        one[1 : 1 + len(at[:_ROWS_SHOWN])] = np.asarray(rows)[at[:_ROWS_SHOWN]]
    return found


def joined(found: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Adds up what :func:`faults_of` returned for several parts, in the order of the rows."""
    out = NO_FAULTS.copy()
    for one, parts in zip(out, np.stack([NO_FAULTS, *found]).transpose(1, 0, 2), strict=True):
        first = [row for n, *rows in parts.tolist() for row in rows[:n]][:_ROWS_SHOWN]
        one[0] = parts[:, 0].sum()
        one[1 : 1 + len(first)] = first
    return out


def refuse(found: Sequence[np.ndarray] | np.ndarray, name: str, *, so_far: bool = False) -> None:
    """Refuses rows that have faults.

    Args:
        found: what :func:`faults_of` returned for each part, in the order of the rows.
        name: what the error calls the rows.
        so_far: whether there may be more rows that have not been looked at.

    Raises:
        ValueError: naming the faults, how many rows have each, and the first few of these.
    """
    lines = []
    for kind, (total, *rows) in zip(_ROW_FAULTS, joined(found).tolist(), strict=True):
        if total:
            then = ", ".join(map(str, rows[1 : min(total, _ROWS_SHOWN)]))
            more = f", then {then}: {total} rows {'so far' if so_far else 'in all'}"
            lines.append(kind.format(rows[0]) + (more if total > 1 else ""))
    if lines:
        raise InputError(f"{name} " + "; ".join(lines))
