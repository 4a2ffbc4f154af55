"""Balanced sampling: a size is split top-down over a tree, evenly at every node."""

import warnings
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from jaxcurate.artifacts.tree import ClusterTree, check_tree
from jaxcurate.checks import InputError, check_choice, check_whole, checked_rows
from jaxcurate.stateless_random import keys_of, priorities, short_priorities

Strategy = Literal["random", "closest"]
_BLOCK = 1 << 15
_LAST = np.uint32(2**32 - 1)
_MARGIN = 4
"""Margin on the square root of a binomial count, whose standard deviation is at most one half."""


class ShortfallWarning(UserWarning):
    """Warning that the pool has fewer items than were asked for."""


def sample(
    tree: ClusterTree,
    size: int,
    strategy: Strategy = "random",
    max_repeats: int = 1,
    seed: int = 0,
    *,
    rows: np.ndarray | None = None,
    ids: np.ndarray | None = None,
) -> np.ndarray:
    """Returns rows of a balanced subset.

    The size is split among the top clusters as evenly as their points allow, then each quota
    among the clusters below, and so on. In a leaf cluster, rows are taken at random, or closest
    to the centroid first. The random order depends on the seed and on the number or id of each
    row alone, so that without repeats a smaller sample of the same tree and seed is part of a
    larger one.

    Args:
        tree: tree over ``n`` points.
        size: number of rows to take. If the pool has fewer, all are taken and a
            :class:`ShortfallWarning` is given.
        strategy: choice of the rows of a leaf cluster, ``"random"`` or ``"closest"``. Equally
            close rows are taken at random.
        max_repeats: largest number of times that a row may be taken. A leaf cluster takes all
            of its rows before it repeats one.
        seed: seed of the random order.
        rows: distinct numbers ``[m]`` of the rows that may be taken. All by default.
        ids: distinct strings or whole numbers ``[n]``. With ids, a pool in another order gives
            the same items. Without ids, the random order depends on the numbers of the rows.

    Returns:
        int64, sorted. A row that is taken twice is listed twice.

    Raises:
        InputError: an argument cannot be used; the message names it.

    References:
        Vo et al., Automatic Data Curation for Self-Supervised Learning, 2024, section 3.3.
        https://arxiv.org/abs/2405.15613

    Examples:
        Two clusters of 98 and 2 rows give two rows each:

        >>> import numpy as np
        >>> import jaxcurate as jc
        >>> tree = jc.ClusterTree.from_labels([np.repeat([0, 1], [98, 2])])
        >>> jc.sample(tree, 4)[-2:]
        array([98, 99])
    """
    check_tree(tree)
    check_whole("size", size, 0)
    check_whole("max_repeats", max_repeats, 1)
    check_choice("strategy", strategy, get_args(Strategy))
    if rows is not None:
        rows = checked_rows(rows, tree.n_points)
    if ids is not None and len(ids) != tree.n_points:
        raise InputError(f"ids has {len(ids)} entries, but the tree {tree.n_points} points")
    leaves = tree.levels[0].labels if rows is None else tree.levels[0].labels[rows]
    max_repeats = min(max_repeats, max(size, 1))  # more has no effect, and might overflow
    available = len(leaves) * max_repeats
    if size > available:
        warnings.warn(
            f"{size} items wanted, the pool holds {available}: all are taken, "
            f"{size - available} are missing",
            ShortfallWarning,
            stacklevel=2,
        )
    counts = tree.counts_of(leaves)
    quotas = np.array([min(size, available)])
    parents = np.zeros(tree.n_clusters(len(tree.levels)), np.int32)
    for level in range(len(tree.levels), 0, -1):
        capacities = counts[level - 1] * max_repeats
        quotas = _allocate(capacities, parents, quotas, seed, level)
        parents = tree.levels[level - 1].labels

    keys = rows
    if ids is not None:
        keys = keys_of(ids) if rows is None else keys_of(ids)[rows]
    if strategy == "closest":
        order = _by_distance(tree, rows)
    else:
        order = short_priorities(len(leaves) if keys is None else keys, seed)
    ties = lambda members: priorities(members if keys is None else keys[members], seed)
    first = lambda wanted: _first_of_each(
        leaves, order, ties, counts[0], wanted, strategy == "random"
    )
    if max_repeats == 1:
        taken = np.flatnonzero(first(quotas))
    else:
        copies, rest = np.divmod(quotas, np.maximum(counts[0], 1))
        times = copies[leaves] + first(rest)
        taken = np.repeat(np.arange(len(leaves)), times)
    return taken if rows is None else rows[taken]


