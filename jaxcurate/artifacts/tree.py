"""A tree of clusters as flat arrays: points below, ever fewer clusters above."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from etils import epath
from scipy.sparse import csr_array

from jaxcurate.artifacts import files, folders
from jaxcurate.checks import InputError, check_choice, check_instance, check_whole

Metric = Literal["euclidean", "cosine"]
_BLOCK = 1 << 15
KIND = "tree"


class SurplusWarning(UserWarning):
    """There are fewer distinct rows than clusters, so that some clusters are empty."""


class TreeLevel(NamedTuple):
    """One level: the clusters over the points, or over the clusters of the level below."""

    centroids: np.ndarray
    """float32 ``[k, d]``; ``[k, 0]`` in a tree that was made from labels alone."""
    labels: np.ndarray
    """int32 ``[m]``: the cluster of each of the ``m`` points or clusters below."""
    distances: np.ndarray
    """float32 ``[m]``: squared, to the own centroid; NaN where unknown."""


@dataclass(frozen=True)
class ClusterTree:
    """Levels from the bottom up: level 1 clusters points, level 2 the clusters of level 1.

    A cluster may be empty, at any level. What is derived from the levels (counts, the order of
    points by cluster) is made when it is first asked for, and kept.
    """

    levels: tuple[TreeLevel, ...]
    pool: str = ""
    """Fingerprint of the pool whose rows are the points; "" where it is not known."""
    metric: Metric = "euclidean"
    """Metric of the distances: squared Euclidean, for ``"cosine"`` between rows of length 1: 2 - 2
    cos."""

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
        """Refuses a pool that the tree is not over.

        Args:
            pool: its fingerprint.
            n: how many rows it has.

        Raises:
            ValueError: naming both fingerprints, or both numbers of rows where the tree does not
                know its pool.
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
        """Returns how many clusters a level has; levels count from 1."""
        return len(self._at(level).centroids)

    def n_surplus(self, level: int) -> int:
        """Clusters of a level that are empty because another has the same centroid.

        There are any only where the rows (or centroids) that the level was made from had fewer
        distinct ones among them than there are clusters.
        """
        found = self._at(level)
        return n_surplus(found.centroids, found.labels)

    def surplus_lines(self) -> list[str]:
        """Tells in a line each which levels have clusters that :meth:`n_surplus` counts."""
        return surplus_lines(self.surplus)

    @property
    def surplus(self) -> dict[str, tuple[int, int]]:
        """For each level by its name, :meth:`n_surplus` and how many clusters it has in all."""
        numbers = range(1, len(self.levels) + 1)
        return {f"level {i}": (self.n_surplus(i), self.n_clusters(i)) for i in numbers}

    def point_labels(self, level: int) -> np.ndarray:
        """Returns the cluster of every point at a level, int32 ``[n]``; levels count from 1."""
        self._at(level)
        labels = self.levels[0].labels
        for above in self.levels[1:level]:
            labels = above.labels[labels]
        return labels

    def point_counts(self, level: int) -> np.ndarray:
        """Returns how many points lie below each cluster of a level, int64 ``[k]``."""
        self._at(level)
        return self._point_counts[level - 1]

    def counts_of(self, leaves: np.ndarray) -> list[np.ndarray]:
        """Returns how many of some points lie below each cluster, int64 ``[k]``, level by level.

        Args:
            leaves: the level-1 clusters ``[m]`` of those points.
        """
        # In the smallest type and in blocks: bincount would copy the leaves to twice their size.
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
        """Returns what lies directly below a cluster, int64, sorted: points, or clusters one level
        down.

        Raises:
            ValueError: there is no such level or cluster.
        """
        k = self.n_clusters(level)
        check_whole("cluster", cluster, 0)
        if cluster >= k:
            raise InputError(f"cluster={cluster}, but level {level} has clusters 0 to {k - 1}")
        return self._below(level, np.array([cluster]))

    def members(self, level: int, cluster: int) -> np.ndarray:
        """Returns the points below a cluster, int64, sorted; levels count from 1.

        Takes time in proportion to what it returns, but for the first call at a level, which
        sorts the level's labels.

        Raises:
            ValueError: there is no such level or cluster.
        """
        found = self.children(level, cluster)
        for number in range(level - 1, 0, -1):
            found = self._below(number, found)
        return np.sort(found)

    def path(self, row: int) -> tuple[int, ...]:
        """Returns the clusters that a point lies in, bottom up.

        Raises:
            ValueError: there is no such point.
        """
        check_whole("row", row, 0)
        if row >= self.n_points:
            raise InputError(f"row={row}, but the tree has points 0 to {self.n_points - 1}")
        found = [int(self.levels[0].labels[row])]
        for above in self.levels[1:]:
            found.append(int(above.labels[found[-1]]))
        return tuple(found)

    def save(self, path: epath.PathLike, about: Mapping[str, Any] | None = None) -> None:
        """Writes the tree to a folder, whole or not at all; ``about`` joins its card.

        Raises:
            InputError: something other than a tree that jaxcurate wrote stands there, or it
                cannot be written.
        """
        with folders.new_folder(path, self.card(about), KIND) as folder:
            self.fill(folder)

    def card(self, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns ``about`` with the facts that the card of a tree's folder tells."""
        about = {"pool": self.pool, **(about or {})}
        return about | {"metric": self.metric, "n_levels": len(self.levels)}

    def fill(self, folder: folders.NewFolder) -> None:
        """Writes the files of a tree."""
        for number, level in enumerate(self.levels, 1):
            for name, array in level._asdict().items():
                folder.save_array(f"l{number}_{name}.npy", array)

    @classmethod
    def load(cls, path: epath.PathLike, *, mmap: bool = True, check: bool = True) -> "ClusterTree":
        """Reads a tree's folder.

        Args:
            path: the folder.
            mmap: read the arrays lazily, where the file system can.
            check: hold every file against its checksum, which reads all of it; otherwise only
                sizes are checked.

        Raises:
            DamagedError: a file is missing, truncated or altered; it is named.
        """
        card = (folders.check_files if check else folders.check_sizes)(path)
        folder = epath.Path(path)
        read = lambda name: files.load_array(folder / name, mmap=mmap)
        return cls(
            tuple(
                TreeLevel(*(read(f"l{number}_{name}.npy") for name in TreeLevel._fields))
                for number in range(1, card["n_levels"] + 1)
            ),
            card.get("pool", ""),
            card.get("metric", "euclidean"),  # cards of older trees do not tell
        )

    @classmethod
    def from_labels(
        cls, labels: Sequence[np.ndarray], distances: np.ndarray | None = None
    ) -> "ClusterTree":
        """Returns a tree that was made elsewhere, from the parent of each point and cluster.

        Args:
            labels: for each level, bottom up, the cluster of each point or cluster below:
                integers ``[n]``, then ``[k_1]``, ``[k_2]``... A cluster that no label names is
                empty; the last level has as many clusters as its largest label tells.
            distances: ``[n]``, of the points to their centroids; unknown (NaN) by default.

        Raises:
            ValueError: the labels do not make a tree.
        """
        arrays = [np.asarray(level) for level in labels]
        for number, array in enumerate(arrays, 1):
            if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer) or not len(array):
                raise InputError(f"labels of level {number} must be integers [m], m > 0")
            if not 0 <= array.min() <= array.max() < 2**31:  # int32 would name other clusters
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
        """Returns the points or clusters directly below clusters ``[m]`` of a level, in their
        order."""
        if level not in self._orders:
            labels, k = self._at(level).labels, self.n_clusters(level)
            # By columns instead of rows: a counting sort, several times faster than argsort.
            entries = np.ones(len(labels), np.int8), labels, np.arange(len(labels) + 1)
            by_cluster = csr_array(entries, shape=(len(labels), k)).tocsc()
            self._orders[level] = by_cluster.indices, by_cluster.indptr
        order, offsets = self._orders[level]
        first, counts = offsets[clusters], offsets[clusters + 1] - offsets[clusters]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return order[np.repeat(first, counts) + within].astype(np.int64)

    def _at(self, level: int) -> TreeLevel:
        check_whole("level", level)
        if not 1 <= level <= len(self.levels):
            raise InputError(f"level={level}, but the tree has levels 1 to {len(self.levels)}")
        return self.levels[level - 1]


