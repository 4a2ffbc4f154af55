"""Settings of one level of hierarchical k-means."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from jaxcurate.checks import (
    InputError,
    check_choice,
    check_given,
    check_instance,
    check_whole,
    short_repr,
)

Resample = Literal["closest", "random"]


@dataclass(frozen=True)
class Level:
    """Settings of one level of hierarchical k-means.

    Raises:
        InputError: a field cannot be used; the message names it.

    Examples:
        A level of 1000 clusters, refined by 10 rounds of k-means on 15 points of each cluster:

        >>> import jaxcurate as jc
        >>> level = jc.Level(1000, n_resamples=10, n_per_cluster=15)
        >>> level.resampled
        True
        >>> jc.Level(1000).resampled
        False
    """

    n_clusters: int
    """Number of clusters ``k``, before splits."""
    n_resamples: int = 0
    """Number ``m`` of rounds of k-means on resampled points."""
    n_per_cluster: int = 1
    """Number ``r`` of points that each cluster gives to a round. 1 turns resampling off."""
    n_splits: int = 1
    """Number of parts that each cluster is split into, by a k-means of its own."""
    n_fit: int | None = None
    """Number of rows, drawn at random, that the centroids are fitted to. All by default."""
    resample: Resample = "closest"
    """Choice of the points that a cluster gives to a round: the closest to its centroid, or any."""

    def __post_init__(self) -> None:
        for name, least in (
            ("n_clusters", 1),
            ("n_resamples", 0),
            ("n_per_cluster", 0),
            ("n_splits", 1),
        ):
            check_whole(name, getattr(self, name), least)
        check_choice("resample", self.resample, get_args(Resample))
        if self.n_splits > 1 and self.resampled:
            raise InputError("n_splits and n_resamples exclude each other on one level")
        check_given("n_fit", self.n_fit, "makes the centroids from all rows")
        if self.n_fit is not None and self.n_fit < self.n_clusters * self.n_splits:
            raise InputError(
                f"n_fit={self.n_fit} rows cannot make {self.n_clusters * self.n_splits} clusters"
            )

    @property
    def resampled(self) -> bool:
        """True if the level has rounds of resampling."""
        return self.n_resamples > 0 and self.n_per_cluster > 1


def check_levels(levels: Sequence[Level], n: int | None = None) -> None:
    """Refuses levels if one of them has more clusters than the level below it.

    Args:
        levels: settings of the levels, bottom up.
        n: number of rows that the first level clusters, if it is known.

    Raises:
        InputError: a level has too many clusters, or ``levels`` is no list of :class:`Level`.

    Examples:
        >>> check_levels([Level(10), Level(4)], n=100)
        >>> check_levels([Level(200), Level(4)], n=100)
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: level 1 asks for 200 clusters, but there are only 100 rows
    """
    if isinstance(levels, str | Level) or not isinstance(levels, Sequence):
        raise InputError(f"levels must be a list of Level, not {short_repr(levels)}")
    if not levels:
        raise InputError("levels is empty")
    for i, level in enumerate(levels):
        hint = f"Level({level!r}) has so many clusters" if isinstance(level, int) else ""
        check_instance(f"levels[{i}]", level, Level, hint)
    below, kind, where = n, "row", ""
    for number, level in enumerate(levels, 1):
        total = level.n_clusters * level.n_splits
        if below is not None and total > below:
            there = f"is only 1 {kind}" if below == 1 else f"are only {below} {kind}s"
            raise InputError(f"level {number} asks for {total} clusters, but there {there}{where}")
        below, kind, where = total, "cluster", f" at level {number}"
