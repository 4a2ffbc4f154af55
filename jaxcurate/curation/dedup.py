"""Deduplication: equal and nearly equal rows are joined, and one row of each group is kept."""

import hashlib
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from jaxcurate.artifacts import files, folders
from jaxcurate.artifacts.pool import Pool
from jaxcurate.artifacts.tree import ClusterTree, SurplusWarning, check_tree
from jaxcurate.checks import InputError, as_real, check_whole, faults_of, refuse
from jaxcurate.kmeans import kmeans
from jaxcurate.kmeans.normalize import checked_shape
from jaxcurate.kmeans.rows import fits
from jaxcurate.neighbors.close_pairs import Pairs, close_pairs, neighboring_clusters
from jaxcurate.neighbors.nearest_rows import directions
from jaxcurate.runtime import processes
from jaxcurate.runtime.devices import Devices

Progress = Callable[[str, int, int], None]
_CHUNK = 16384
_NONE = np.zeros((0, 2), np.int64), np.zeros(0, np.float32)

KIND = "duplicates"


@dataclass(frozen=True)
class Duplicates:
    """Groups of duplicate rows, and the row of each group that is kept."""

    kept: np.ndarray
    """int64 ``[m]``, sorted: the valid rows, one of each component."""
    components: np.ndarray
    """int64 ``[n]``: component of each row. Components are numbered by their first rows."""
    pairs: np.ndarray
    """int64 ``[p, 2]``: pairs of rows that were joined, the smaller row first."""
    similarity: np.ndarray
    """float32 ``[p]``: cosine of each pair, 1 for equal content."""
    same: np.ndarray
    """bool ``[p]``: True for pairs of equal content."""

    @property
    def n_same(self) -> int:
        """Number of rows with the content of an earlier row."""
        return int(self.same.sum())

    @property
    def n_near(self) -> int:
        """Number of further rows that were removed as near-duplicates."""
        return len(self.components) - len(self.kept) - self.n_same

    def save(self, path: epath.PathLike, about: Mapping[str, Any] | None = None) -> None:
        """Writes a folder, which appears whole or not at all.

        Args:
            path: path of the folder.
            about: further entries of its card.
        """
        numbers = {"kept": len(self.kept), "same": self.n_same, "near": self.n_near}
        with folders.new_folder(path, {**(about or {}), **numbers}, KIND) as folder:
            for name, array in vars(self).items():
                folder.save_array(f"{name}.npy", array)

    @classmethod
    def load(cls, path: epath.PathLike) -> "Duplicates":
        """Reads the folder that :meth:`save` wrote.

        Raises:
            DamagedError: a file is missing, truncated or altered; the message names it.
        """
        folders.check_files(path)
        names = cls.__dataclass_fields__
        return cls(*(files.load_array(epath.Path(path) / f"{name}.npy") for name in names))


class Agreement(NamedTuple):
    """Agreement of detected duplicates with a comparison of every row with every other row."""

    recall: float
    """Fraction of the duplicate pairs whose rows are in the same component."""
    precision: float
    """Fraction of the detected pairs that are duplicates."""
    purity: float
    """Fraction of all pairs within a component that are duplicates. Below 1 if rows are joined by
    a chain of other rows."""
    n_alike: int
    """Number of duplicate pairs."""