def check_tree(tree: Any) -> None:
    """Refuses what is no tree, such as the result of k-means.

    Raises:
        ValueError: naming its type.
    """
    hint = "ClusterTree.from_labels([result.labels], result.distances) makes one of k-means"
    check_instance("tree", tree, ClusterTree, hint if hasattr(tree, "labels") else "")


def n_surplus(centroids: np.ndarray, labels: np.ndarray) -> int:
    """Counts the clusters that are empty because another has the same centroid.

    Takes no time to speak of where no cluster is empty.

    Args:
        centroids: float32 ``[k, d]``; of ``[k, 0]`` nothing is known, and there are none.
        labels: int ``[m]``.
    """
    filled = np.zeros(len(centroids), bool)
    filled[labels] = True
    if filled.all() or not centroids.shape[1]:
        return 0
    # Adding 0 turns -0 into 0: equal numbers have equal bytes.
    points = np.ascontiguousarray(centroids + np.float32(0)).view(f"V{4 * centroids.shape[1]}")
    order = np.argsort(~filled, kind="stable")  # those with rows come first
    _, first = np.unique(points[order, 0], return_index=True)
    return int((~filled).sum() - (~filled[order[first]]).sum())


def surplus_lines(surplus: Mapping[str, tuple[int, int]]) -> list[str]:
    """Tells in a line each which levels have fewer distinct rows than clusters.

    Args:
        surplus: by the name of a level, what :func:`n_surplus` counts, and how many clusters it
            has in all.
    """
    return [
        f"{name}: {empty} of {n_clusters} clusters are empty, because there were fewer distinct "
        "rows than clusters to make them from"
        for name, (empty, n_clusters) in surplus.items()
        if empty
    ]


def warn_of_surplus(surplus: Mapping[str, tuple[int, int]]) -> None:
    """Warns the caller of a public function of what :func:`surplus_lines` tells."""
    if lines := surplus_lines(surplus):
        warnings.warn("; ".join(lines), SurplusWarning, stacklevel=3)
