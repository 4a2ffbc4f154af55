"""Deduplication: of equal and nearly equal rows, those stay that stand for the others."""

import hashlib
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import get_args

import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxcurate.artifacts import files
from jaxcurate.artifacts.lazy_rows import as_rows
from jaxcurate.artifacts.pool import Pool
from jaxcurate.artifacts.tree import ClusterTree, SurplusWarning, check_tree
from jaxcurate.checks import InputError, check_choice, check_whole, faults_of, refuse
from jaxcurate.curation.cover import Rule
from jaxcurate.curation.duplicates import KIND as KIND  # named by the stage
from jaxcurate.curation.duplicates import (
    Duplicates,
    check_threshold,
    choose,
    with_similarities,
    worth_of,
)
from jaxcurate.kmeans import kmeans
from jaxcurate.kmeans.normalize import checked_shape
from jaxcurate.kmeans.rows import fits
from jaxcurate.neighbors.close_pairs import Pairs, close_pairs, neighboring_clusters
from jaxcurate.neighbors.nearest_rows import directions
from jaxcurate.runtime import processes
from jaxcurate.runtime.devices import Devices, RowsLike

Progress = Callable[[str, int, int], None]
_CHUNK = 16384
"""Largest number of rows that are converted to float64 at a time."""
_NUMBERS = 2**21
"""Largest number of their entries, unless a single row has more."""
_NONE = np.zeros((0, 2), np.int64), np.zeros(0, np.float32)


