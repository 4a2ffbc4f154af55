"""Contents that cannot be used: their error, and the search for such rows of numbers."""

import jax.numpy as jnp
import numpy as np

NOT_FINITE = "has a NaN or an infinity as float32"
NO_DIRECTION = "has no direction: all zeros"


class UnusableContent(Exception):
    """Error of a content that cannot be used; the message is the reason in a few words."""


def unusable_rows(rows: np.ndarray, *, need_direction: bool = False) -> dict[int, str]:
    """Returns the positions of rows that cannot be used, in order, each with the reason.

    Args:
        rows: ``[n, d]``. Integers, such as pictures of any shape, can always be used.
        need_direction: report rows of zeros too, which the cosine distance cannot use.

    Examples:
        >>> unusable_rows(np.array([[1.0, 2], [np.nan, 0], [0, 0]]), need_direction=True)
        {1: 'has a NaN or an infinity as float32', 2: 'has no direction: all zeros'}
    """
    if not jnp.issubdtype(rows.dtype, np.floating):  # unlike numpy's, it knows bfloat16
        return {}
    reasons = {int(row): NOT_FINITE for row in np.flatnonzero(~np.isfinite(rows).all(axis=1))}
    if need_direction:
        reasons |= {int(row): NO_DIRECTION for row in np.flatnonzero(~rows.any(axis=1))}
    return dict(sorted(reasons.items()))
