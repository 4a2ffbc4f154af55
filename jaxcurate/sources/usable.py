"""Tells which rows of numbers can be used, and why the others cannot."""

import numpy as np

NOT_FINITE = "has a NaN or an infinity as float32"
NO_DIRECTION = "has no direction: all zeros"


def why_not(rows: np.ndarray, *, need_direction: bool = False) -> dict[int, str]:
    """Returns the positions of rows that cannot be used, in order, each with the reason.

    Args:
        rows: ``[n, d]``; integers, such as pictures of any shape, can always be used.
        need_direction: whether a row of zeros is of no use, as it is by cosine.
    """
    if not np.issubdtype(rows.dtype, np.floating):
        return {}
    reasons = {int(row): NOT_FINITE for row in np.flatnonzero(~np.isfinite(rows).all(axis=1))}
    if need_direction:
        reasons |= {int(row): NO_DIRECTION for row in np.flatnonzero(~rows.any(axis=1))}
    return dict(sorted(reasons.items()))
