"""A tree of clusters as flat arrays: points below, ever fewer clusters above."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from jaxcurate import workdir


class TreeLevel(NamedTuple):
    """One level: the clusters over the points, or over the clusters of the level below."""

    centroids: np.ndarray
    """float32 ``[k, d]``; ``[k, 0]`` in a tree that was made from labels alone."""
    labels: np.ndarray
    """int32 ``[m]``: the cluster of each of the ``m`` points or clusters below."""
    distances: np.ndarray
    """float32 ``[m]``: squared Euclidean, to the own centroid; NaN where unknown."""


@dataclass(frozen=True)
class ClusterTree:
    """Levels from the bottom up: level 1 clusters points, level 2 the clusters of level 1.

    A cluster may be empty, at any level.
    """

    levels: tuple[TreeLevel, ...]

    def __post_init__(self) -> None:
        if not self.levels:
            raise ValueError("a tree needs at least one level")
        below = self.n_points
        for number, level in enumerate(self.levels, 1):
            k = len(level.centroids)
            if level.labels.shape != (below,) or level.distances.shape != (below,):
                raise ValueError(
                    f"level {number} must have {below} labels and distances, one for each "
                    f"{'point' if number == 1 else 'cluster of the level below'}; "
                    f"it has {level.labels.shape} and {level.distances.shape}"
                )
            if below and not 0 <= level.labels.min() <= level.labels.max() < k:
                raise ValueError(f"level {number} has labels outside its {k} clusters")
            below = k

    @property
    def n_points(self) -> int:
        """How many points the tree clusters."""
        return len(self.levels[0].labels)

    def n_clusters(self, level: int) -> int:
        """How many clusters a level has; levels count from 1."""
        return len(self._at(level).centroids)

    def point_labels(self, level: int) -> np.ndarray:
        """The cluster of every point at a level, int32 ``[n]``; levels count from 1."""
        self._at(level)
        labels = self.levels[0].labels
        for above in self.levels[1:level]:
            labels = above.labels[labels]
        return labels

    def point_counts(self, level: int) -> np.ndarray:
        """How many points lie below each cluster of a level, int64 ``[k]``."""
        self._at(level)
        return self._point_counts[level - 1]

    def counts_of(self, leaves: np.ndarray) -> list[np.ndarray]:
        """How many of some points lie below each cluster, int64 ``[k]``, level by level.

        Args:
            leaves: the level-1 clusters ``[m]`` of those points.
        """
        counts = [np.bincount(leaves, minlength=self.n_clusters(1))]
        for number, level in enumerate(self.levels[1:], 2):
            # Whole numbers below 2^53 add up exactly in bincount's float64.
            sums = np.bincount(level.labels, counts[-1], minlength=self.n_clusters(number))
            counts.append(sums.astype(np.int64))
        return counts

    def save(self, path: epath.PathLike, about: Mapping[str, Any] | None = None) -> None:
        """Writes the tree to a folder, whole or not at all; ``about`` joins its card."""
        with workdir.new_folder(path, {**(about or {}), "n_levels": len(self.levels)}) as folder:
            for number, level in enumerate(self.levels, 1):
                for name, array in level._asdict().items():
                    workdir.save_array(folder / f"l{number}_{name}.npy", array)

    @classmethod
    def load(cls, path: epath.PathLike) -> "ClusterTree":
        """Reads a tree's folder.

        Raises:
            DamagedError: a file is missing, truncated or altered; it is named.
        """
        card = workdir.check_files(path)
        folder = epath.Path(path)
        return cls(
            tuple(
                TreeLevel(
                    *(
                        workdir.load_array(folder / f"l{number}_{name}.npy")
                        for name in TreeLevel._fields
                    )
                )
                for number in range(1, card["n_levels"] + 1)
            )
        )

    @classmethod
    def from_labels(
        cls, labels: Sequence[np.ndarray], distances: np.ndarray | None = None
    ) -> "ClusterTree":
        """A tree that was made elsewhere, from the parent of each point and cluster.

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
                raise ValueError(f"labels of level {number} must be integers [m], m > 0")
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

    def _at(self, level: int) -> TreeLevel:
        if not 1 <= level <= len(self.levels):
            raise ValueError(f"level={level}, but the tree has levels 1 to {len(self.levels)}")
        return self.levels[level - 1]
