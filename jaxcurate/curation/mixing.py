"""Mixing: one subset of a curated, a retrieved and a raw part."""

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
    """Fractions of a mixed subset, which add up to 1.

    Simeoni et al. found that a mixture of data curated by clustering, data retrieved around
    trusted datasets, and raw data is better than each of them alone.

    Raises:
        InputError: a field cannot be used, or the fractions do not add up to 1.

    References:
        Simeoni et al., DINOv3, 2025, section 3.1 and table 1. https://arxiv.org/abs/2508.10104

    Examples:
        >>> Mix(curated=0.5, retrieved=0.25, raw=0.25).sizes(10)
        {'curated': 5, 'retrieved': 3, 'raw': 2}
    """

    curated: float
    """Fraction that is balanced over the tree."""
    retrieved: float
    """Fraction that is nearest to the references, which take turns."""
    raw: float
    """Fraction that is drawn uniformly at random from all other rows."""

    def __post_init__(self) -> None:
        for name, fraction in vars(self).items():
            if not 0 <= fraction <= 1:
                raise InputError(f"{name}={fraction} must be within [0, 1]")
        total = sum(vars(self).values())
        if abs(total - 1) > 1e-6:
            raise InputError(f"curated, retrieved and raw add up to {total:g}, not to 1")

    def sizes(self, size: int) -> dict[str, int]:
        """Returns the number of rows of each part, by the largest remainder method.

        Args:
            size: number of rows in all, the sum of the result.
        """
        exact_fractions = {name: Fraction(value) for name, value in vars(self).items()}
        total = sum(exact_fractions.values())
        exact = {name: value * size / total for name, value in exact_fractions.items()}
        sizes = {name: int(number) for name, number in exact.items()}
        by_rest = sorted(exact, key=lambda name: sizes[name] - exact[name])
        for name in by_rest[: size - sum(sizes.values())]:
            sizes[name] += 1
        return sizes


@dataclass(frozen=True)
class MixConfig:
    """Settings of a mixed subset. By default it has a curated part alone.

    References are items like those of the pool and are embedded in the same way. An encoder that
    is fitted to the pool is fitted once more for them.
    """

    curated: float = 1.0
    """Fraction of the subset that is balanced over the tree."""
    retrieved: float = 0.0
    """Fraction of the subset that is nearest to the references."""
    raw: float = 0.0
    """Fraction of the subset that is drawn uniformly from all other rows."""
    references: str | None = None
    """Name of the source of the references, in the same form as that of the pool."""
    split: str = "train"
    """Split of a TFDS dataset that holds the references."""
    n_per_query: int = 10
    """Largest number of rows that one reference can add."""
    metric: Metric = "cosine"
    """Distance from the references to the rows of the pool."""

    def __post_init__(self) -> None:
        check_whole("n_per_query", self.n_per_query, 1)
        check_given("references", self.references, "retrieves nothing")
        if self.fractions.retrieved and not self.references:
            raise InputError(f"retrieved={self.retrieved} needs references to be near to")

    @property
    def fractions(self) -> Mix:
        """Fractions of the three parts."""
        return Mix(self.curated, self.retrieved, self.raw)

    @property
    def is_mixed(self) -> bool:
        """True if the subset has another part than the curated one."""
        return bool(self.retrieved or self.raw)