def deduplicate(
    x: np.ndarray | Pool,
    threshold: float | None = 0.95,
    *,
    digests: np.ndarray | None = None,
    tree: ClusterTree | None = None,
    level: int = 1,
    n_clusters: int | None = None,
    n_neighbors: int = 8,
    all_pairs: bool = False,
    seed: int = 0,
    memory_limit: int | None = None,
    devices: Devices | None = None,
    progress: Progress | None = None,
) -> Duplicates:
    """Joins rows of equal content, and rows whose cosine similarity reaches a threshold.

    Near-duplicates are sought among the rows of a cluster and of neighboring clusters, never
    among all rows. Connected rows form a component, of which the row closest to the centroid of
    its cluster is kept (the first of equally close rows).

    Args:
        x: ``[n, d]`` of real numbers, or a :class:`Pool`. A row of zeros is near to no other row.
        threshold: cosine similarity at or above which two rows are near-duplicates, above 0 and at
            most 1. None joins rows of equal content alone.
        digests: ``[n, w]`` or ``[n]``, equal for rows of equal content, such as
            :func:`content_digests` of the items. Digests of the rows of ``x`` by default.
        tree: tree over the rows whose clusters are searched. The clusters of a quick flat k-means
            by default.
        level: level of the tree whose clusters are searched.
        n_clusters: number of clusters of the quick k-means. The square root of the number of
            distinct rows by default.
        n_neighbors: number of neighboring clusters that each cluster is compared with.
        all_pairs: keep every pair of near-duplicates. By default only the pairs of a maximum
            spanning forest are kept, which connect the same rows at this and any higher threshold.
        seed: seed of the quick k-means.
        memory_limit: bytes of memory that rows may take in the quick k-means. If they take more,
            they are streamed from a temporary file, and seeded by ``"k-means||"``, which needs
            few passes.
        devices: the devices to use. All by default.
        progress: called with a name, and the numbers of pairs of tiles that are done and to do.

    Returns:
        The components, the kept rows, and the pairs that were joined.

    Raises:
        InputError: an argument cannot be used; the message names it. If the tree was made from
            another pool, it names both fingerprints.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.curation import deduplicate
        >>> x = np.array([[1.0, 0], [0, 1], [1, 0], [0.99, 0.01]])
        >>> found = deduplicate(x, threshold=None)
        >>> found.kept, found.n_same
        (array([0, 1, 3]), 1)
        >>> deduplicate(x, threshold=0.95).components
        array([0, 1, 0, 0])
    """
    if isinstance(x, Pool):
        if tree is not None:
            check_tree(tree)
            tree.check_over(x.fingerprint, len(x))
        x = x.embeddings
    x = as_real(x)
    devices = Devices.all() if devices is None else devices
    processes.agree(
        "deduplicate",
        devices,
        x=x,
        threshold=threshold,
        digests=digests,
        tree=tree,
        level=level,
        n_clusters=n_clusters,
        n_neighbors=n_neighbors,
        all_pairs=all_pairs,
        seed=seed,
        memory_limit=memory_limit,
    )
    checked_shape(x, "x")
    if threshold is not None and not (isinstance(threshold, Real) and 0 < threshold <= 1):
        raise InputError(f"threshold={threshold!r} must be above 0 and at most 1")
    check_whole("n_neighbors", n_neighbors, 0)
    digests = content_digests(x) if digests is None else np.asarray(digests)
    if len(digests) != len(x):
        raise InputError(f"digests has {len(digests)} entries, but x has {len(x)} rows")
    first, group = first_of_same(digests)
    others = np.setdiff1d(np.arange(len(x)), first)
    same = np.stack([first[group[others]], others], axis=1)
    near, distances = Pairs(*_NONE), np.zeros(len(first))
    if threshold is not None and len(first) > 1:
        with _unit_rows(x, first, memory_limit) as unit:
            if tree is None:
                k = n_clusters or round(len(first) ** 0.5)
                init = "k-means++" if fits(len(unit), unit.shape[1], memory_limit) else "k-means||"
                with warnings.catch_warnings():  # rows of equal direction are expected
                    warnings.simplefilter("ignore", SurplusWarning)
                    flat = kmeans(unit, k, init, 10, seed, memory_limit, devices=devices)
                labels, centroids, distances = flat.labels, flat.centroids, flat.distances
            else:
                labels, centroids, distances = _neighborhoods(tree, level, len(x), first)
            equal = Pairs(*_NONE) if all_pairs else _equal_rows(unit, labels, threshold)
            # Rows equal to a row that is searched go to a cluster of their own without neighbors.
            searched = labels.copy()
            searched[equal.rows[:, 1]] = len(centroids)
            counts = np.bincount(searched, minlength=len(centroids) + 1)[:-1]
            near = close_pairs(
                unit,
                searched,
                neighboring_clusters(centroids, counts, n_neighbors, devices),
                threshold,
                all_pairs=all_pairs,
                devices=devices,
                progress=progress and (lambda *done: progress("near-duplicates", *done)),
            )
            near = Pairs(*map(np.concatenate, zip(near, equal, strict=True)))
    pairs = np.concatenate([same, first[near.rows]])
    components = _components(pairs, len(x))
    by_distance = np.lexsort((np.arange(len(x)), distances[group], components))
    closest = np.unique(components[by_distance], return_index=True)[1]
    return Duplicates(
        np.sort(by_distance[closest]),
        components,
        pairs,
        np.concatenate([np.ones(len(same), np.float32), near.similarity]),
        np.arange(len(pairs)) < len(same),
    )


def content_digests(items: np.ndarray) -> np.ndarray:
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
    for row, item in enumerate(items):
        item = item + items.dtype.type(0) if floats else item
        digest = hashlib.blake2b(np.ascontiguousarray(item).tobytes(), digest_size=16)
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


