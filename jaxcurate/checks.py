"""Checks of arguments and input, which are refused by name in an error of one line."""

from collections.abc import Collection, Sequence
from numbers import Integral
from typing import Any

import jax.numpy as jnp
import numpy as np

LARGEST = float(np.finfo(np.float32).max)
"""Largest number that float32, the type of all results, can hold."""
_ROW_FAULTS = (
    "has a NaN or an infinity, first in row {}",
    f"has a number beyond float32 ({LARGEST:.2g}), first in row {{}}",
    "has no direction in row {}, all zeros",
)
_ROWS_SHOWN = 5
_LONGEST_NAME = 200
"""Largest number of bytes in a folder's name; file systems allow 255."""
NO_FAULTS = np.zeros((len(_ROW_FAULTS), 1 + _ROWS_SHOWN), np.int64)
"""Result of :func:`faults_of` for rows without faults."""


class InputError(ValueError):
    """Error that names, in one line, an argument or input that cannot be used.

    The command line prints the line and exits with code 2.

    Examples:
        >>> import jaxcurate as jc
        >>> jc.allocate([3, 4], -1)
        Traceback (most recent call last):
        jaxcurate.checks.InputError: size=-1 must be at least 0
    """


def short_repr(value: Any) -> str:
    """Returns the ``repr`` of a value, or its type if the ``repr`` is long or has several lines.

    Examples:
        >>> from jaxcurate.checks import short_repr
        >>> short_repr("euclid"), short_repr(list(range(1000)))
        ("'euclid'", '<list>')
    """
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write numbers of thousands of digits
        text = ""
    return text if 0 < len(text) <= 80 and "\n" not in text else f"<{type(value).__name__}>"