def deduplicate(
    x: RowsLike | Pool,
    threshold: float | None = 0.95,
    *,
    rule: Rule = "cover",
    keep: np.ndarray | None = None,
    digests: np.ndarray | None = None,
    tree: ClusterTree | None = None,
    level: int = 1,
    n_clusters: int | None = None,
    n_neighbors: int = 8,
    max_pairs: int | None = 2**28,
    seed: int = 0,
    memory_limit: int | None = None,
    devices: Devices | None = None,
    progress: Progress | None = None,
) -> Duplicates:
    """Drops rows of equal content, and rows whose cosine similarity to a kept row is high.

    Rows of equal content come first: the best of them stays. Of the others, the rule decides.

    - ``"cover"`` goes over the rows from the best to the worst, and drops a row if one that it has
      kept is within the threshold. Each dropped row has thus a near-duplicate that stays.
    - ``"components"`` keeps one row of each connected component. It drops rows that only a chain
      of near-duplicates connects to the kept row, which may look altogether different.

    Near-duplicates are sought among the rows of a cluster and of neighboring clusters, never
    among all rows.

    Args:
        x: ``[n, d]`` of real numbers, or a :class:`Pool`. A row of zeros is near to no other row.
        threshold: cosine similarity at or above which two rows are near-duplicates, above 0 and at
            most 1. None drops rows of equal content alone.
        rule: ``"cover"`` or ``"components"``.
        keep: numbers or dates ``[n]``, such as resolutions; the row with the highest is the best.
            Of equal ones, and by default of all, the row with most rows within the threshold is
            the best, and of these the first.
        digests: ``[n, w]`` or ``[n]``, equal for rows of equal content, such as
            :func:`content_digests` of the items. Digests of the rows of ``x`` by default. The
            first row of each content is compared for all rows of it.
        tree: tree over the rows whose clusters are searched. The clusters of a quick flat k-means
            by default.
        level: level of the tree whose clusters are searched.
        n_clusters: number of clusters of the quick k-means. The square root of the number of
            distinct rows by default.
        n_neighbors: number of neighboring clusters that each cluster is compared with.
        max_pairs: largest number of pairs of near-duplicates, for each takes 20 bytes of memory
            and about twice as much in passing. None for no limit. More pairs are refused as soon
            as they are found, which is early because large clusters are searched first.
        seed: seed of the quick k-means.
        memory_limit: bytes of memory that rows may take in the quick k-means. If they take more,
            they are streamed from a temporary file, and seeded by ``"k-means||"``, which needs
            few passes.
        devices: the devices to use. All by default.
        progress: called with a name, and the numbers of pairs of tiles that are done and to do.

    Returns:
        The kept rows, the row that stands for each row, and all pairs that were found, from which
        :meth:`Duplicates.at` tells the duplicates at a higher threshold.

    Raises:
        InputError: an argument cannot be used, or there are too many pairs; the message names it.
            If the tree was made from another pool, it names both fingerprints.

    References:
        Abbas et al., SemDeDup, 2023, section 3, for the search within clusters.
        https://arxiv.org/abs/2303.09540

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.curation import deduplicate
        >>> x = np.array([[1.0, 0], [0, 1], [1, 0], [0.99, 0.01]])
        >>> found = deduplicate(x, threshold=None)
        >>> found.kept, found.n_same
        (array([0, 1, 3]), 1)
        >>> deduplicate(x, threshold=0.95).representative
        array([0, 1, 0, 0])
        >>> deduplicate(x, threshold=0.95, keep=np.array([0, 0, 0, 7])).kept
        array([1, 3])
    """
    if isinstance(x, Pool):
        if tree is not None:
            check_tree(tree)
            tree.check_over(x.fingerprint, len(x))
        x = x.embeddings
    x = as_rows(x)
    devices = Devices.all() if devices is None else devices
    processes.agree(
        "deduplicate",
        devices,
        x=x,
        threshold=threshold,
        rule=rule,
        keep=keep,
        digests=digests,
        tree=tree,
        level=level,
        n_clusters=n_clusters,
        n_neighbors=n_neighbors,
        max_pairs=max_pairs,
        seed=seed,
        memory_limit=memory_limit,
    )
    checked_shape(x, "x")
    check_threshold(threshold)
    check_choice("rule", rule, get_args(Rule))
    check_whole("n_neighbors", n_neighbors, 0)
    if max_pairs is not None:
        check_whole("max_pairs", max_pairs, 0)
    worth_of(keep, len(x))  # refused before the search
    digests = content_digests(x) if digests is None else np.asarray(digests)
    if len(digests) != len(x):
        raise InputError(f"digests has {len(digests)} entries, but x has {len(x)} rows")
    first, group = first_of_same(digests)
    points, near = np.arange(len(first)), Pairs(*_NONE)
    if threshold is not None and len(first) > 1:
        with unit_rows(x, first, memory_limit) as unit:
            if tree is None:
                k = n_clusters or round(len(first) ** 0.5)
                init = "k-means++" if fits(len(unit), unit.shape[1], memory_limit) else "k-means||"
                with warnings.catch_warnings():  # rows of equal direction are expected
                    warnings.simplefilter("ignore", SurplusWarning)
                    flat = kmeans(unit, k, init, 10, seed, memory_limit, devices=devices)
                labels, centroids = flat.labels, flat.centroids
            else:
                labels, centroids = _neighborhoods(tree, level, len(x), first)
            points = _first_of_direction(unit)
            # One row of each direction is searched in each cluster. The others go to a cluster of
            # their own without neighbors.
            searched = np.full_like(labels, len(centroids))
            one = first_of_same(np.stack([points, labels.astype(np.int64)], axis=1))[0]
            searched[one] = labels[one]
            counts = np.bincount(searched, minlength=len(centroids) + 1)[:-1]
            near = close_pairs(
                unit,
                searched,
                neighboring_clusters(centroids, counts, n_neighbors, devices),
                threshold,
                max_pairs=max_pairs,
                devices=devices,
                progress=progress and (lambda *done: progress("near-duplicates", *done)),
            )
            near = _pairs_of_points(near, points)
    pairs = Pairs(first[near.rows], near.similarity)
    found = choose(first[group], first[points][group], pairs, threshold, rule, keep)
    return with_similarities(found, x) if rule == "components" else found


def content_digests(items: RowsLike) -> np.ndarray:
    """Returns a 128-bit digest of the content of each row, uint64 ``[n, 2]``.

    Args:
        items: ``[n, ...]``, such as images or embeddings. Zeros of either sign are equal.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.curation import content_digests
        >>> digests = content_digests(np.array([[1, 2], [3, 4], [1, 2]]))
        >>> bool((digests[0] == digests[2]).all()), bool((digests[0] == digests[1]).all())
        (True, False)
    """
    out = np.empty((len(items), 2), np.uint64)
    floats = jnp.issubdtype(items.dtype, np.floating)
    for block in files.blocks(items):
        rows = items[block]
        rows = np.ascontiguousarray(rows + items.dtype.type(0) if floats else rows)
        for row, data in enumerate(rows.reshape(len(rows), -1).view(np.uint8), block.start):
            digest = hashlib.blake2b(data.data, digest_size=16)
            out[row] = np.frombuffer(digest.digest(), np.uint64)
    return out


