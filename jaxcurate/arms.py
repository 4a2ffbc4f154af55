"""The arms of a comparison: the rows that each takes from a pool, as a function of the seed."""

import warnings
from dataclasses import dataclass

import numpy as np

from jaxcurate.baselines import sample_uniform
from jaxcurate.mixing import indices_of, mix
from jaxcurate.pool import Pool
from jaxcurate.priorities import other_seed
from jaxcurate.retrieval import Neighbours
from jaxcurate.sampling import ShortfallWarning, sample
from jaxcurate.settings import Sampling
from jaxcurate.tree import ClusterTree


@dataclass(frozen=True)
class Arms:
    """Draws from one pool and its tree.

    Rows are told apart by their ids: with the same tree, a pool in another order gives the same
    items.
    """

    pool: Pool
    tree: ClusterTree
    sampling: Sampling
    valid: np.ndarray | None = None
    """int64 ``[m]``: the rows that deduplication left; None for all."""
    neighbours: Neighbours | None = None
    """Of the references, among the valid rows; needed where the settings retrieve."""

    @property
    def size(self) -> int:
        """How many rows a curated subset has: what is asked for, as far as the pool reaches."""
        n = len(self.pool) if self.valid is None else len(self.valid)
        return min(self.sampling.size, n * self.sampling.max_repeats)

    def parts(self, seed: int) -> dict[str, np.ndarray]:
        """The subset that the settings ask for, by why its rows are kept, each int64, sorted."""
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
        """The subset that the settings ask for, int64, sorted."""
        return indices_of(self.parts(seed))

    def random(self, seed: int, size: int) -> np.ndarray:
        """So many distinct rows of the whole pool, uniformly, int64, sorted; all of a smaller one.

        They have nothing to do with those of the curated subset, which the same seed draws.
        """
        size = min(size, len(self.pool))
        return sample_uniform(self.tree, size, seed=other_seed(seed, 2), ids=self.pool.ids)

    def draw(self, subset: np.ndarray, n_seeds: int, seed: int) -> dict[str, list[np.ndarray]]:
        """The rows that each arm trains on, one array for each seed.

        The curated and the random arm are drawn anew for every seed, so that the spread over
        seeds is that of the method and not of one draw.

        Args:
            subset: the exported subset, which is the first seed's.
            n_seeds: how many draws.
            seed: the first.
        """
        seeds = range(seed, seed + n_seeds)
        return {
            "curated": [subset if s == seed else self.curated(s) for s in seeds],
            "random": [self.random(s, len(subset)) for s in seeds],
            "pool": [np.arange(len(self.pool)) for _ in seeds],
        }
