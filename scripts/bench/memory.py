#!/usr/bin/env python3
"""Prints a table of the memory of each stage for a pool that is larger than the limit.

    python scripts/bench/memory.py                       # 3.07 GB within 0.5 GB: some ten minutes
    python scripts/bench/memory.py --n=1000000 --limit=100000000 --stages=embed,dedup,cluster,grow

Writes a file of random rows, and runs the command line on it twice, stage by stage: without a
limit and with it. Peaks are of anonymous memory, pages that the system cannot take back, so that
pages read from a memory map do not count; some 0.35 GB of it are Python, jax and compiled code.
`grow` adds a tenth as many rows. Linux only.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags
from anonymous_memory import anonymous_bytes

N = flags.DEFINE_integer("n", 6_000_000, "Rows.")
D = flags.DEFINE_integer("d", 128, "Columns.")
LIMIT = flags.DEFINE_integer("limit", 500_000_000, "Limit in bytes.")
STAGES = flags.DEFINE_list(
    "stages", ["embed", "cluster", "sample", "export", "report"], "Stages to run."
)

ROOT = Path(__file__).parents[2]


def write_rows(path: Path, n: int, d: int, seed: int) -> None:
    """Writes a .npy file of rows around 100 centers, in parts."""
    rng = np.random.default_rng(seed)
    centers = 3 * np.random.default_rng(0).standard_normal((100, d), np.float32)
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (n, d))
    for begin in range(0, n, 100_000):
        part = rows[begin : begin + 100_000]
        groups = rng.integers(100, size=len(part))
        part[:] = centers[groups] + rng.standard_normal(part.shape, np.float32)


def peak_of(stage: str, folder: Path, limit: int) -> tuple[int, float]:
    """Runs a stage and returns its peak in bytes and its seconds."""
    begun, peak = time.perf_counter(), 0
    command = [
        *(sys.executable, "-m", "jaxcurate", stage, "--quiet"),
        f"--config={ROOT / 'configs/small_2levels.py'}:{folder / 'rows.npy'}",
        f"--workdir={folder / str(limit)}",
        f"--config.memory_limit={limit}",
        "--config.cluster.levels="
        "({'n_clusters': 64, 'n_resamples': 1, 'n_per_cluster': 1000},"
        " {'n_clusters': 16, 'n_resamples': 1, 'n_per_cluster': 2})",
        "--config.cluster.max_iter=5",
        "--config.cluster.init=k-means||",
        f"--config.sample.size={N.value // 60}",
        f"--config.dedup.enabled={'dedup' in STAGES.value}",
        f"--config.grow.source=npy:{folder / 'new.npy'}",
        "--config.grow.prefix=new-",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(0.02)
    if process.returncode:
        raise SystemExit(process.returncode)
    return peak, time.perf_counter() - begun


def main(_: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "rows.npy", N.value, D.value, seed=1)
        write_rows(folder / "new.npy", max(1, N.value // 10), D.value, seed=2)
        print(f"{N.value} x {D.value}, {4e-9 * N.value * D.value:.2f} GB; limit {LIMIT.value:,}")
        print("stage     no limit         within it")
        for stage in STAGES.value:
            columns = [
                f"{peak / 1e9:5.2f} GB {seconds:4.0f} s"
                for peak, seconds in (peak_of(stage, folder, limit) for limit in (0, LIMIT.value))
            ]
            print(f"{stage:8}  " + "   ".join(columns), flush=True)


if __name__ == "__main__":
    app.run(main)
