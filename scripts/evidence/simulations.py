#!/usr/bin/env python3
"""Prints the figures of the published simulations and those of this implementation.

.venv/bin/python scripts/evidence/simulations.py [N_SEEDS]
"""

import sys
import time

import numpy as np
from scipy.cluster.hierarchy import fcluster, ward

import jaxcurate as jc
from jaxcurate.evaluation.coverage import kl_to_uniform
from jaxcurate.sources.synthetic.simulations import SIDES, kl_from_equal, rings, skewed_square


def levels(*n_clusters: int, m: int = 0, r: int = 1) -> list[jc.Level]:
    return [jc.Level(k, m, r) for k in n_clusters]


SQUARE = {
    "k-means, 300": (0.340, levels(300)),
    "2 levels, 1500/300": (0.132, levels(1500, 300)),
    "3 levels, 3000/1000/300": (0.081, levels(3000, 1000, 300)),
    "3 levels, m = 10, r = 2": (0.042, levels(3000, 1000, 300, m=10, r=2)),
}
RINGS = {
    "2 levels": [jc.Level(1000), jc.Level(300)],
    "2 levels, m = 10, r = 15/2": [jc.Level(1000, 10, 15), jc.Level(300, 10, 2)],
}


def agglomerated(x: np.ndarray, k: int = 300) -> np.ndarray:
    """Returns the means ``[k, 2]`` of clusters of points ``[n, 2]`` by Ward's method."""
    labels = fcluster(ward(x), k, "maxclust") - 1
    sums = np.stack([np.bincount(labels, column, minlength=k) for column in x.T], axis=1)
    return sums / np.bincount(labels, minlength=k)[:, None]


def line(name: str, published: str, values: list[float], seconds: float | None = None) -> None:
    spread = f"{np.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"
    took = "" if seconds is None else f"{seconds:8.1f}"
    print(f"{name:<28}{published:>10}{spread:>24}{took}")


def main() -> None:
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    print(f"{'KL to uniform':<28}{'published':>10}{'here: mean (range)':>24}{'s':>8}")
    squares = [skewed_square(seed) for seed in seeds]
    line("square: points", "0.942", [kl_to_uniform(x, *SIDES) for x in squares])
    for name, (published, setting) in SQUARE.items():
        begun = time.perf_counter()
        trees = [
            jc.hierarchical_kmeans(x, setting, seed) for x, seed in zip(squares, seeds, strict=True)
        ]
        took = (time.perf_counter() - begun) / len(seeds)
        found = [kl_to_uniform(tree.levels[-1].centroids, *SIDES) for tree in trees]
        line(name, f"{published:.3f}", found, took)
    begun = time.perf_counter()
    found = [kl_to_uniform(agglomerated(x), *SIDES) for x in squares]
    line("agglomerative (Ward), 300", "0.374", found, (time.perf_counter() - begun) / len(seeds))
    even = [np.random.default_rng(seed).uniform(*SIDES, (300, 2)) for seed in seeds]
    line("300 uniform points (floor)", "0.040", [kl_to_uniform(x, *SIDES) for x in even])
    pools = [rings(seed) for seed in seeds]
    line("rings: points", "", [kl_from_equal(ring) for _, ring in pools])
    for name, setting in RINGS.items():
        begun, found = time.perf_counter(), []
        for seed, (x, ring) in zip(seeds, pools, strict=True):
            taken = jc.sample(jc.hierarchical_kmeans(x, setting, seed), 1000, seed=seed)
            if len(np.unique(taken)) != 1000:
                raise SystemExit(f"seed {seed}: {len(np.unique(taken))} distinct rows, not 1000")
            found.append(kl_from_equal(ring[taken]))
        line(name, "", found, (time.perf_counter() - begun) / len(seeds))
    print("s: seconds for one seed, compilation included (the first seed's, shared among all)")


if __name__ == "__main__":
    main()