def check_whole(name: str, value: Any, least: int | None = None) -> None:
    """Refuses a value that is not a whole number, or is less than ``least``.

    Args:
        name: Name of the argument.
        value: Value of the argument.
        least: Smallest value allowed; None for no limit.

    Raises:
        InputError: The value cannot be used; the message names the argument.

    Examples:
        >>> from jaxcurate.checks import check_whole
        >>> check_whole("n_clusters", 0, least=1)
        Traceback (most recent call last):
        jaxcurate.checks.InputError: n_clusters=0 must be at least 1
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{name}={short_repr(value)} must be a whole number")
    if least is not None and value < least:
        raise InputError(f"{name}={value} must be at least {least}")


def check_given(name: str, value: int | str | None, otherwise: str) -> None:
    """Refuses an empty text and a number below 1; None stands for a value that is not given.

    Args:
        name: Name of the argument.
        value: Value of the argument.
        otherwise: Effect of None, as a verb and its object, for the message.

    Raises:
        InputError: The value cannot be used; the message tells the effect of None.

    Examples:
        >>> from jaxcurate.checks import check_given
        >>> check_given("max_rows", 0, "takes all rows")
        Traceback (most recent call last):
        jaxcurate.checks.InputError: max_rows=0 must be at least 1; None takes all rows
    """
    if value == "":
        raise InputError(f"{name}='' must not be empty; None {otherwise}")
    if value is None or isinstance(value, str):
        return
    check_whole(name, value)
    if value < 1:
        raise InputError(f"{name}={value} must be at least 1; None {otherwise}")


def check_seed(seed: int) -> None:
    """Refuses a seed that is not a whole number within [0, 2**32).

    Of a larger seed jax would use the low 32 bits only.

    Raises:
        InputError: The seed cannot be used.

    Examples:
        >>> from jaxcurate.checks import check_seed
        >>> check_seed(-1)
        Traceback (most recent call last):
        jaxcurate.checks.InputError: seed=-1 must be within [0, 2**32)
    """
    check_whole("seed", seed)
    if not 0 <= seed < 2**32:
        raise InputError(f"seed={seed} must be within [0, 2**32)")


def check_choice(name: str, value: Any, known: Collection[str]) -> None:
    """Refuses a value that is not among the known names.

    Args:
        name: Name of the argument.
        value: Value of the argument.
        known: Names that it may have.

    Raises:
        InputError: The value is not known; the message lists the known names.

    Examples:
        >>> from jaxcurate.checks import check_choice
        >>> check_choice("metric", "dot", ["euclidean", "cosine"])
        Traceback (most recent call last):
        jaxcurate.checks.InputError: metric='dot'; known: 'euclidean', 'cosine'
    """
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{name}={short_repr(value)}; known: {', '.join(map(repr, known))}")


def check_name(name: str) -> None:
    """Refuses a name that a folder cannot have on every file system.

    Raises:
        InputError: The name has other characters than letters, digits, '-' and '_', or is too long.

    Examples:
        >>> from jaxcurate.checks import check_name
        >>> check_name("../a")
        Traceback (most recent call last):
        jaxcurate.checks.InputError: name='../a' must be of letters, digits, '-' and '_'
    """
    if not name.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"name={name!r} must be of letters, digits, '-' and '_'")
    if len(name.encode()) > _LONGEST_NAME:
        raise InputError(f"name={name!r} has more than {_LONGEST_NAME} bytes")


def check_instance(name: str, value: Any, kind: type, hint: str = "") -> None:
    """Refuses a value of another type.

    Args:
        name: Name of the argument.
        value: Value of the argument.
        kind: Type that the value must have.
        hint: Advice on a value to pass instead, for the message.

    Raises:
        InputError: The value has another type; the message names both.

    Examples:
        >>> from jaxcurate.checks import check_instance
        >>> check_instance("pool", [1, 2], dict)
        Traceback (most recent call last):
        jaxcurate.checks.InputError: pool must be a dict, not list
    """
    if not isinstance(value, kind):
        hint = f"; {hint}" if hint else ""
        raise InputError(f"{name} must be a {kind.__name__}, not {type(value).__name__}{hint}")


def is_real(dtype: np.dtype) -> bool:
    """Returns whether a type is one of integers or floats, of numpy or of ml_dtypes.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.checks import is_real
        >>> is_real(np.dtype(np.int8)), is_real(np.dtype(bool)), is_real(np.dtype("U3"))
        (True, False, False)
    """
    return jnp.issubdtype(dtype, np.floating) or jnp.issubdtype(dtype, np.integer)


def as_real(x: Any, name: str = "x") -> np.ndarray:
    """Returns ``x`` as a numpy array of real numbers, without a copy if it is one already.

    numpy writes bfloat16 to a ``.npy`` file as items of two bytes without a type; an array of
    such items is read as bfloat16.

    Args:
        x: Array of numpy or jax, a memory map, or an object that numpy makes an array of, such as
            nested lists or a data frame of numbers.
        name: Name of ``x`` in errors.

    Raises:
        InputError: ``x`` is a sparse matrix, has masked entries, or does not hold real numbers.

    Examples:
        >>> from jaxcurate.checks import as_real
        >>> as_real([[0, 1], [2, 3]]).shape
        (2, 2)
        >>> as_real(["a", "b"], "embeddings")
        Traceback (most recent call last):
        jaxcurate.checks.InputError: embeddings must hold real numbers, not <U1
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
    """Returns row numbers as int64, sorted.

    Args:
        rows: Distinct integers ``[m]`` within [0, n), in any order.
        n: Number of rows that there are.
        name: Name of ``rows`` in errors.

    Raises:
        InputError: The rows are not whole numbers, out of range, or not distinct.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.checks import checked_rows
        >>> checked_rows(np.array([4, 0, 2]), n=5)
        array([0, 2, 4])
        >>> checked_rows(np.array([4, 5]), n=5)
        Traceback (most recent call last):
        jaxcurate.checks.InputError: rows names row 5, but there are rows 0 to 4
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
    block: np.ndarray, rows: Sequence[int] | np.ndarray, *, beyond: bool = True, zeros: bool = False
) -> np.ndarray:
    """Counts the rows that have each kind of fault, and returns the numbers of the first ones.

    Args:
        block: Rows, real numbers ``[b, d]``.
        rows: Row number of each row of the block.
        beyond: If True, numbers that float32 cannot hold are a fault.
        zeros: If True, rows that are all zeros are a fault.

    Returns:
        int64 ``[3, 6]``: a line each for a NaN or an infinity, numbers beyond float32, and zeros,
        with the number of rows that have the fault and the first five of their row numbers.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.checks import faults_of
        >>> faults_of(np.array([[1, 2], [np.nan, 0], [0, np.inf]]), rows=[10, 11, 12])[0].tolist()
        [2, 11, 12, 0, 0, 0]
    """
    finite = np.all(np.isfinite(block), axis=1)
    wide = np.where(finite[:, None], block, 1).astype(np.float64)
    faults = NO_FAULTS.copy()
    flags = ~finite, (np.abs(wide) > LARGEST).any(axis=1) & beyond, ~wide.any(axis=1) & zeros
    for line, flagged in zip(faults, flags, strict=True):
        faulty = np.flatnonzero(flagged)
        line[0] = len(faulty)
        line[1 : 1 + len(faulty[:_ROWS_SHOWN])] = np.asarray(rows)[faulty[:_ROWS_SHOWN]]
    return faults


def joined(faults: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Returns the sum of results of :func:`faults_of`, given in the order of their rows.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.checks import faults_of, joined
        >>> faulty = np.array([[1.0, np.nan]])
        >>> joined([faults_of(faulty, [3]), faults_of(faulty, [8])])[0].tolist()
        [2, 3, 8, 0, 0, 0]
    """
    total = NO_FAULTS.copy()
    for line, blocks in zip(total, np.stack([NO_FAULTS, *faults]).transpose(1, 0, 2), strict=True):
        first = [row for n, *rows in blocks.tolist() for row in rows[:n]][:_ROWS_SHOWN]
        line[0] = blocks[:, 0].sum()
        line[1 : 1 + len(first)] = first
    return total


def refuse(faults: Sequence[np.ndarray] | np.ndarray, name: str, *, so_far: bool = False) -> None:
    """Refuses rows that have faults.

    Args:
        faults: Results of :func:`faults_of` for blocks of rows, in the order of the rows.
        name: Name of the rows in the error.
        so_far: True if rows may follow that have not been checked.

    Raises:
        InputError: Rows have faults; the message counts them and names the first rows.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.checks import faults_of, refuse
        >>> refuse([faults_of(np.array([[0, np.nan]]), [3])], "x")
        Traceback (most recent call last):
        jaxcurate.checks.InputError: x has a NaN or an infinity, first in row 3
    """
    lines = []
    for kind, (total, *rows) in zip(_ROW_FAULTS, joined(faults).tolist(), strict=True):
        if total:
            then = ", ".join(map(str, rows[1 : min(total, _ROWS_SHOWN)]))
            more = f", then {then}: {total} rows {'so far' if so_far else 'in all'}"
            lines.append(kind.format(rows[0]) + (more if total > 1 else ""))
    if lines:
        raise InputError(f"{name} " + "; ".join(lines))
