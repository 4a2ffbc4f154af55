"""Groups of items of similar length, so that few lengths are compiled and little is padded."""

from collections.abc import Iterator

import numpy as np

from jaxcurate.checks import InputError, check_whole

SHORTEST = 32
"""Smallest length that items are padded to."""


def bucket_lengths(at_most: int) -> tuple[int, ...]:
    """Returns the lengths that items are padded to: 32, 64, 128 and so on, and ``at_most``.

    Args:
        at_most: largest length of an item.

    Raises:
        InputError: ``at_most`` is not a whole number of at least 1.

    Examples:
        >>> bucket_lengths(256), bucket_lengths(100), bucket_lengths(20)
        ((32, 64, 128, 256), (32, 64, 100), (20,))
    """
    check_whole("at_most", at_most, least=1)
    lengths = []
    length = SHORTEST
    while length < at_most:
        lengths.append(length)
        length *= 2
    return (*lengths, int(at_most))


def bucketed(lengths: np.ndarray, at_most: int) -> Iterator[tuple[np.ndarray, int]]:
    """Groups items by the length that they are padded to.

    Args:
        lengths: lengths of the items, int ``[b]``, each within [0, at_most].
        at_most: largest length of an item, which :func:`bucket_lengths` takes.

    Yields:
        The positions of the items in a group, int64 ``[m]`` in ascending order, and the length
        that the group is padded to, by ascending length. Each item is in one group, and no group
        is empty.

    Raises:
        InputError: an item is longer than ``at_most``, or lengths are negative or no whole numbers.

    Examples:
        >>> for positions, length in bucketed(np.array([40, 7, 32, 100]), at_most=128):
        ...     print(positions, length)
        [1 2] 32
        [0] 64
        [3] 128
    """
    limits = np.array(bucket_lengths(at_most))
    lengths = np.asarray(lengths)
    if lengths.ndim != 1 or not (np.issubdtype(lengths.dtype, np.integer) or lengths.size == 0):
        raise InputError(f"lengths must be whole numbers [b], not {lengths.dtype} {lengths.shape}")
    wrong = np.flatnonzero((lengths < 0) | (lengths > at_most))
    if len(wrong):
        raise InputError(f"lengths[{wrong[0]}]={lengths[wrong[0]]} must be within [0, {at_most}]")
    group = np.searchsorted(limits, lengths)  # the first limit that is not less than the length
    for i in np.unique(group):
        yield np.flatnonzero(group == i), int(limits[i])
