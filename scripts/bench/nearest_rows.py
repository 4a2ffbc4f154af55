#!/usr/bin/env python3
"""Compares the distances of the nearest rows, computed in blocks and one query at a time.

    python scripts/bench/nearest_rows.py

The search for the nearest rows is the same for both and is left out: row numbers are random. Times
are seconds of the processor, the best of three turns. Both must give the same bits.
"""

import importlib
import time
from typing import get_args

import numpy as np

from jaxcurate.artifacts.tree import Metric
from jaxcurate.neighbors.nearest_rows import directions

nearest_rows = importlib.import_module("jaxcurate.neighbors.nearest_rows")
N_ROWS = 100_000
CASES = ((100_000, 2, 1), (100_000, 128, 1), (100_000, 128, 10), (20_000, 768, 9))


def one_at_a_time(
    x: np.ndarray, queries: np.ndarray, rows: np.ndarray, metric: Metric
) -> np.ndarray:
    """Returns the distances of the chosen rows, float32 ``[q, c]``, by a loop over the queries."""
    out = np.empty(rows.shape, np.float32)
    for i, query in enumerate(np.asarray(queries, np.float64)):
        near = np.asarray(x[rows[i]], np.float64)
        if metric == "euclidean":
            out[i] = ((near - query) ** 2).sum(axis=1)
        else:
            out[i] = 1 - directions(near) @ directions(query[None])[0]
    return out


def main() -> None:
    print(f"{'queries':>9}{'d':>6}{'rows each':>11}  {'metric':<12}{'one by one':>12}{'blocks':>9}")
    rng = np.random.default_rng(0)
    contenders = one_at_a_time, nearest_rows._distances
    for n_queries, width, n_best in CASES:
        x = rng.normal(size=(N_ROWS, width)).astype(np.float32)
        queries = rng.normal(size=(n_queries, width)).astype(np.float32)
        rows = rng.integers(0, N_ROWS, (n_queries, n_best))
        for metric in get_args(Metric):
            seconds, found = [np.inf, np.inf], [rows, rows]
            for _ in range(3):
                for i, contender in enumerate(contenders):
                    begun = time.process_time()
                    found[i] = contender(x, queries, rows, metric)
                    seconds[i] = min(seconds[i], time.process_time() - begun)
            if not np.array_equal(*found):
                raise SystemExit(f"{metric}: distances in blocks differ")
            print(
                f"{n_queries:>9,}{width:>6}{n_best:>11}  {metric:<12}{seconds[0]:>12.2f}"
                f"{seconds[1]:>9.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
