#!/usr/bin/env python3
"""Prints the time and memory of balanced sampling, and their growth with the number of points.

    python scripts/bench/sampling.py                 # 10 M points, then growth to 30 M
    python scripts/bench/sampling.py --growth=       # without the growth
    python scripts/bench/sampling.py --growth=10e6,30e6,100e6

The numbers of clusters at the three levels are a tenth, a hundredth and a thousandth of the
number of points, with long-tailed leaf sizes (Pareto, exponent 1.2); a tenth of the points is
sampled. The other contender is the recursive sampler below: a plain implementation of the method,
with a call for each node. Contenders take turns, each in its own process, on one core. Times are
the best of the turns, by the clock and on the processor; the latter are compared, because other
processes may run. "again" is a second call in the same process, and the time per point is that of
the second call: a first call also waits for memory that the system has not supplied yet, which on
a virtual machine can take a fifth of the time. Memory is the peak of the whole process, and the
part of it beyond the loaded tree. The authors' code was reported to take 3.3 s for 100 k of 1 M
points on another machine, which only gives the scale.

Growth is measured up to the given numbers; 100 M points take minutes, nearly all of them to make
the tree. In theory the time per point is constant except for the logarithm in sorting; in fact it
grows once the arrays over leaves outgrow the caches. The speed of sorting in numpy depends on the
processor; NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL" shows whether AVX2 sorts faster than
AVX-512, as it does on AMD's Zen 4.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

import jaxcurate as jc


def long_tailed_tree(n_points: int, seed: int = 0) -> jc.ClusterTree:
    """Returns a tree of three levels, with Pareto sizes of leaves and random clusters above."""
    rng = np.random.default_rng(seed)
    labels, below = [], n_points
    for divisor in (10, 100, 1000):
        k = n_points // divisor
        shares = np.cumsum(rng.pareto(1.2, k) if divisor == 10 else np.ones(k))
        drawn = np.searchsorted(shares, rng.random(below) * shares[-1]).clip(max=k - 1)
        drawn[rng.choice(below, k, replace=False)] = np.arange(k)  # no cluster is empty
        labels.append(drawn)
        below = k
    return jc.ClusterTree.from_labels(labels, rng.random(n_points))


def sample_recursively(tree: jc.ClusterTree, size: int, seed: int = 0) -> np.ndarray:
    """Returns a balanced sample, by a call for each node from the top down."""
    rng = np.random.default_rng(seed)
    # The children of every node, side by side, by one sort for each level.
    orders = [np.argsort(level.labels, kind="stable") for level in tree.levels]
    ends = [np.cumsum(np.bincount(x.labels, minlength=len(x.centroids))) for x in tree.levels]
    counts = [tree.point_counts(level) for level in range(1, len(tree.levels) + 1)]
    taken: list[np.ndarray] = []

    def split(capacities: np.ndarray, size: int) -> np.ndarray:
        low, high = 0, int(capacities.max())
        while low < high:
            middle = (low + high + 1) // 2
            if np.minimum(capacities, middle).sum() <= size:
                low = middle
            else:
                high = middle - 1
        quotas = np.minimum(capacities, low)
        left = size - quotas.sum()
        if left > 0:
            quotas[rng.choice(np.flatnonzero(capacities > low), left, replace=False)] += 1
        return quotas

    def visit(level: int, node: int, size: int) -> None:
        end = ends[level - 1][node]
        begin = ends[level - 1][node - 1] if node else 0
        children = orders[level - 1][begin:end]
        if level == 1:
            is_whole = size == len(children)
            taken.append(children if is_whole else rng.choice(children, size, replace=False))
            return
        for child, quota in zip(children, split(counts[level - 2][children], size), strict=True):
            if quota:
                visit(level - 1, child, quota)

    top = len(tree.levels)
    for node, quota in enumerate(split(counts[-1], min(size, tree.n_points))):
        if quota:
            visit(top, node, quota)
    return np.sort(np.concatenate(taken))


CONTENDERS = {
    "jaxcurate": lambda tree, size: jc.sample(tree, size),
    "jaxcurate, closest": lambda tree, size: jc.sample(tree, size, "closest"),
    "recursive": sample_recursively,
}


def measure(name: str, folder: str, size: int) -> dict[str, float]:
    """Runs one contender in this process and returns its times and memory."""
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    tree = jc.ClusterTree.load(folder)
    before = peak()
    begun, begun_cpu = time.perf_counter(), time.process_time()
    taken = CONTENDERS[name](tree, size)
    seconds, cpu, after = time.perf_counter() - begun, time.process_time() - begun_cpu, peak()
    begun_cpu = time.process_time()
    CONTENDERS[name](tree, size)
    again = time.process_time() - begun_cpu
    distinct = len(np.unique(taken))
    if distinct != size:
        raise SystemExit(f"{name}: {distinct} distinct rows, not {size}")
    return {
        "seconds": seconds,
        "cpu": cpu,
        "again": again,
        "peak": after,
        "sampling": after - before,
    }


def in_its_own_process(what: str, folder: str, number: int) -> str:
    """Makes a tree of `number` points (``what="tree"``), or runs a contender on it."""
    command = [sys.executable, __file__, "--only", what, "--tree", folder, "--wanted", str(number)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def run(name: str, folder: str, size: int) -> dict[str, float]:
    return json.loads(in_its_own_process(name, folder, size))


def row(name: str, n: int, size: int, runs: list[dict[str, float]]) -> float:
    """Prints one line of the table and returns the best time on the processor."""
    seconds, cpu, again = (min(run[key] for run in runs) for key in ("seconds", "cpu", "again"))
    peak, own = (max(run[key] for run in runs) for key in ("peak", "sampling"))
    print(
        f"{name:<20}{n:>12,}{size:>12,}{seconds:>9.2f}{cpu:>9.2f}{again:>9.2f}"
        f"{again / n * 1e9:>9.0f}{peak:>10.2f}{own:>12.2f}",
        flush=True,
    )
    return cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=float, default=10e6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--growth", default="1e6,3e6,10e6,30e6", help="numbers of points")
    for hidden in ("--only", "--tree", "--wanted"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.only:
        if flags.only == "tree":
            long_tailed_tree(int(flags.wanted)).save(flags.tree)
        else:
            print(json.dumps(measure(flags.only, flags.tree, int(flags.wanted))))
        return

    print(f"{'':<20}{'points':>12}{'wanted':>12}{'s':>9}{'cpu s':>9}{'again':>9}", end="")
    print(f"{'ns/point':>9}{'peak GB':>10}{'of this, GB':>12}", flush=True)
    with tempfile.TemporaryDirectory() as above:
        folder, n = f"{above}/tree", int(flags.points)
        in_its_own_process("tree", folder, n)
        turns = [
            {name: run(name, folder, n // 10) for name in CONTENDERS} for _ in range(flags.repeats)
        ]
        took = {name: row(name, n, n // 10, [turn[name] for turn in turns]) for name in CONTENDERS}
        print(f"the recursive one takes {took['recursive'] / took['jaxcurate']:.1f} times as long")
        sizes = [int(float(n)) for n in flags.growth.split(",") if n]
        for n in sizes:
            in_its_own_process("tree", f"{above}/{n}", n)
        turns = [{n: run("jaxcurate", f"{above}/{n}", n // 10) for n in sizes} for _ in turns]
        for n in sizes:
            row("jaxcurate", n, n // 10, [turn[n] for turn in turns])


if __name__ == "__main__":
    main()