@dataclass(frozen=True)
class SampleConfig:
    """Settings of the balanced subset and of its folder."""

    size: int
    """Number of rows of the subset."""
    name: str = "curated"
    """Name of the folders in `subsets/` and `exports/`."""
    strategy: Strategy = "random"
    """Choice of the rows of a cluster: any, or those closest to its centroid."""
    max_repeats: int = 1
    """Largest number of times that one row may be in the subset."""
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
    fractions: Mix,
    neighbors: Neighbors | None = None,
    *,
    strategy: Strategy = "random",
    seed: int = 0,
    rows: np.ndarray | None = None,
    ids: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Returns a subset of a curated, a retrieved and a raw part, which have no row in common.

    The curated part is drawn first. The retrieved part then takes the nearest row of every query,
    the second nearest of every query, and so on, and skips rows that are taken already. If the
    queries have too few neighbors, the retrieved part stays smaller, a :class:`ShortfallWarning`
    is given, and the raw part, which is drawn last, is larger by the difference. The total is
    ``size`` unless the pool is too small.

    Args:
        tree: tree over ``n`` points.
        size: number of rows of all parts together.
        fractions: fractions of the parts.
        neighbors: rows nearest to each query, from
            :func:`jaxcurate.neighbors.nearest_rows.nearest_rows`. Their number for one query is
            the largest number of rows that it can add. A retrieved part needs them.
        strategy: choice of the rows of a cluster in the curated part, ``"random"`` or
            ``"closest"``.
        seed: seed of all random numbers.
        rows: distinct numbers of the rows that may be taken. All by default.
        ids: distinct strings or whole numbers ``[n]``, as in :func:`jaxcurate.sample`.

    Returns:
        The rows ``curated``, ``retrieved`` and ``raw``: int64, sorted, disjoint.

    Raises:
        InputError: an argument cannot be used; the message names it.

    References:
        Simeoni et al., DINOv3, 2025, section 3.1. https://arxiv.org/abs/2508.10104

    Examples:
        Half of the subset is balanced over two clusters of 90 and 10 rows. The other half is
        drawn from the other rows:

        >>> import numpy as np
        >>> import jaxcurate as jc
        >>> from jaxcurate.curation import Mix, mix
        >>> tree = jc.ClusterTree.from_labels([np.repeat([0, 1], [90, 10])])
        >>> parts = mix(tree, 20, Mix(curated=0.5, retrieved=0, raw=0.5))
        >>> {name: len(rows) for name, rows in parts.items()}
        {'curated': 10, 'retrieved': 0, 'raw': 10}
        >>> int((parts["curated"] >= 90).sum())
        5
    """
    check_tree(tree)
    check_whole("size", size, 0)
    wanted = fractions.sizes(size)
    allowed = np.zeros(tree.n_points, bool)
    allowed[slice(None) if rows is None else checked_rows(rows, tree.n_points)] = True
    if wanted["retrieved"] and neighbors is None:
        raise InputError(f"retrieved={fractions.retrieved} needs neighbors, but there are none")
    if neighbors is not None:
        checked_rows(np.unique(neighbors.rows), tree.n_points, "neighbors")
    curated = sample(tree, wanted["curated"], strategy, seed=seed, rows=rows, ids=ids)
    allowed[curated] = False
    retrieved = np.zeros(0, np.int64)
    if neighbors is not None and wanted["retrieved"]:
        retrieved = _in_turn(neighbors, allowed, wanted["retrieved"])
    allowed[retrieved] = False
    missing = wanted["retrieved"] - len(retrieved)
    if missing:
        warnings.warn(
            f"{wanted['retrieved']} retrieved items wanted, but the queries have only "
            f"{len(retrieved)} neighbors that are not taken: {missing} items are drawn at random "
            "instead",
            ShortfallWarning,
            stacklevel=2,
        )
    # With the same seed, a row that the curated part has passed over would be passed over again.
    left, size_left = np.flatnonzero(allowed), size - len(curated) - len(retrieved)
    raw = sample_uniform(tree, size_left, seed=other_seed(seed, 1), rows=left, ids=ids)
    return {"curated": curated, "retrieved": retrieved, "raw": raw}


def indices_of(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns all rows of a mixture, int64, sorted.

    Args:
        parts: the parts from :func:`mix`.

    Examples:
        >>> indices_of({"curated": np.array([1, 8]), "raw": np.array([5])})
        array([1, 5, 8])
    """
    return np.sort(np.concatenate(list(parts.values())))


def _in_turn(neighbors: Neighbors, allowed: np.ndarray, size: int) -> np.ndarray:
    """Returns ``size`` distinct allowed rows: the nearest of all queries before any second
    nearest, and among these the closest first."""
    rank = np.broadcast_to(np.arange(neighbors.rows.shape[1]), neighbors.rows.shape)
    order = np.lexsort((neighbors.distances.ravel(), rank.ravel()))
    rows = neighbors.rows.ravel()[order]
    rows = rows[allowed[rows]]
    _, first = np.unique(rows, return_index=True)
    return np.sort(rows[np.sort(first)[:size]])
