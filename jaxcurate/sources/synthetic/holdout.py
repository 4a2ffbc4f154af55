"""Splits by group: no original, copy or variant of a held-out item stays in the pool."""

import hashlib
from collections.abc import Collection

import numpy as np

MIN_PER_CLASS = 8
"""A class that cannot give so many items to each held-out split is not held out at all."""


def group(pixels: np.ndarray, origins: np.ndarray) -> np.ndarray:
    """Joins items that have the same pixels or the same origin, and whatever these join.

    Args:
        pixels: uint8 ``[n, ...]``.
        origins: ``[n]``, comparable.

    Returns:
        int64 ``[n]``: the first row of each item's group.
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
    """Draws a class-balanced probe and test set, one item a group, and what is left of the rest.

    A class gives each set up to a third of its groups, and in any case `MIN_PER_CLASS` (or as
    many as were asked for, if fewer); a class too small for that is left in the pool alone.
    Groups with two labels belong to no class.

    Args:
        groups: int64 ``[n]``, the first row of each item's group.
        labels: ``[n]``.
        n_probe: items per class of the probe set, at most.
        n_test: items per class of the test set, at most.
        unclassed: labels that name no class.
        rng: for the draws.

    Returns:
        Rows of the probe set, of the test set, and of the candidates for the pool (one a group,
        no group held out); each sorted.
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
