"""The arms of a comparison: the rows that each takes from a pool, as a function of the seed."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxcurate.artifacts.pool import Pool
from jaxcurate.artifacts.tree import ClusterTree
from jaxcurate.config import EvaluateConfig, SampleConfig
from jaxcurate.curation.baselines import sample_flat, sample_uniform
from jaxcurate.curation.mixing import indices_of, mix
from jaxcurate.curation.sampling import ShortfallWarning, sample
from jaxcurate.curation.stratified_batches import Batches
from jaxcurate.neighbors.nearest_rows import Neighbors
from jaxcurate.stateless_random import other_seed


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
                how.mix.shares,
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
        everything = np.arange(len(self.pool))
        how = settings.pretraining
        draws: dict[str, Callable[[int], Draw]] = {
            "curated": lambda s: Draw(subset if s == seed else self.curated(s)),
            "random": lambda s: Draw(self.random(s, len(subset))),
            "pool": lambda s: Draw(everything),
            "flat": lambda s: Draw(self.flat(s, settings.flat_level)),
            "stratified": lambda s: Draw(
                everything,
                Batches(
                    self.tree, how.batch_size, how.n_steps, equal=settings.stratified_by, seed=s
                ),
            ),
        }
        seeds = range(seed, seed + settings.n_seeds)
        return {
            arm: [draw(s) for s in seeds]
            for arm, draw in draws.items()
            if arm in ("curated", "random", "pool", *settings.arms)
        }
