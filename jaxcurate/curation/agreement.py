"""Agreement of detected duplicates with a comparison of every row with every other row."""

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array

from jaxcurate.curation.dedup import content_digests, first_of_same, unit_rows
from jaxcurate.curation.duplicates import Duplicates


class Agreement(NamedTuple):
    """Agreement of detected duplicates with a comparison of every row with every other row."""

    recall: float
    """Fraction of the duplicate pairs that the search found."""
    precision: float
    """Fraction of the found pairs that are duplicates."""
    purity: float
    """Fraction of all pairs of rows with the same representative that are duplicates."""
    covered: float
    """Fraction of the dropped rows of which a kept row is a duplicate. Below 1 if rows are dropped
    because a chain of other rows connects them to one that stays."""
    n_alike: int
    """Number of duplicate pairs."""


def agreement(
    duplicates: Duplicates, x: np.ndarray, threshold: float, queries: np.ndarray | None = None
) -> Agreement:
    """Compares detected duplicates with brute force over every pair of a query and a row.

    Args:
        duplicates: result of :func:`deduplicate`.
        x: rows ``[n, d]``.
        threshold: cosine similarity at or above which two rows are duplicates. Rows of equal
            content are duplicates in any case.
        queries: rows that are compared with all others. All by default, which takes ``n x n``
            products, a few at a time. Each pair is then counted twice.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.curation import agreement, deduplicate
        >>> x = np.array([[1.0, 0], [0, 1], [1, 0], [0.99, 0.01]])
        >>> measured = agreement(deduplicate(x, threshold=None), x, threshold=0.95)
        >>> round(measured.recall, 2), measured.precision
        (0.33, 1.0)
    """
    n = len(x)
    group = first_of_same(content_digests(x))[1]
    queries = np.arange(n) if queries is None else queries
    points = duplicates.content if duplicates.threshold is None else duplicates.direction
    i, j = np.concatenate([duplicates.pairs, duplicates.pairs[:, ::-1]]).T
    links = coo_array((np.ones(len(i), bool), (i, j)), shape=(n, n)).tocsr()
    n_alike = n_found = n_both = n_joined = n_right = n_dropped = n_covered = 0
    with unit_rows(x, np.arange(n), None) as unit:
        wide = unit.astype(np.float64)
    is_kept = np.zeros(n, bool)
    is_kept[duplicates.kept] = True
    block = max(1, 2**24 // n)
    for begin in range(0, len(queries), block):
        rows = queries[begin : begin + block]
        cosine = (wide[rows] @ wide.T).astype(np.float32)
        alike = (cosine >= np.float32(threshold)) | (group[rows][:, None] == group[None, :])
        found = links[points[rows]].toarray()[:, points]
        found |= points[rows][:, None] == points[None, :]
        joined = duplicates.representative[rows][:, None] == duplicates.representative[None, :]
        for pairs in (alike, found, joined):
            pairs[np.arange(len(rows)), rows] = False  # no row counts as its own duplicate
        n_alike += int(alike.sum())
        n_found += int(found.sum())
        n_both += int((alike & found).sum())
        n_joined += int(joined.sum())
        n_right += int((alike & joined).sum())
        n_dropped += int((~is_kept[rows]).sum())
        n_covered += int((alike[:, is_kept].any(axis=1) & ~is_kept[rows]).sum())
    fraction = lambda part, whole: part / whole if whole else 1.0
    return Agreement(
        fraction(n_both, n_alike),
        fraction(n_both, n_found),
        fraction(n_right, n_joined),
        fraction(n_covered, n_dropped),
        n_alike,
    )
