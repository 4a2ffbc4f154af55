#!/usr/bin/env python3
"""Compares deduplication with brute force on Open Clip Art, and times many copies of one row.

    python scripts/bench/dedup.py [DATA_DIR]

``scripts/fetch --only clipart`` fetches the images. DATA_DIR is ``$JAXCURATE_DATA``, or else
``data``. Exact recall is that of pairs of images with the same bytes at 32 pixels. Near pairs
have a cosine similarity of at least the threshold among 64 principal components, by float64 brute
force: recall is the fraction of them in the same component, precision the fraction of found pairs
that are near, and purity the fraction of all pairs within components that are near (a chain of
near pairs also joins rows that are not). The second table is for 10,000 rows of 64 numbers, of
which the given number have the same direction at four lengths, exactly or nearly; the times in
its first line include compilation.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

from jaxcurate.curation.dedup import agreement, content_digests, deduplicate
from jaxcurate.sources.synthetic import raw

THRESHOLDS = (0.99, 0.95, 0.9)
CLIQUES = (0, 1_000, 3_000, 6_700)


def exact_recall(pixels: np.ndarray, components: np.ndarray) -> tuple[float, int]:
    """Returns the fraction of the pairs of equal images that are joined, and their number."""
    groups: dict[bytes, list[int]] = {}
    for row, image in enumerate(pixels):
        groups.setdefault(image.tobytes(), []).append(row)
    alike = joined = 0
    for rows in groups.values():
        sizes = np.unique(components[rows], return_counts=True)[1]
        alike += len(rows) * (len(rows) - 1) // 2
        joined += int((sizes * (sizes - 1) // 2).sum())
    return joined / alike, alike


def clip_art(data_dir: str) -> None:
    pixels = raw.read_clipart(Path(data_dir) / "raw/clipart", 32).pixels
    flat = pixels.reshape(len(pixels), -1)
    centered = flat.astype(np.float32) - flat.mean(axis=0, dtype=np.float64).astype(np.float32)
    x = centered @ np.linalg.svd(centered[::4], full_matrices=False)[2][:64].T
    digests = content_digests(pixels)
    exact = deduplicate(x, None, digests=digests)
    recall, n_pairs = exact_recall(pixels, exact.components)
    fraction = exact.n_same / len(pixels)
    print(f"Open Clip Art: {len(pixels):,} images, {fraction:.1%} are copies of an earlier one")
    print(f"exact recall {recall:.4f} of {n_pairs:,} pairs")
    print(f"{'cosine':<8}{'kept':>8}{'pairs alike':>13}{'recall':>9}{'precision':>11}", end="")
    print(f"{'purity':>8}{'s':>7}")
    for threshold in THRESHOLDS:
        begun = time.perf_counter()
        found = deduplicate(x, threshold, digests=digests)
        took = time.perf_counter() - begun
        near = agreement(found, x, threshold)
        print(
            f"{threshold:<8}{len(found.kept):>8,}{near.n_alike // 2:>13,}{near.recall:>9.5f}"
            f"{near.precision:>11.4f}{near.purity:>8.3f}{took:>7.1f}",
            flush=True,
        )


def cliques() -> None:
    print(f"{'rows that are one':<20}{'same direction: s':>20}{'nearly the same: s':>20}")
    rng = np.random.default_rng(0)
    for n in CLIQUES:
        seconds = []
        for noise in (0.0, 0.01):
            x = rng.normal(size=(10_000, 64)).astype(np.float32)
            lengths = 2.0 ** rng.integers(-2, 2, (n, 1))
            x[:n] = lengths * (x[0] + noise * rng.normal(size=(n, 64)))
            begun = time.perf_counter()
            found = deduplicate(x, 0.95, digests=np.arange(len(x)))
            seconds.append(time.perf_counter() - begun)
            if len(found.kept) != len(x) - max(n - 1, 0):
                raise SystemExit(f"{n} rows that are one: {len(found.kept)} stay")
        print(f"{n:<20,}{seconds[0]:>20.1f}{seconds[1]:>20.1f}", flush=True)


def main() -> None:
    given = sys.argv[1:]
    if len(given) > 1 or given[:1] in (["-h"], ["--help"]):
        raise SystemExit(f"usage: {sys.argv[0]} [DATA_DIR]")
    clip_art(given[0] if given else os.environ.get("JAXCURATE_DATA") or "data")
    cliques()


if __name__ == "__main__":
    main()
