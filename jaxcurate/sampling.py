"""Balanced sampling: a target split top-down over a tree, evenly at every node."""

import warnings
from typing import Literal

import numpy as np

from jaxcurate.selection import checked_rows
from jaxcurate.tree import ClusterTree

Strategy = Literal["random", "closest"]


class ShortfallWarning(UserWarning):
    """The pool holds fewer items than were asked for."""


def sample(
    tree: ClusterTree,
    size: int,
    strategy: Strategy = "random",
    max_repeats: int = 1,
    seed: int = 0,
    *,
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """Rows of a balanced subset.

    The size is split among the top clusters as evenly as their points allow, each share among
    the clusters below, and so on; in a leaf cluster rows are taken at random or closest to the
    centroid first. Priorities depend on the seed alone, so that without repeats a smaller sample
    of the same tree and seed is part of a larger one.

    Args:
        tree: over ``n`` points.
        size: how many rows are wanted. Where the pool holds fewer, all are taken and a
            :class:`ShortfallWarning` says so.
        strategy: ``"random"`` or ``"closest"``, within a leaf cluster.
        max_repeats: how often a row may be taken; a leaf takes whole copies first.
        seed: of the priorities.
        rows: the valid rows, distinct whole numbers ``[m]``, such as those that deduplication
            kept; no other is taken. All by default.

    Returns:
        int64, sorted; a row that is taken twice stands there twice.

    Raises:
        ValueError: naming the argument that cannot be used.

    References:
        Vo et al., Automatic Data Curation for Self-Supervised Learning, 2024, section 3.3.
        https://arxiv.org/abs/2405.15613
    """
    if size < 0:
        raise ValueError(f"size={size} is negative")
    if max_repeats < 1:
        raise ValueError(f"max_repeats={max_repeats} must be at least 1")
    valid = None if rows is None else checked_rows(rows, tree.n_points)
    counts = _counts_by_level(tree, valid)
    available = (tree.n_points if valid is None else len(valid)) * max_repeats
    if size > available:
        warnings.warn(
            f"{size} items wanted, the pool holds {available}: all are taken, "
            f"{size - available} are missing",
            ShortfallWarning,
            stacklevel=2,
        )
    quotas = np.array([min(size, available)])
    parents = np.zeros(tree.n_clusters(len(tree.levels)), np.int64)
    for level in range(len(tree.levels), 0, -1):
        capacities = counts[level - 1] * max_repeats
        priorities = _priorities(len(capacities), seed, level)
        quotas = _allocate(capacities, parents, quotas, priorities)
        parents = tree.levels[level - 1].labels
    keys = _keys_of_points(tree, strategy, seed)
    return _take(tree.levels[0].labels, counts[0], quotas, keys, valid)


def allocate(capacities: np.ndarray, size: int, seed: int = 0) -> np.ndarray:
    r"""Splits a size among children as evenly as their capacities allow.

    With the largest whole :math:`c` for which :math:`\sum_j \min(c, s_j)` does not exceed the
    size, child :math:`j` gets :math:`\min(c, s_j)`; what is left goes one each to children with
    :math:`s_j > c`, drawn at random.

    Args:
        capacities: whole numbers ``[m]``, at least 0.
        size: what to split; beyond the sum of the capacities they are all used up.
        seed: of the draw.

    Returns:
        int64 ``[m]``, which adds up to ``min(size, sum(capacities))``.

    Raises:
        ValueError: naming the argument that cannot be used.
    """
    capacities = np.asarray(capacities)
    if capacities.ndim != 1 or not (
        np.issubdtype(capacities.dtype, np.integer) or capacities.size == 0
    ):
        raise ValueError(
            f"capacities must be whole numbers [m], not {capacities.dtype} {capacities.shape}"
        )
    if size < 0 or (capacities < 0).any():
        raise ValueError("size and capacities must not be negative")
    children = len(capacities)
    priorities = _priorities(children, seed, 0)
    return _allocate(
        capacities.astype(np.int64), np.zeros(children, np.int64), np.array([size]), priorities
    )


def _allocate(
    capacities: np.ndarray, parents: np.ndarray, sizes: np.ndarray, priorities: np.ndarray
) -> np.ndarray:
    """:func:`allocate` for the children of many nodes at once.

    Args:
        capacities: int64 ``[m]``, of the children.
        parents: ``[m]``, the node of each child.
        sizes: int64 ``[p]``, what each node has to give.
        priorities: ``[m]``; of equal children the one with the lowest gets what is left over.
    """
    order = np.lexsort((capacities, parents))
    ordered, owner = capacities[order], parents[order]
    n_children = np.bincount(parents, minlength=len(sizes))
    first = np.cumsum(n_children) - n_children
    # Within a node, by rising capacity: what the children before this one hold, and what is
    # handed out if the water stands exactly as high as this child.
    before = np.cumsum(ordered) - ordered
    before -= before[first[owner]] if len(order) else 0
    rest = n_children[owner] - (np.arange(len(order)) - first[owner])
    is_full = before + ordered * rest <= sizes[owner]
    n_full = np.bincount(owner, is_full, len(sizes)).astype(np.int64)
    held = np.bincount(owner, ordered * is_full, len(sizes)).astype(np.int64)
    n_open = n_children - n_full
    level = (sizes - held) // np.maximum(n_open, 1)
    quotas = np.where(is_full, ordered, level[owner])
    # What is left over: one each to open children, by priority.
    left_over = np.where(n_open > 0, sizes - held - level * n_open, 0)
    by_priority = np.lexsort((priorities[order], is_full, owner))
    rank = np.empty(len(order), np.int64)
    rank[by_priority] = np.arange(len(order)) - first[owner[by_priority]]
    quotas += ~is_full & (rank < left_over[owner])
    out = np.empty(len(order), np.int64)
    out[order] = quotas
    return out


def _counts_by_level(tree: ClusterTree, valid: np.ndarray | None) -> list[np.ndarray]:
    """How many valid points lie below each cluster, int64 ``[k]`` for each level, bottom up."""
    if valid is None:
        return [tree.point_counts(level) for level in range(1, len(tree.levels) + 1)]
    counts = [np.bincount(tree.levels[0].labels[valid], minlength=tree.n_clusters(1))]
    for number, level in enumerate(tree.levels[1:], 2):
        sums = np.bincount(level.labels, counts[-1], minlength=tree.n_clusters(number))
        counts.append(sums.astype(np.int64))
    return counts


def _keys_of_points(tree: ClusterTree, strategy: Strategy, seed: int) -> np.ndarray:
    """What points are ranked by within their leaf cluster, ``[n]``: the lowest is taken first."""
    if strategy == "random":
        return _priorities(tree.n_points, seed, 0)
    if strategy == "closest":
        distances = tree.levels[0].distances
        if np.isnan(distances).any():
            raise ValueError("strategy='closest' needs distances, which this tree does not have")
        return distances
    raise ValueError(f"strategy={strategy!r}; known: 'random', 'closest'")


def _take(
    labels: np.ndarray,
    counts: np.ndarray,
    quotas: np.ndarray,
    keys: np.ndarray,
    valid: np.ndarray | None,
) -> np.ndarray:
    """The rows that fill each leaf's quota: whole copies, then the rows that rank first.

    Args:
        labels: int32 ``[n]``, the leaf of each point.
        counts: int64 ``[k]``, valid points of each leaf.
        quotas: int64 ``[k]``.
        keys: ``[n]``, from :func:`_keys_of_points`.
        valid: the rows to take from; all where None.
    """
    if valid is None:
        valid = np.arange(len(labels))
    else:
        labels, keys = labels[valid], keys[valid]
    order = np.lexsort((keys, labels))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order)) - (np.cumsum(counts) - counts)[labels[order]]
    copies, rest = np.divmod(quotas, np.maximum(counts, 1))
    return np.repeat(valid, copies[labels] + (ranks < rest[labels]))


def _priorities(n: int, seed: int, level: int) -> np.ndarray:
    """Random numbers ``[n]`` that depend on nothing but the seed and the level."""
    return np.random.default_rng([seed, level]).random(n)