def first_of_same(digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Groups rows by equal digests.

    Args:
        digests: ``[n, w]`` or ``[n]``.

    Returns:
        The first row of each group, int64 ``[g]``, sorted; and the group of each row, ``[n]``.

    Examples:
        >>> first_of_same(np.array([7, 5, 7, 5, 9]))
        (array([0, 1, 4]), array([0, 1, 0, 1, 2]))
    """
    columns = digests.reshape(len(digests), -1)
    order = np.lexsort(columns.T)  # stable: among equal rows the first row comes first
    new = np.append(True, (columns[order[1:]] != columns[order[:-1]]).any(axis=1))
    first = order[new]
    rank = np.argsort(np.argsort(first))
    group = np.empty(len(digests), np.int64)
    group[order] = rank[np.cumsum(new) - 1]
    return np.sort(first), group


@contextmanager
def unit_rows(x: RowsLike, rows: np.ndarray, memory_limit: int | None) -> Iterator[np.ndarray]:
    """Yields rows of ``x`` scaled to length 1, float32, in memory or in a temporary file.

    Raises:
        InputError: ``x`` has a NaN or an infinity, or the temporary disk is full.
    """
    shape = len(rows), x.shape[1]
    with tempfile.TemporaryDirectory() as folder:
        if fits(*shape, memory_limit):
            unit = np.empty(shape, np.float32)
        else:
            path = epath.Path(folder) / "unit"
            files.allocate(path, 4 * shape[0] * shape[1])
            unit = np.memmap(path, np.float32, "r+", shape=shape)
        faults, step = [], max(1, min(_CHUNK, _NUMBERS // shape[1]))
        for begin in range(0, len(rows), step):
            in_chunk = rows[begin : begin + step]
            chunk = x[in_chunk].astype(np.float64)
            if not np.isfinite(chunk).all():
                faults.append(faults_of(chunk, in_chunk, beyond=False))
                continue
            unit[begin : begin + step] = directions(chunk)
        refuse(faults, "x")
        yield unit


def _first_of_direction(unit: np.ndarray) -> np.ndarray:
    """Returns the first of the rows that equal each row bit by bit, int64 ``[n]``.

    A row of zeros has no direction, and equals no other.

    Args:
        unit: float32 ``[n, d]``, rows of length 1 or 0.
    """
    first, group = first_of_same(content_digests(unit))
    step = max(1, min(_CHUNK, _NUMBERS // unit.shape[1]))
    parts = (first[begin : begin + step] for begin in range(0, len(first), step))
    is_zero = np.concatenate([~unit[part].any(axis=1) for part in parts])
    return np.where(is_zero[group], np.arange(len(unit)), first[group])


def _pairs_of_points(near: Pairs, points: np.ndarray) -> Pairs:
    """Returns pairs of the first rows of two directions, each once, in the place of pairs of rows.

    Args:
        near: close pairs of rows.
        points: first row with the direction of each row, int64 ``[n]``.
    """
    ends = np.sort(points[near.rows], axis=1)
    if np.array_equal(ends, near.rows):
        return near
    ends, index = np.unique(ends, axis=0, return_index=True)
    different = ends[:, 0] != ends[:, 1]
    return Pairs(ends[different], near.similarity[index[different]])


def _neighborhoods(
    tree: ClusterTree, level: int, n: int, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels of rows at a level of a tree, and the centroids of the level."""
    check_tree(tree)
    if tree.n_points != n:
        raise InputError(f"tree has {tree.n_points} points, but x has {n} rows")
    labels, centroids = tree.point_labels(level), tree.levels[level - 1].centroids
    if not centroids.shape[1]:
        raise InputError("tree has no centroids to tell which clusters are near each other")
    return labels[rows], centroids