def agreement(
    duplicates: Duplicates, x: np.ndarray, threshold: float, queries: np.ndarray | None = None
) -> Agreement:
    """Compares detected duplicates with brute force over every pair of a query and a row.

    Args:
        duplicates: result of :func:`deduplicate`.
        x: rows ``[n, d]``.
        threshold: cosine similarity at or above which two rows are duplicates. Rows of equal
            content are duplicates in any case.
        queries: rows that are compared with all others for recall and purity. All by default,
            which takes ``n x n`` products, a few at a time. Each pair is then counted twice.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.curation import agreement, deduplicate
        >>> x = np.array([[1.0, 0], [0, 1], [1, 0], [0.99, 0.01]])
        >>> measured = agreement(deduplicate(x, threshold=None), x, threshold=0.95)
        >>> round(measured.recall, 2), measured.precision
        (0.33, 1.0)
    """
    group = first_of_same(content_digests(x))[1]
    queries = np.arange(len(x)) if queries is None else queries
    n_alike = n_joined = n_both = n_right = 0
    with _unit_rows(x, np.arange(len(x)), None) as unit:
        wide = unit.astype(np.float64)
    block = max(1, 2**24 // len(x))
    for begin in range(0, len(queries), block):
        rows = queries[begin : begin + block]
        alike = (wide[rows] @ wide.T >= threshold) | (group[rows][:, None] == group[None, :])
        joined = duplicates.components[rows][:, None] == duplicates.components[None, :]
        for pairs in (alike, joined):
            pairs[np.arange(len(rows)), rows] = False  # no row counts as its own duplicate
        n_alike += int(alike.sum())
        n_joined += int(joined.sum())
        n_both += int((alike & joined).sum())
    for begin in range(0, len(duplicates.pairs), _CHUNK):
        i, j = duplicates.pairs[begin : begin + _CHUNK].T
        cosine = np.einsum("pd,pd->p", wide[i], wide[j])
        n_right += int(np.sum((cosine >= threshold) | (group[i] == group[j])))
    fraction = lambda part, whole: part / whole if whole else 1.0
    return Agreement(
        fraction(n_both, n_alike),
        fraction(n_right, len(duplicates.pairs)),
        fraction(n_both, n_joined),
        n_alike,
    )


@contextmanager
def _unit_rows(x: np.ndarray, rows: np.ndarray, memory_limit: int | None) -> Iterator[np.ndarray]:
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
        faults = []
        for begin in range(0, len(rows), _CHUNK):
            in_chunk = rows[begin : begin + _CHUNK]
            chunk = x[in_chunk].astype(np.float64)
            if not np.isfinite(chunk).all():
                faults.append(faults_of(chunk, in_chunk, beyond=False))
                continue
            unit[begin : begin + _CHUNK] = directions(chunk)
        refuse(faults, "x")
        yield unit


def _equal_rows(unit: np.ndarray, labels: np.ndarray, threshold: float) -> Pairs:
    """Returns pairs of bitwise equal rows of a cluster, each row with the first of its equals.

    A row near to one of several equal rows is near to all of them, so that only the first need be
    searched. Otherwise copies of a row would cost time in the square of their number.

    Args:
        unit: float32 ``[n, d]``, rows of length 1 or 0.
        labels: int ``[n]``, cluster of each row.
        threshold: number that the product of a row with itself must reach, which excludes zeros.
    """
    digests = np.concatenate([content_digests(unit), labels[:, None].astype(np.uint64)], axis=1)
    first, group = first_of_same(digests)
    others = np.setdiff1d(np.arange(len(unit)), first)
    product = np.empty(len(others))
    for begin in range(0, len(others), _CHUNK):
        chunk = unit[others[begin : begin + _CHUNK]].astype(np.float64)
        product[begin : begin + _CHUNK] = np.einsum("pd,pd->p", chunk, chunk)
    near = product >= threshold
    pairs = np.stack([first[group[others]], others], axis=1)[near]
    return Pairs(pairs, product[near].astype(np.float32))


def _neighborhoods(
    tree: ClusterTree, level: int, n: int, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns labels, centroids and distances of rows at a level of a tree."""
    check_tree(tree)
    if tree.n_points != n:
        raise InputError(f"tree has {tree.n_points} points, but x has {n} rows")
    labels, centroids = tree.point_labels(level), tree.levels[level - 1].centroids
    if not centroids.shape[1]:
        raise InputError("tree has no centroids to tell which clusters are near each other")
    return labels[rows], centroids, tree.levels[0].distances[rows]


def _components(pairs: np.ndarray, n: int) -> np.ndarray:
    """Returns the connected component of each row, int64 ``[n]``, numbered by their first rows."""
    graph = coo_array((np.ones(len(pairs), bool), pairs.T), shape=(n, n))
    labels = connected_components(graph, directed=False)[1]
    first, inverse = np.unique(labels, return_index=True, return_inverse=True)[1:]
    return np.argsort(np.argsort(first))[inverse]
