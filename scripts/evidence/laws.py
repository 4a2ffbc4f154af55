#!/usr/bin/env python3
"""Measures the laws behind the method: the density of centroids in 1-D, and resampling.

    python scripts/evidence/laws.py             # both tables, three seeds: some minutes
    python scripts/evidence/laws.py law 1       # the 1-D law alone, one seed
    python scripts/evidence/laws.py dose 3      # resampling alone

The law: in one dimension, k-means with the distance ``|x - c|^s`` places centroids with a density
proportional to ``p^(1/(1+s))``. 250,000 points of five Gaussians, 5000 clusters; the figure is the
L1 distance of the fractions of centroids in 100 bins to that law, and the same for uniformly drawn
points. The dose: KL divergence to uniform of the top centroids on the skewed square (levels
3000/1000/300, r = 2), and of the fractions of the rings in a sample of 1000 (levels 1000/300,
r = 15/2), for m rounds of resampling.
"""

import sys
import time
from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np

import jaxcurate as jc
from jaxcurate.evaluation.coverage import kl_to_uniform
from jaxcurate.sources.synthetic.simulations import SIDES, kl_from_equal, rings, skewed_square

PUBLISHED = {2: 0.035, 4: 0.046, 8: 0.056}
N_CLUSTERS = 5000
N_BINS = 100
DOSES = (0, 1, 3, 10, 30)


def points_on_a_line(seed: int) -> np.ndarray:
    """Returns points of five truncated Gaussians, float64, sorted."""
    rng = np.random.default_rng(seed)
    parts = []
    for groups, low, high in (
        ([(2, 1, 60_000), (5, 0.8, 30_000), (9, 2, 40_000)], 0, 12),
        ([(20, 1, 90_000)], 17, 23),
        ([(-10, 2, 30_000)], -14, -7),
    ):
        x = np.concatenate([rng.normal(mean, sd, n) for mean, sd, n in groups])
        parts.append(x[(low <= x) & (x <= high)])
    return np.sort(np.concatenate(parts))


def seeds_on_a_line(x: np.ndarray, k: int, s: int, rng: np.random.Generator) -> np.ndarray:
    """Returns seeds by greedy k-means++ with ``|x - c|^s``; a step changes rows between two."""
    first = int(rng.integers(len(x)))
    chosen, cost = [first], np.abs(x - x[first]) ** s
    for _ in range(1, k):
        total = np.cumsum(cost)
        best, gain = None, -1.0
        for row in np.searchsorted(total, rng.random(2 + int(np.log(k))) * total[-1]):
            row = min(int(row), len(x) - 1)
            place = bisect_left(chosen, row)
            begin = chosen[place - 1] if place else 0
            end = chosen[place] + 1 if place < len(chosen) else len(x)
            saved = np.maximum(cost[begin:end] - np.abs(x[begin:end] - x[row]) ** s, 0).sum()
            if saved > gain:
                best, gain, where = row, saved, slice(begin, end)
        cost[where] = np.minimum(cost[where], np.abs(x[where] - x[best]) ** s)
        insort(chosen, best)
    return x[chosen]


def lloyd_on_a_line(x: np.ndarray, centroids: np.ndarray, s: int, n_iter: int = 50) -> np.ndarray:
    """Returns centroids after Lloyd iterations with ``|x - c|^s``, s even; all sorted."""
    for _ in range(n_iter):
        ends = np.searchsorted(x, (centroids[1:] + centroids[:-1]) / 2)
        begins = np.append(0, ends)
        counts = np.diff(np.append(begins, len(x)))
        full = counts > 0
        add = lambda values, begins=begins[full]: np.add.reduceat(values, begins)
        new = add(x) / counts[full]
        for _ in range(0 if s == 2 else 8):  # Newton steps on the convex cost of each cell
            off = x - np.repeat(new, counts[full])
            slope, bend = add(off ** (s - 1)), (s - 1) * add(off ** (s - 2))
            new = new + np.divide(slope, bend, out=np.zeros_like(new), where=bend > 0)
        moved = centroids.copy()
        moved[full] = new
        if np.array_equal(moved, centroids):
            break
        centroids = np.sort(moved)
    return centroids


def distance_to_law(x: np.ndarray, placed: np.ndarray, s: int) -> float:
    """Returns the L1 distance of the fractions of ``placed`` in bins to the law for ``x``."""
    edges = np.linspace(x[0], x[-1], N_BINS + 1)
    law = (np.histogram(x, edges)[0] / len(x)) ** (1 / (1 + s))
    return float(np.abs(np.histogram(placed, edges)[0] / len(placed) - law / law.sum()).sum())


def table_of_the_law(seeds: Sequence[int]) -> None:
    print(f"{'1-D law':<10}{'published':>10}{'here: mean (range)':>24}{'points':>9}{'s':>8}")
    pools = [points_on_a_line(seed) for seed in seeds]
    for s, published in PUBLISHED.items():
        begun, found, drawn = time.perf_counter(), [], []
        for seed, x in zip(seeds, pools, strict=True):
            rng = np.random.default_rng(seed)
            placed = lloyd_on_a_line(x, seeds_on_a_line(x, N_CLUSTERS, s, rng), s)
            found.append(distance_to_law(x, placed, s))
            drawn.append(distance_to_law(x, rng.choice(x, N_CLUSTERS, replace=False), s))
        took = (time.perf_counter() - begun) / len(seeds)
        spread = f"{np.mean(found):.3f} ({min(found):.3f}-{max(found):.3f})"
        print(
            f"s = {s:<6}{published:>10.3f}{spread:>24}{np.mean(drawn):>9.3f}{took:>8.1f}",
            flush=True,
        )


def table_of_doses(seeds: Sequence[int]) -> None:
    print(f"{'rounds m':<10}{'square: mean (range)':>24}{'rings: mean (range)':>24}{'s':>8}")
    squares, pools = [skewed_square(seed) for seed in seeds], [rings(seed) for seed in seeds]
    for m in DOSES:
        begun, square, ring = time.perf_counter(), [], []
        for seed, x, (y, ring_of) in zip(seeds, squares, pools, strict=True):
            tree = jc.hierarchical_kmeans(x, [jc.Level(k, m, 2) for k in (3000, 1000, 300)], seed)
            square.append(kl_to_uniform(tree.levels[-1].centroids, *SIDES))
            tree = jc.hierarchical_kmeans(y, [jc.Level(1000, m, 15), jc.Level(300, m, 2)], seed)
            ring.append(kl_from_equal(ring_of[jc.sample(tree, 1000, seed=seed)]))
        took = (time.perf_counter() - begun) / len(seeds)
        spreads = [f"{np.mean(a):.3f} ({min(a):.3f}-{max(a):.3f})" for a in (square, ring)]
        print(f"{m:<10}{spreads[0]:>24}{spreads[1]:>24}{took:>8.1f}", flush=True)


TABLES = {"law": table_of_the_law, "dose": table_of_doses}


def main() -> None:
    arguments = sys.argv[1:]
    which = arguments.pop(0) if arguments and arguments[0] in TABLES else None
    if len(arguments) > 1 or not all(argument.isdigit() for argument in arguments):
        raise SystemExit(f"usage: {sys.argv[0]} [law|dose] [N_SEEDS]")
    seeds = range(int(arguments[0]) if arguments else 3)
    for name, table in TABLES.items():
        if which in (None, name):
            table(seeds)


if __name__ == "__main__":
    main()
