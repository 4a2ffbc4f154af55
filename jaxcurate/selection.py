"""A list of valid rows: distinct numbers of rows that exist, sorted."""

import numpy as np


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
        raise ValueError(f"{name} must be whole numbers [m], not {rows.dtype} {rows.shape}")
    rows = np.sort(rows).astype(np.int64)
    if len(rows) and not 0 <= rows[0] <= rows[-1] < n:
        wrong = rows[0] if rows[0] < 0 else rows[-1]
        raise ValueError(f"{name} names row {wrong}, but there are rows 0 to {n - 1}")
    twice = np.flatnonzero(rows[1:] == rows[:-1])
    if len(twice):
        raise ValueError(f"{name} must be distinct, but {rows[twice[0]]} is there twice")
    return rows