def allocate(capacities: np.ndarray, size: int, seed: int = 0) -> np.ndarray:
    r"""Splits a size among children as evenly as their capacities allow.

    With the largest whole :math:`c` for which :math:`\sum_j \min(c, s_j)` does not exceed the
    size, child :math:`j` gets :math:`\min(c, s_j)`. The remainder goes one each to children with
    :math:`s_j > c`, drawn at random.

    Args:
        capacities: whole numbers ``[m]``, at least 0.
        size: whole number to split. If it exceeds the sum of the capacities, all are used up.
        seed: seed of the draw.

    Returns:
        int64 ``[m]``, which adds up to ``min(size, sum(capacities))``.

    Raises:
        InputError: an argument cannot be used; the message names it.

    References:
        Vo et al., Automatic Data Curation for Self-Supervised Learning, 2024, section 3.3.
        https://arxiv.org/abs/2405.15613

    Examples:
        >>> import jaxcurate as jc
        >>> jc.allocate([10, 2, 10], 12)
        array([5, 2, 5])
    """
    capacities = np.asarray(capacities)
    if capacities.ndim != 1 or not (
        np.issubdtype(capacities.dtype, np.integer) or capacities.size == 0
    ):
        raise InputError(
            f"capacities must be whole numbers [m], not {capacities.dtype} {capacities.shape}"
        )
    check_whole("size", size, 0)
    if (capacities < 0).any():
        raise InputError("capacities must not be negative")
    children = len(capacities)
    most = 2**62 // max(children, 1)  # sums are int64
    if size > most:
        size = min(int(size), sum(capacities.tolist()))
    if size > most:
        raise InputError(f"size={size} must be at most {most} for {children} capacities")
    root = np.zeros(children, np.int32)
    # A capacity beyond the size has no effect, and an unsigned one beyond int64 would be negative.
    capacities = np.where(capacities > size, size, capacities).astype(np.int64)
    return _allocate(capacities, root, np.array([size]), seed, 0)


def _allocate(
    capacities: np.ndarray, parents: np.ndarray, sizes: np.ndarray, seed: int, stream: int
) -> np.ndarray:
    """Returns the result of :func:`allocate` for the children of many nodes at once.

    Args:
        capacities: int64 ``[m]``, capacity of each child.
        parents: ``[m]``, node of each child.
        sizes: int64 ``[p]``, size to split at each node.
        seed: seed of the priorities by which children get the remainder.
        stream: number that differs between levels, so that their priorities are independent.
    """
    # No child gets more than the largest size, and small capacities leave room for the parent in
    # the same word: words sort ten times faster than pairs.
    most = int(sizes.max(initial=0))
    capacities = np.minimum(capacities, most)
    bits = most.bit_length()
    ordered = parents.astype(np.int64)
    ordered <<= bits
    ordered |= capacities
    ordered.sort()
    owner = ordered >> bits
    ordered &= (1 << bits) - 1
    n_children = np.bincount(owner, minlength=len(sizes))
    end = np.cumsum(n_children)
    first = end - n_children
    # By rising capacity within each node: a child is full if the node can give its capacity to it
    # and to each child after it, besides the capacities of all children before it.
    before = np.concatenate([[0], np.cumsum(ordered)])
    rest = end[owner] - np.arange(len(owner))
    is_full = before[:-1] + ordered * rest <= (before[first] + sizes)[owner]
    n_full = np.bincount(owner[is_full], minlength=len(sizes))
    n_open = n_children - n_full
    held = before[first + n_full] - before[first]
    level, left_over = np.divmod(sizes - held, np.maximum(n_open, 1))
    level[n_open == 0], left_over[n_open == 0] = most, 0
    level_of_child = level[parents]
    quotas = np.minimum(capacities, level_of_child)
    # The remainder goes one each to open children, by priority. Rules by size or by distance are
    # better on some pools and worse on others (scripts/bench/leftovers.py), and random ones favor
    # no child.
    open_ = np.flatnonzero(capacities > level_of_child)
    order = short_priorities(open_, seed, stream)
    ties = lambda members: priorities(open_[members], seed, stream)
    quotas[open_] += _first_of_each(parents[open_], order, ties, n_open, left_over, True)
    return quotas


