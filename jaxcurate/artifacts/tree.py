"""Trees of clusters as flat arrays: points at the bottom, fewer clusters at each level above."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from etils import epath
from scipy.sparse import csr_array

from jaxcurate.artifacts import files, folders
from jaxcurate.artifacts.lazy_rows import PART_BYTES
from jaxcurate.checks import InputError, check_choice, check_instance, check_whole

Metric = Literal["euclidean", "cosine"]
_BLOCK = 1 << 15
KIND = "tree"


class SurplusWarning(UserWarning):
    """Warning that there were fewer distinct rows than clusters, so that clusters are empty."""


class TreeLevel(NamedTuple):
    """Clusters of the points, or of the clusters of the level below."""

    centroids: np.ndarray
    """float32 ``[k, d]``, or ``[k, 0]`` in a tree that was made from labels alone."""
    labels: np.ndarray
    """int32 ``[m]``: cluster of each of the ``m`` points or clusters below."""
    distances: np.ndarray
    """float32 ``[m]``: squared distances to the centroid of the cluster, NaN if unknown."""


@dataclass(frozen=True)
class ClusterTree:
    """Tree of clusters. Level 1 clusters the points, level 2 the clusters of level 1, and so on.

    Clusters may be empty at any level. Counts, and the order of points by cluster, are computed
    at the first use and kept.

    Examples:
        Four points in three clusters, and these in two:

        >>> import jaxcurate as jc
        >>> tree = jc.ClusterTree.from_labels([[0, 1, 2, 2], [0, 1, 1]])
        >>> tree.point_labels(level=2)
        array([0, 1, 1, 1], dtype=int32)
        >>> tree.members(level=2, cluster=1)
        array([1, 2, 3])
    """

    levels: tuple[TreeLevel, ...]
    """Levels, bottom up."""
    pool: str = ""
    """Fingerprint of the pool whose rows are the points. "" if it is unknown."""
    metric: Metric = "euclidean"
    """Metric of the squared Euclidean distances. With ``"cosine"``, they are between rows of
    length 1, and equal 2 - 2 cos."""

    def __post_init__(self) -> None:
        check_choice("metric", self.metric, get_args(Metric))
        if not self.levels:
            raise InputError("a tree needs at least one level")
        below = self.n_points
        for number, level in enumerate(self.levels, 1):
            k = len(level.centroids)
            if level.labels.shape != (below,) or level.distances.shape != (below,):
                raise InputError(
                    f"level {number} must have {below} labels and distances, one for each "
                    f"{'point' if number == 1 else 'cluster of the level below'}; "
                    f"it has {level.labels.shape} and {level.distances.shape}"
                )
            if below and not 0 <= level.labels.min() <= level.labels.max() < k:
                raise InputError(f"level {number} has labels outside its {k} clusters")
            below = k

    def check_over(self, pool: str, n: int) -> None:
        """Refuses a pool other than that of the tree.

        Args:
            pool: fingerprint of the pool.
            n: number of its rows.

        Raises:
            InputError: the fingerprints differ, or the numbers of rows; the message names both.
        """
        if self.pool and self.pool != pool:
            raise InputError(f"the tree was made from pool {self.pool}, but the pool is {pool}")
        if self.n_points != n:
            raise InputError(f"the tree is over {self.n_points} points, the pool has {n} rows")

    @property
    def n_points(self) -> int:
        """Number of points that the tree clusters."""
        return len(self.levels[0].labels)

    def n_clusters(self, level: int) -> int:
        """Returns the number of clusters of a level. Levels count from 1."""
        return len(self._level(level).centroids)

    def n_surplus(self, level: int) -> int:
        """Counts the clusters of a level that are empty because another has the same centroid.

        There are none unless the level was made from fewer distinct rows (or centroids) than it
        has clusters.
        """
        counted = self._level(level)
        return n_surplus(counted.centroids, counted.labels)

    def surplus_lines(self) -> list[str]:
        """Returns a line of text for each level with clusters that :meth:`n_surplus` counts."""
        return surplus_lines(self.surplus)

    @property
    def surplus(self) -> dict[str, tuple[int, int]]:
        """Result of :meth:`n_surplus` and number of all clusters, by the name of the level."""
        numbers = range(1, len(self.levels) + 1)
        return {f"level {i}": (self.n_surplus(i), self.n_clusters(i)) for i in numbers}

    def point_labels(self, level: int) -> np.ndarray:
        """Returns the cluster of every point at a level, int32 ``[n]``. Levels count from 1."""
        self._level(level)
        labels = self.levels[0].labels
        for above in self.levels[1:level]:
            labels = above.labels[labels]
        return labels

    def point_counts(self, level: int) -> np.ndarray:
        """Returns the number of points below each cluster of a level, int64 ``[k]``."""
        self._level(level)
        return self._point_counts[level - 1]

    def counts_of(self, leaves: np.ndarray) -> list[np.ndarray]:
        """Returns the number of given points below each cluster, int64 ``[k]`` for each level.

        Args:
            leaves: level-1 clusters ``[m]`` of the points.
        """
        # The smallest type, block by block: bincount would copy the leaves to twice their size.
        small = np.zeros(self.n_clusters(1), np.min_scalar_type(len(leaves)))
        for begin in range(0, len(leaves), _BLOCK):
            np.add.at(small, leaves[begin : begin + _BLOCK], small.dtype.type(1))
        counts = [small.astype(np.int64)]
        for number, level in enumerate(self.levels[1:], 2):
            # Whole numbers below 2^53 add up exactly in bincount's float64.
            sums = np.bincount(level.labels, counts[-1], minlength=self.n_clusters(number))
            counts.append(sums.astype(np.int64))
        return counts

    def children(self, level: int, cluster: int) -> np.ndarray:
        """Returns the points, or clusters of the level below, in a cluster, int64, sorted.

        Raises:
            InputError: there is no such level or cluster.
        """
        k = self.n_clusters(level)
        check_whole("cluster", cluster, 0)
        if cluster >= k:
            raise InputError(f"cluster={cluster}, but level {level} has clusters 0 to {k - 1}")
        return self._below(level, np.array([cluster]))

    def members(self, level: int, cluster: int) -> np.ndarray:
        """Returns the points below a cluster, int64, sorted. Levels count from 1.

        The first call at a level sorts its labels. Further calls take time in proportion to the
        size of the result.

        Raises:
            InputError: there is no such level or cluster.
        """
        below = self.children(level, cluster)
        for number in range(level - 1, 0, -1):
            below = self._below(number, below)
        return np.sort(below)

    def save(
        self,
        path: epath.PathLike,
        about: Mapping[str, Any] | None = None,
        part_bytes: int = PART_BYTES,
    ) -> None:
        """Writes the tree to a folder, which appears whole or not at all.

        Args:
            path: path of the folder.
            about: further entries of its card.
            part_bytes: largest size in bytes of a file of labels or distances.

        Raises:
            InputError: the path holds something other than a tree that jaxcurate wrote, or it
                cannot be written.
        """
        with folders.new_folder(path, self.card(about), KIND) as folder:
            self.fill(folder, part_bytes)

    def card(self, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns the entries of the card of a tree's folder, ``about`` included."""
        about = {"pool": self.pool, **(about or {})}
        return about | {"metric": self.metric, "n_levels": len(self.levels)}

    def fill(self, folder: folders.NewFolder, part_bytes: int = PART_BYTES) -> None:
        """Writes the files of the tree to a folder that is being written.

        Labels or distances of more than ``part_bytes`` bytes are written to several files, such as
        ``l1_labels/000000.npy``, whose entries follow each other.
        """
        for number, level in enumerate(self.levels, 1):
            for name, array in level._asdict().items():
                step = max(1, part_bytes // array.itemsize)
                if name == "centroids" or len(array) <= step:
                    folder.save_array(f"l{number}_{name}.npy", array)
                    continue
                for index, begin in enumerate(range(0, len(array), step)):
                    part = array[begin : begin + step]
                    folder.save_array(f"l{number}_{name}/{index:06d}.npy", part)

    @classmethod
    def load(cls, path: epath.PathLike, *, mmap: bool = True, check: bool = True) -> "ClusterTree":
        """Reads the folder of a tree.

        Args:
            path: path of the folder.
            mmap: open the arrays as memory maps, if the file system can and they lie in one file
                each. Labels and distances in several files are read.
            check: compare every file with its checksum, which reads it as a whole. Otherwise only
                sizes are checked.

        Raises:
            DamagedError: a file is missing, truncated or altered; the message names it.
        """
        card = (folders.check_files if check else folders.check_sizes)(path)
        folder = epath.Path(path)

        def read(name: str) -> np.ndarray:
            parts = sorted(file for file in card["files"] if file.startswith(f"{name}/"))
            if not parts:
                return files.load_array(folder / f"{name}.npy", mmap=mmap)
            return np.concatenate([files.load_array(folder / part, mmap=True) for part in parts])

        return cls(
            tuple(
                TreeLevel(*(read(f"l{number}_{name}") for name in TreeLevel._fields))
                for number in range(1, card["n_levels"] + 1)
            ),
            card.get("pool", ""),
            card.get("metric", "euclidean"),  # cards of older trees have no metric
        )

    @classmethod
    def from_labels(
        cls, labels: Sequence[np.ndarray], distances: np.ndarray | None = None
    ) -> "ClusterTree":
        """Returns a tree from the labels of a clustering that was made elsewhere.

        Args:
            labels: for each level, bottom up, the cluster of each point or cluster below:
                integers ``[n]``, then ``[k_1]``, ``[k_2]``... A cluster without a label is empty.
                The largest label of the last level determines its number of clusters.
            distances: distances ``[n]`` of the points to their centroids. NaN by default.

        Raises:
            InputError: the labels do not make a tree.

        Examples:
            >>> import jaxcurate as jc
            >>> tree = jc.ClusterTree.from_labels([[0, 1, 2, 2], [0, 1, 1]])
            >>> tree.n_points, tree.n_clusters(1), tree.n_clusters(2)
            (4, 3, 2)
        """
        arrays = [np.asarray(level) for level in labels]
        for number, array in enumerate(arrays, 1):
            if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer) or not len(array):
                raise InputError(f"labels of level {number} must be integers [m], m > 0")
            if not 0 <= array.min() <= array.max() < 2**31:  # int32 would overflow
                raise InputError(f"level {number} has labels outside [0, 2**31)")
        sizes = [len(above) for above in arrays[1:]]
        sizes += [int(array.max()) + 1 for array in arrays[-1:]]
        levels = [
            TreeLevel(
                np.zeros((k, 0), np.float32),
                array.astype(np.int32),
                np.full(len(array), np.nan, np.float32),
            )
            for array, k in zip(arrays, sizes, strict=True)
        ]
        if distances is not None:
            levels[0] = levels[0]._replace(distances=np.asarray(distances, np.float32))
        return cls(tuple(levels))

    @cached_property
    def _point_counts(self) -> list[np.ndarray]:
        return self.counts_of(self.levels[0].labels)

    @cached_property
    def _orders(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        return {}

    def _below(self, level: int, clusters: np.ndarray) -> np.ndarray:
        """Returns the points or clusters directly below each of the clusters ``[m]`` of a level."""
        if level not in self._orders:
            labels, k = self._level(level).labels, self.n_clusters(level)
            # From rows to columns is a counting sort, several times faster than argsort.
            entries = np.ones(len(labels), np.int8), labels, np.arange(len(labels) + 1)
            by_cluster = csr_array(entries, shape=(len(labels), k)).tocsc()
            self._orders[level] = by_cluster.indices, by_cluster.indptr
        order, offsets = self._orders[level]
        first, counts = offsets[clusters], offsets[clusters + 1] - offsets[clusters]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return order[np.repeat(first, counts) + within].astype(np.int64)

    def _level(self, level: int) -> TreeLevel:
        check_whole("level", level)
        if not 1 <= level <= len(self.levels):
            raise InputError(f"level={level}, but the tree has levels 1 to {len(self.levels)}")
        return self.levels[level - 1]


def check_tree(tree: Any) -> None:
    """Refuses an object that is no tree, such as the result of k-means.

    Raises:
        InputError: the message names the type of the object.

    Examples:
        >>> check_tree([0, 1])
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: tree must be a ClusterTree, not list
    """
    hint = "ClusterTree.from_labels([result.labels], result.distances) makes one of k-means"
    check_instance("tree", tree, ClusterTree, hint if hasattr(tree, "labels") else "")


def n_surplus(centroids: np.ndarray, labels: np.ndarray) -> int:
    """Counts the clusters that are empty because another has the same centroid.

    The time is negligible if no cluster is empty.

    Args:
        centroids: float32 ``[k, d]``. The count is 0 for ``[k, 0]``, where they are unknown.
        labels: int ``[m]``, cluster of each row.

    Examples:
        >>> n_surplus(np.array([[1], [1], [2]], np.float32), labels=np.array([0, 0, 2]))
        1
    """
    filled = np.zeros(len(centroids), bool)
    filled[labels] = True
    if filled.all() or not centroids.shape[1]:
        return 0
    # Adding 0 turns -0 into 0: equal numbers have equal bytes.
    points = np.ascontiguousarray(centroids + np.float32(0)).view(f"V{4 * centroids.shape[1]}")
    order = np.argsort(~filled, kind="stable")  # clusters with rows come first
    _, first = np.unique(points[order, 0], return_index=True)
    return int((~filled).sum() - (~filled[order[first]]).sum())


def surplus_lines(surplus: Mapping[str, tuple[int, int]]) -> list[str]:
    """Returns a line of text for each level with fewer distinct rows than clusters.

    Args:
        surplus: result of :func:`n_surplus` and number of all clusters, by the name of the level.

    Examples:
        >>> lines = surplus_lines({"level 1": (2, 10), "level 2": (0, 3)})
        >>> len(lines), lines[0][:42]
        (1, 'level 1: 2 of 10 clusters are empty, becau')
    """
    return [
        f"{name}: {empty} of {n_clusters} clusters are empty, because there were fewer distinct "
        "rows than clusters to make them from"
        for name, (empty, n_clusters) in surplus.items()
        if empty
    ]


def warn_of_surplus(surplus: Mapping[str, tuple[int, int]]) -> None:
    """Warns the caller of a public function with the text of :func:`surplus_lines`."""
    if lines := surplus_lines(surplus):
        warnings.warn("; ".join(lines), SurplusWarning, stacklevel=3)
