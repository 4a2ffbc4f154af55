"""Splits by groups, so that no original, copy or variant of a held-out item is in the pool."""

import hashlib
from collections.abc import Collection

import numpy as np

MIN_PER_CLASS = 8
"""Number of items of each held-out split without which a class is not held out at all."""


def group(pixels: np.ndarray, origins: np.ndarray) -> np.ndarray:
    """Groups items that are connected by equal pixels or equal origins.

    Args:
        pixels: uint8 ``[n, ...]``.
        origins: ``[n]``, comparable.

    Returns:
        int64 ``[n]``: the first row of the group of each item.

    Examples:
        Items 0 and 2 have equal pixels, items 2 and 3 the same origin:

        >>> group(np.array([[1], [2], [1], [3]], np.uint8), np.array(["a", "b", "c", "c"]))
        array([0, 1, 0, 0])
    """
    digests = np.array([hashlib.blake2b(image.tobytes(), digest_size=16).digest().hex()
                        for image in pixels])  # fmt: skip
    links = [np.unique(values, return_inverse=True)[1] for values in (digests, origins)]
    groups = np.arange(len(pixels))
    while True:
        before = groups
        for link in links:
            least = np.full(link.max() + 1, len(pixels))
            np.minimum.at(least, link, groups)
            groups = least[link]
        if np.array_equal(groups, before):
            return groups


def hold_out(
    groups: np.ndarray,
    labels: np.ndarray,
    n_probe: int,
    n_test: int,
    *,
    unclassed: Collection[str] = (),
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws a class-balanced probe set and test set, and returns the other items as candidates.

    Each set gets at most one item of a group, and up to a third of the groups of a class, but at
    least `MIN_PER_CLASS` (or the number that is asked for, if it is smaller). A class that is too
    small for this stays in the pool alone. Groups with two labels belong to no class.

    Args:
        groups: int64 ``[n]``, the first row of the group of each item.
        labels: ``[n]``, label of each item.
        n_probe: largest number of items of a class in the probe set.
        n_test: largest number of items of a class in the test set.
        unclassed: labels that are no classes.
        rng: random generator of the draws.

    Returns:
        Rows of the probe set, of the test set, and of the candidates for the pool, each sorted.
        The candidates are one item of each group that is not held out.

    Examples:
        >>> labels = np.repeat(["a", "b"], 12)
        >>> probe, test, candidates = hold_out(
        ...     np.arange(24), labels, n_probe=2, n_test=3, rng=np.random.default_rng(0)
        ... )
        >>> labels[test].tolist(), len(probe), len(candidates)
        (['a', 'a', 'a', 'b', 'b', 'b'], 4, 14)
    """
    leaders = np.unique(groups)
    mixed = np.unique(groups[labels != labels[groups]])
    eligible = np.setdiff1d(leaders, mixed)
    probe, test = [], []
    for label in np.unique(labels):
        if label in unclassed:
            continue
        rows = rng.permutation(eligible[labels[eligible] == label])
        most = max(len(rows) // 3, MIN_PER_CLASS)
        k_probe, k_test = min(n_probe, most), min(n_test, most)
        if k_probe + k_test <= len(rows):
            probe.append(rows[:k_probe])
            test.append(rows[k_probe : k_probe + k_test])
    none = [np.zeros(0, np.int64)]
    probe, test = (np.sort(np.concatenate(none + rows)) for rows in (probe, test))
    return probe, test, np.setdiff1d(leaders, np.concatenate([probe, test]))