def _first_of_each(
    groups: np.ndarray,
    order: np.ndarray,
    ties: Callable[[np.ndarray], np.ndarray],
    sizes: np.ndarray,
    wanted: np.ndarray,
    uniform: bool,
) -> np.ndarray:
    """Marks the wanted number of members of each group, lowest order first.

    Args:
        groups: ``[m]``, group of each member.
        order: uint32 ``[m]``, at least 1. The lowest comes first.
        ties: returns a uint64 number for each of the given members. Among members of equal
            order, the lowest number comes first.
        sizes: int64 ``[g]``, number of members of each group.
        wanted: int64 ``[g]``, number of members to mark in each group. All if it has fewer.
        uniform: True if orders are random numbers, so that not all members need be compared.

    Returns:
        bool ``[m]``.
    """
    parted = (wanted > 0) & (wanted < sizes)
    # All members of a group that gives a part are compared. If orders are uniform, only members
    # below a limit are, which enough of them stay below.
    limits = np.where(parted, np.uint8(255), np.uint8(0))
    if uniform:
        fraction = (np.sqrt(wanted[parted]) + _MARGIN) ** 2 / sizes[parted]
        limits[parted] = np.minimum(256 * fraction, 255)
    blocks = [slice(begin, begin + _BLOCK) for begin in range(0, len(groups), _BLOCK)]
    codes = _codes(groups, order, limits, blocks)
    codes.sort()
    n_below = np.zeros(len(wanted), np.int64)
    for block in blocks:
        np.add.at(n_below, codes[block] >> 32, 1)
    decided = parted & (n_below > wanted)
    last = (np.cumsum(n_below) - n_below + wanted - 1)[decided]
    # One bound on the order of a group's members marks none, all, or all up to the last wanted.
    bounds = np.where(wanted > 0, _LAST, np.uint32(0))
    bounds[decided] = codes[last] & int(_LAST)
    decided[decided] = codes[last] < codes[last + 1]
    del codes
    taken = np.empty(len(groups), bool)
    for block in blocks:
        taken[block] = order[block] <= bounds.take(groups[block])
    undecided = parted & ~decided
    if undecided.any():
        # Groups with ties at the bound, or with too few members below the limit, are sorted whole.
        unsorted = [block.start + np.flatnonzero(undecided.take(groups[block])) for block in blocks]
        members = np.concatenate(unsorted)
        members = members[np.lexsort((ties(members), order[members], groups[members]))]
        group = groups[members]
        sizes = np.where(undecided, sizes, 0)
        rank = np.arange(len(group)) - (np.cumsum(sizes) - sizes)[group]
        taken[members] = rank < wanted[group]
    return taken


def _codes(
    groups: np.ndarray, order: np.ndarray, limits: np.ndarray, blocks: list[slice]
) -> np.ndarray:
    """Returns group and order in one int64 word for each member within the limit of its group.

    Words sort ten times faster than pairs. Limits, uint8 ``[g]``, are compared with the highest
    byte of the order: with many groups, looking up numbers that lie far apart in memory takes most
    of the time, and bytes stay in the cache.
    """
    codes, filled = np.empty(len(groups), np.int64), 0  # memory that is not filled costs nothing
    for block in blocks:
        within = np.flatnonzero(order[block] >> np.uint32(24) <= limits.take(groups[block]))
        part = codes[filled : filled + len(within)]
        part[:] = groups[block].take(within)
        part <<= 32
        part |= order[block].take(within)
        filled += len(within)
    return codes[:filled]


def _by_distance(tree: ClusterTree, rows: np.ndarray | None) -> np.ndarray:
    """Returns uint32 numbers in the order of the distances to the centroids of the leaves."""
    distances = tree.levels[0].distances if rows is None else tree.levels[0].distances[rows]
    if np.isnan(distances).any():
        raise InputError("strategy='closest' needs distances, which this tree does not have")
    bits = (distances + np.float32(0)).view(np.uint32)  # adding 0 turns -0 into 0
    return np.where(np.signbit(distances) & (bits > 0), ~bits, bits | np.uint32(1 << 31))
