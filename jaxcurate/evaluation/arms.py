"""The arms of a comparison: the rows that each takes from a pool, as a function of the seed."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from jaxcurate.artifacts.pool import Pool
from jaxcurate.artifacts.tree import ClusterTree
from jaxcurate.checks import InputError, check_whole
from jaxcurate.curation.baselines import sample_flat, sample_uniform
from jaxcurate.curation.mixing import SampleConfig, indices_of, mix
from jaxcurate.curation.sampling import ShortfallWarning, sample
from jaxcurate.curation.stratified_batches import Batches, Equal
from jaxcurate.neighbors.nearest_rows import Neighbors
from jaxcurate.stateless_random import other_seed
from jaxcurate.training import PretrainConfig

ARMS: dict[str, "Arm"] = {}
"""The arms by name; filled in `jaxcurate.evaluation`."""
ALWAYS = ("curated", "random", "pool")
"""Arms whose balance is told in any case."""


class Draw(NamedTuple):
    """Rows that one run of an arm trains on."""

    rows: np.ndarray
    """Rows of the pool, int64, sorted."""
    batches: Batches | None = None
    """Rows of every batch; shuffled epochs by default."""

    @property
    def seen(self) -> np.ndarray:
        """The rows, each as often as a training sees it, in proportion."""
        if self.batches is None or not len(self.batches):
            return self.rows
        return np.sort(np.concatenate(list(self.batches)))


@dataclass(frozen=True)
class EvaluateConfig:
    """The comparison by pretraining."""

    arms: tuple[str, ...] = field(default=ALWAYS, metadata={"known": ARMS})
    """Arms that are pretrained on, each once. With none, the balance alone is told."""
    flat_level: int = 1
    """Level that the flat arm is balanced over."""
    stratified_by: Equal = "clusters"
    """Clusters or rows, whichever the stratified arm sees equally often."""
    n_seeds: int = 5
    """Number of pretrainings of each arm, with seeds that follow each other."""
    probe_split: str = "probe"
    """Split with the labeled items that the probes learn from, outside the pool."""
    test_split: str = "test"
    """Split with the labeled items that the probes are tested on, outside both."""
    pretraining: PretrainConfig = field(default_factory=PretrainConfig)

    def __post_init__(self) -> None:
        unknown = set(self.arms) - set(ARMS)
        if unknown or len(set(self.arms)) < len(self.arms):
            raise InputError(f"arms={self.arms}; known, each once: {', '.join(ARMS)}")
        for name in ("n_seeds", "flat_level"):
            check_whole(name, getattr(self, name), 1)


@dataclass(frozen=True)
class Arms:
    """Draws from one pool and its tree.

    Rows are told apart by their ids: with the same tree, a pool in another order gives the same
    items.
    """

    pool: Pool
    tree: ClusterTree
    sampling: SampleConfig
    valid: np.ndarray | None = None
    """int64 ``[m]``: the rows that deduplication left; None for all."""
    neighbours: Neighbors | None = None
    """Nearest valid rows of each reference; needed where the settings retrieve."""

    def __post_init__(self) -> None:
        self.tree.check_over(self.pool.fingerprint, len(self.pool))

    @property
    def size(self) -> int:
        """Number of rows of a curated subset: what is asked for, as far as the pool reaches."""
        n = len(self.pool) if self.valid is None else len(self.valid)
        return min(self.sampling.size, n * self.sampling.max_repeats)

    def parts(self, seed: int) -> dict[str, np.ndarray]:
        """Returns the subset that the settings ask for, by why its rows are kept, each int64,
        sorted."""
        how, common = self.sampling, {"seed": seed, "rows": self.valid, "ids": self.pool.ids}
        if not how.mix.is_mixed:
            rows = sample(self.tree, self.size, how.strategy, how.max_repeats, **common)
            return {"curated": rows}
        with warnings.catch_warnings():
            # That the references name too few rows is told by how many there are of each part.
            warnings.simplefilter("ignore", ShortfallWarning)
            return mix(
                self.tree,
                self.size,
                how.mix.fractions,
                self.neighbours,
                strategy=how.strategy,
                **common,
            )

    def curated(self, seed: int) -> np.ndarray:
        """Returns the subset that the settings ask for, int64, sorted."""
        return indices_of(self.parts(seed))

    def random(self, seed: int, size: int) -> np.ndarray:
        """Returns so many distinct rows of the whole pool, uniformly, int64, sorted; all of a
        smaller one.

        They have nothing to do with those of the curated subset, which the same seed draws.
        """
        size = min(size, len(self.pool))
        return sample_uniform(self.tree, size, seed=other_seed(seed, 2), ids=self.pool.ids)

    def flat(self, seed: int, level: int) -> np.ndarray:
        """Returns as many rows as the curated subset has, balanced over one level alone, int64,
        sorted.

        Within a cluster they are drawn as the settings say, but at random above level 1: there
        the distance to the centroid is not known.
        """
        return sample_flat(
            self.tree,
            self.size,
            self.sampling.strategy if level == 1 else "random",
            self.sampling.max_repeats,
            other_seed(seed, 3),
            rows=self.valid,
            ids=self.pool.ids,
            level=level,
        )

    def draw(
        self, subset: np.ndarray, settings: EvaluateConfig, seed: int
    ) -> dict[str, list[Draw]]:
        """Returns what each arm trains on, for each seed.

        All but those of the whole pool are drawn anew for every seed, so that the spread over
        seeds is that of the method and not of one draw.

        Args:
            subset: the exported subset, which is the first seed's.
            settings: which arms there are, beside those whose balance is told in any case.
            seed: the first.
        """
        common = Common(self, subset, settings, seed)
        seeds = range(seed, seed + settings.n_seeds)
        return {
            name: [arm.draw(common, s) for s in seeds]
            for name, arm in ARMS.items()
            if name in (*ALWAYS, *settings.arms)
        }


class Common(NamedTuple):
    """What the draws of all arms have in common."""

    arms: Arms
    subset: np.ndarray
    """int64 ``[m]``: the subset that was exported, which is the first seed's."""
    settings: EvaluateConfig
    first_seed: int


class Arm(NamedTuple):
    """One arm of a comparison."""

    draw: Callable[[Common, int], Draw]
    """Returns what it trains on with a seed."""
    words: str
    """What it trains on, for the report."""


def curated(common: Common, seed: int) -> Draw:
    """Returns the subset; drawn anew for all seeds but the first."""
    is_first = seed == common.first_seed
    return Draw(common.subset if is_first else common.arms.curated(seed))


def random(common: Common, seed: int) -> Draw:
    """Returns as many rows as the subset has, uniformly at random."""
    return Draw(common.arms.random(seed, len(common.subset)))


def pool(common: Common, seed: int) -> Draw:
    """Returns all rows."""
    del seed
    return Draw(np.arange(len(common.arms.pool)))


def flat(common: Common, seed: int) -> Draw:
    """Returns as many rows as the subset has, balanced over the clusters of one level alone."""
    return Draw(common.arms.flat(seed, common.settings.flat_level))


def stratified(common: Common, seed: int) -> Draw:
    """Returns all rows, in batches that are balanced over the tree."""
    settings = common.settings
    batches = Batches(
        common.arms.tree,
        settings.pretraining.batch_size,
        settings.pretraining.n_steps,
        equal=settings.stratified_by,
        seed=seed,
    )
    return Draw(np.arange(len(common.arms.pool)), batches)
