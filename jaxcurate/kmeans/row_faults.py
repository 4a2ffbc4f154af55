"""Finds the rows that cannot be computed with, and refuses all of them in one line."""

from collections.abc import Sequence

import numpy as np

from jaxcurate.checks import LARGEST, InputError

_KINDS = (
    "has a NaN or an infinity, first in row {}",
    f"has a number beyond float32 ({LARGEST:.2g}), first in row {{}}",
    "has no direction in row {}, all zeros",
)
_SHOWN = 5
NO_FAULTS = np.zeros((len(_KINDS), 1 + _SHOWN), np.int64)
"""What :func:`faults_of` returns where no row has any."""


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
    finite = np.isfinite(part).all(axis=1)
    wide = np.where(finite[:, None], part, 1).astype(np.float64)
    found = NO_FAULTS.copy()
    flags = ~finite, (np.abs(wide) > LARGEST).any(axis=1) & beyond, ~wide.any(axis=1) & zeros
    for one, flagged in zip(found, flags, strict=True):
        at = np.flatnonzero(flagged)
        one[0] = len(at)
        one[1 : 1 + len(at[:_SHOWN])] = np.asarray(rows)[at[:_SHOWN]]
    return found


def joined(found: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Adds up what :func:`faults_of` returned for several parts, in the order of the rows."""
    out = NO_FAULTS.copy()
    for one, parts in zip(out, np.stack([NO_FAULTS, *found]).transpose(1, 0, 2), strict=True):
        first = [row for n, *rows in parts.tolist() for row in rows[:n]][:_SHOWN]
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
    for kind, (total, *rows) in zip(_KINDS, joined(found).tolist(), strict=True):
        if total:
            then = ", ".join(map(str, rows[1 : min(total, _SHOWN)]))
            more = f", then {then}: {total} rows {'so far' if so_far else 'in all'}"
            lines.append(kind.format(rows[0]) + (more if total > 1 else ""))
    if lines:
        raise InputError(f"{name} " + "; ".join(lines))
