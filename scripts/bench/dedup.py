#!/usr/bin/env python3
"""Compares deduplication with brute force on Open Clip Art, and times it on large inputs.

    python scripts/bench/dedup.py [DATA_DIR]

``scripts/fetch --only clipart`` fetches the images. DATA_DIR is ``$JAXCURATE_DATA``, or else
``data``. Exact recall is that of pairs of images with the same bytes at 32 pixels. Near pairs
have a cosine similarity of at least the threshold among 64 principal components, by float64 brute
force: recall is the fraction of them that the search finds, precision the fraction of found pairs
that are near. Of each rule the table then gives the rows that stay, the fraction of the dropped
rows that have a near one among these (covered), the lowest similarity of a dropped row and the one
that stands for it, the largest group, and the seconds: with the search for the cover, from its
pairs for the components.

The second table is for 10,000 rows of 64 numbers, of which the given number have the same
direction at four lengths, exactly or nearly; the times in its first line include compilation. The
third is for 50,000 rows in 10,000 groups, and the last for random pairs among random rows, with
the seconds of the processor that the choice of rows alone takes.
"""

import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

from jaxcurate.curation import agreement, content_digests, deduplicate, summary_line
from jaxcurate.curation.duplicates import choose
from jaxcurate.neighbors import Pairs
from jaxcurate.sources.synthetic import raw

THRESHOLDS = (0.99, 0.95, 0.9)
CLIQUES = (0, 1_000, 3_000, 6_700)
CHOICES = ((1_000_000, 5_000_000), (10_000_000, 50_000_000))


def exact_recall(pixels: np.ndarray, group: np.ndarray) -> tuple[float, int]:
    """Returns the fraction of the pairs of equal images that are joined, and their number."""
    groups: dict[bytes, list[int]] = {}
    for row, image in enumerate(pixels):
        groups.setdefault(image.tobytes(), []).append(row)
    alike = joined = 0
    for rows in groups.values():
        sizes = np.unique(group[rows], return_counts=True)[1]
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
    recall, n_pairs = exact_recall(pixels, exact.representative)
    fraction = exact.n_same / len(pixels)
    print(f"Open Clip Art: {len(pixels):,} images, {fraction:.1%} are copies of an earlier one")
    print(f"exact recall {recall:.4f} of {n_pairs:,} pairs")
    print(f"{'cosine':<8}{'pairs alike':>13}{'recall':>9}{'precision':>11}{'rule':>12}", end="")
    print(f"{'kept':>7}{'covered':>9}{'lowest':>8}{'largest':>9}{'s':>7}")
    for threshold in THRESHOLDS:
        begun = time.perf_counter()
        cover = deduplicate(x, threshold, digests=digests)
        searched = time.perf_counter()
        chained = cover.at(threshold, rule="components", x=x)
        took = searched - begun, time.perf_counter() - searched
        for found, seconds in zip((cover, chained), took, strict=True):
            near = agreement(found, x, threshold)
            print(
                f"{threshold:<8}{near.n_alike // 2:>13,}{near.recall:>9.5f}{near.precision:>11.4f}"
                f"{found.rule:>12}{len(found.kept):>7,}{near.covered:>9.3f}"
                f"{found.similarity.min():>8.3f}{found.largest_group.n_others:>9,}{seconds:>7.1f}",
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


def groups(n: int = 50_000, n_groups: int = 10_000) -> None:
    """Times rows in groups of near-duplicates, whose sizes have a long tail."""
    rng = np.random.default_rng(0)
    sizes = rng.pareto(1.5, n_groups) + 1
    originals = rng.normal(size=(n_groups, 64))
    which = rng.choice(n_groups, n, p=sizes / sizes.sum())
    x = (originals[which] + 0.15 * rng.normal(size=(n, 64))).astype(np.float32)
    digests = np.arange(n)
    deduplicate(x, 0.95, digests=digests)  # compiles
    begun = time.perf_counter()
    found = deduplicate(x, 0.95, digests=digests)
    searched = time.perf_counter()
    again = found.at(0.97)
    print(
        f"{n:,} rows in groups, {len(found.pairs):,} pairs: {searched - begun:.1f} s, and", end=" "
    )
    print(f"{time.perf_counter() - searched:.2f} s at 0.97; {summary_line(found)}", end="")
    print(f"; {summary_line(again)}", flush=True)


def choices() -> None:
    """Times the choice of the rows that stay from given pairs."""
    print(f"{'rows':<12}{'pairs':>12}{'kept':>12}{'s of the processor':>20}{'peak GB':>10}")
    rng = np.random.default_rng(0)
    for n, n_pairs in CHOICES:
        i = rng.integers(0, n - 1, n_pairs)
        j = np.minimum(i + 1 + (2 * rng.pareto(1.0, n_pairs)).astype(np.int64), n - 1)
        pairs = Pairs(np.stack([i, j], 1), rng.uniform(0.95, 1, n_pairs).astype(np.float32))
        begun, rows = time.process_time(), np.arange(n)
        found = choose(rows, rows, pairs, 0.95)
        took = time.process_time() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{n:<12,}{n_pairs:>12,}{len(found.kept):>12,}{took:>20.1f}{peak:>10.1f}", flush=True)


def main() -> None:
    given = sys.argv[1:]
    if len(given) > 1 or given[:1] in (["-h"], ["--help"]):
        raise SystemExit(f"usage: {sys.argv[0]} [DATA_DIR]")
    clip_art(given[0] if given else os.environ.get("JAXCURATE_DATA") or "data")
    cliques()
    groups()
    choices()


if __name__ == "__main__":
    main()
