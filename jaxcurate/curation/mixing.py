"""Mixing: a curated, a retrieved and a raw part of one subset, each row with why it was kept."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from jaxcurate.artifacts.tree import ClusterTree, Metric, check_tree
from jaxcurate.checks import InputError, check_given, check_name, check_whole, checked_rows
from jaxcurate.curation.baselines import sample_uniform
from jaxcurate.curation.sampling import ShortfallWarning, Strategy, sample
from jaxcurate.neighbors.nearest_rows import Neighbors
from jaxcurate.stateless_random import other_seed


@dataclass(frozen=True)
class Mix:
    """The shares of a mixed subset, which add up to 1.

    DINOv3 found a mixture better than any of its parts: curated by clustering, retrieved around
    trusted data sets, and raw.

    Raises:
        ValueError: naming the field that cannot be used.

    References:
        Simeoni et al., DINOv3, 2025, section 3.1 and table 1. https://arxiv.org/abs/2508.10104
    """

    curated: float
    """Balanced over the tree."""
    retrieved: float
    """Nearest to the references, each as often as the others."""
    raw: float
    """Uniformly at random, of all that was not taken before."""

    def __post_init__(self) -> None:
        for name, share in vars(self).items():
            if not 0 <= share <= 1:
                raise InputError(f"{name}={share} must be within [0, 1]")
        total = sum(vars(self).values())
        if abs(total - 1) > 1e-6:
            raise InputError(f"curated, retrieved and raw add up to {total:g}, not to 1")

    def sizes(self, size: int) -> dict[str, int]:
        """Returns whole numbers in these shares that add up to ``size``: largest remainders
        first."""
        shares = {name: Fraction(share) for name, share in vars(self).items()}
        exact = {name: share * size / sum(shares.values()) for name, share in shares.items()}
        sizes = {name: int(number) for name, number in exact.items()}
        by_rest = sorted(exact, key=lambda name: sizes[name] - exact[name])
        for name in by_rest[: size - sum(sizes.values())]:
            sizes[name] += 1
        return sizes


@dataclass(frozen=True)
class MixConfig:
    """Parts of the subset, as `Mix` has them: curated alone by default.

    References are items like the pool's and are embedded in the same way: an encoder that is
    fitted to the pool is fitted once more.
    """

    curated: float = 1.0
    """Fraction of the subset that is balanced over the tree."""
    retrieved: float = 0.0
    """Fraction of the subset that is nearest to the references."""
    raw: float = 0.0
    """Fraction of the subset that is drawn uniformly from all other rows."""
    references: str | None = None
    """Source of the references, named as the pool's."""
    split: str = "train"
    """Split of a TFDS dataset that holds the references."""
    n_per_query: int = 10
    """Rows that one reference can add at most."""
    metric: Metric = "cosine"
    """Distance by which rows are near to a reference."""

    def __post_init__(self) -> None:
        check_whole("n_per_query", self.n_per_query, 1)
        check_given("references", self.references, "retrieves nothing")
        if self.shares.retrieved and not self.references:
            raise InputError(f"retrieved={self.retrieved} needs references to be near to")

    @property
    def shares(self) -> Mix:
        """The shares alone."""
        return Mix(self.curated, self.retrieved, self.raw)

    @property
    def is_mixed(self) -> bool:
        """Whether there is any other part than the curated one."""
        return bool(self.retrieved or self.raw)


@dataclass(frozen=True)
class SampleConfig:
    """Settings of the balanced subset and of its folder."""

    size: int
    """Rows of the subset."""
    name: str = "curated"
    """Name of the folders in `subsets/` and `exports/`."""
    strategy: Strategy = "random"
    """Rows of a cluster that are taken: any, or those closest to its centroid."""
    max_repeats: int = 1
    """Times that one row may be in the subset."""
    mix: MixConfig = field(default_factory=MixConfig)

    def __post_init__(self) -> None:
        for name in ("size", "max_repeats"):
            check_whole(name, getattr(self, name), 1)
        if self.mix.is_mixed and self.max_repeats > 1:
            raise InputError(f"max_repeats={self.max_repeats} must be 1 in a mixture (mix)")
        check_name(self.name)


def mix(
    tree: ClusterTree,
    size: int,
    shares: Mix,
    neighbours: Neighbors | None = None,
    *,
    strategy: Strategy = "random",
    seed: int = 0,
    rows: np.ndarray | None = None,
    ids: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Returns a subset in parts, none of which has a row of another.

    The curated part is drawn first. The retrieved one takes every query's nearest row, then every
    query's second... skipping rows that are taken; where the queries name too few rows it stays
    smaller, a :class:`ShortfallWarning` says so, and the raw part, which is drawn last, makes up
    for it. The total is exact unless the pool is too small.

    Args:
        tree: over ``n`` points.
        size: how many rows are wanted in all.
        shares: of the parts.
        neighbours: from :func:`jaxcurate.neighbors.nearest_rows.nearest_rows`; their number for
            each query is the cap on what it can add. Needed for a retrieved part.
        strategy: of the curated part.
        seed: of everything random.
        rows: distinct numbers of the rows that may be taken; all by default.
        ids: as :func:`jaxcurate.sample` takes them.

    Returns:
        ``curated``, ``retrieved`` and ``raw``: int64, sorted, disjoint.

    Raises:
        ValueError: naming the argument that cannot be used.
    """
    check_tree(tree)
    check_whole("size", size, 0)
    wanted = shares.sizes(size)
    allowed = np.zeros(tree.n_points, bool)
    allowed[slice(None) if rows is None else checked_rows(rows, tree.n_points)] = True
    if wanted["retrieved"] and neighbours is None:
        raise InputError(f"retrieved={shares.retrieved} needs neighbours, but there are none")
    if neighbours is not None:
        checked_rows(np.unique(neighbours.rows), tree.n_points, "neighbours")
    curated = sample(tree, wanted["curated"], strategy, seed=seed, rows=rows, ids=ids)
    allowed[curated] = False
    retrieved = np.zeros(0, np.int64)
    if neighbours is not None and wanted["retrieved"]:
        retrieved = _in_turn(neighbours, allowed, wanted["retrieved"])
    allowed[retrieved] = False
    missing = wanted["retrieved"] - len(retrieved)
    if missing:
        warnings.warn(
            f"{wanted['retrieved']} retrieved items wanted, the queries name {len(retrieved)} "
            f"that are not taken: {missing} are drawn at random instead",
            ShortfallWarning,
            stacklevel=2,
        )
    # By the same seed a row that the curated part passed over would be passed over again.
    left, size_left = np.flatnonzero(allowed), size - len(curated) - len(retrieved)
    raw = sample_uniform(tree, size_left, seed=other_seed(seed, 1), rows=left, ids=ids)
    return {"curated": curated, "retrieved": retrieved, "raw": raw}


def indices_of(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns all rows of a mixture, int64, sorted."""
    return np.sort(np.concatenate(list(parts.values())))


def _in_turn(neighbours: Neighbors, allowed: np.ndarray, size: int) -> np.ndarray:
    """Returns so many distinct allowed rows: all nearest ones before any second, closest first."""
    rank = np.broadcast_to(np.arange(neighbours.rows.shape[1]), neighbours.rows.shape)
    order = np.lexsort((neighbours.distances.ravel(), rank.ravel()))
    rows = neighbours.rows.ravel()[order]
    rows = rows[allowed[rows]]
    _, first = np.unique(rows, return_index=True)
    return np.sort(rows[np.sort(first)[:size]])
