#!/usr/bin/env python3
"""Prints time, memory and disk of each stage for a pool that is much larger than the memory.

    python scripts/bench/large_pool.py                        # 3 GB within 1 GB
    python scripts/bench/large_pool.py --n=15000000 --memory=4000000000 --folder=/big/disk

Writes shards of random float16 rows around 100 centers, some of them copies and near-copies of
others, and runs the command line on them stage by stage. A stage that takes more memory than
allowed is ended, and the script with it. The memory is anonymous, which the system cannot take
back: pages of files that are mapped do not count, and neither do those that it keeps as a cache.
Some 0.4 GB are Python, jax and compiled code, so that `config.memory_limit` is set to less than
the memory. The disk is that of the output of a stage, and the most that it had in temporary files.
Linux only.
"""

import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags
from anonymous_memory import anonymous_bytes

ROWS = flags.DEFINE_integer("n", 1_500_000, "Rows.")
COLUMNS = flags.DEFINE_integer("d", 1024, "Columns.")
MEMORY = flags.DEFINE_integer("memory", 1_000_000_000, "Anonymous memory of a process in bytes.")
PART_BYTES = flags.DEFINE_integer("part_bytes", 2**30, "Largest size of a part of the pool.")
CLUSTERS = flags.DEFINE_integer("k", 256, "Clusters of the lowest level.")
THRESHOLD = flags.DEFINE_float("threshold", None, "Threshold of near-duplicates. None by default.")
FOLDER = flags.DEFINE_string("folder", None, "Folder for temporary files of twice the pool's size.")
STAGES = flags.DEFINE_list(
    "stages", ["embed", "dedup", "cluster", "sample", "export", "report"], "Stages to run."
)

ROOT = Path(__file__).parents[2]
PROGRAM_BYTES = 500_000_000
"""Memory that Python, jax and compiled code take."""
SHARD_ROWS = 200_000


def write_shards(folder: Path, n: int, d: int) -> None:
    """Writes shards of rows, of which each thousandth is a copy and each thousandth nearly so."""
    rng = np.random.default_rng(0)
    centers = 3 * rng.standard_normal((100, d), np.float32)
    noise = rng.standard_normal((10_000, d), np.float32)  # twice added, which is quick to make
    for begin in range(0, n, SHARD_ROWS):
        size = min(SHARD_ROWS, n - begin)
        path = folder / f"x{begin // SHARD_ROWS}.npy"
        rows = np.lib.format.open_memmap(path, "w+", np.float16, (size, d))
        for first in range(0, size, 10_000):
            part = rows[first : first + 10_000]
            made = centers[rng.integers(100, size=len(part))]
            made += noise[rng.permutation(len(noise))[: len(part)]]
            made += noise[: len(part)]
            part[:] = made
            copies = np.arange(1000, len(part), 1000)
            part[copies] = part[copies - 1]
            part[copies - 2] = part[copies - 3] * np.float16(1.001)


def disk_bytes(folder: Path) -> int:
    """Returns the disk that the files below a folder take, a file of several names once."""
    sizes = {}
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                stat = os.stat(os.path.join(path, name), follow_symlinks=False)
            except FileNotFoundError:
                continue
            sizes[stat.st_ino] = 512 * stat.st_blocks
    return sum(sizes.values())


def run(stage: str, folder: Path) -> tuple[float, int, int, int]:
    """Runs a stage, and returns its seconds, and the bytes of memory, output and other files."""
    work, scratch = folder / "work", folder / "scratch"
    before = disk_bytes(work)
    command = [
        *(sys.executable, "-m", "jaxcurate", stage, "--quiet"),
        f"--config={ROOT / 'configs/small_2levels.py'}:{folder / 'source'}",
        f"--workdir={work}",
        f"--config.memory_limit={MEMORY.value - PROGRAM_BYTES}",
        f"--config.embed.part_bytes={PART_BYTES.value}",
        "--config.cluster.levels="
        f"({{'n_clusters': {CLUSTERS.value}, 'n_resamples': 1, 'n_per_cluster': 100}},"
        f" {{'n_clusters': {math.isqrt(CLUSTERS.value)}, 'n_resamples': 1, 'n_per_cluster': 2}})",
        "--config.cluster.max_iter=3",
        "--config.cluster.init=k-means||",
        f"--config.sample.size={ROWS.value // 60}",
        *([f"--config.dedup.threshold={THRESHOLD.value}"] if THRESHOLD.value else []),
        f"--config.dedup.n_clusters={CLUSTERS.value}",
        "--config.dedup.n_neighbors=0",
        "--config.export.format=list",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(scratch)}
    scratch.mkdir(exist_ok=True)
    begun, memory, disk, looked = time.perf_counter(), 0, 0, 0.0
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            memory = max(memory, anonymous_bytes(process.pid))
            if memory > MEMORY.value:
                process.kill()
                raise SystemExit(f"{stage} takes {memory:,} bytes, more than {MEMORY.value:,}")
            if time.perf_counter() - looked > 1:
                disk = max(disk, disk_bytes(work) + disk_bytes(scratch))
                looked = time.perf_counter()
            time.sleep(0.02)
    if process.returncode:
        raise SystemExit(process.returncode)
    after = disk_bytes(work)
    return time.perf_counter() - begun, memory, after - before, max(0, disk - after)


def main(_: list[str]) -> None:
    with tempfile.TemporaryDirectory(dir=FOLDER.value) as name:
        folder = Path(name)
        (folder / "source").mkdir()
        write_shards(folder / "source", ROWS.value, COLUMNS.value)
        size = 2e-9 * ROWS.value * COLUMNS.value
        print(f"{ROWS.value} x {COLUMNS.value}, {size:.2f} GB; memory {MEMORY.value / 1e9:.2f} GB")
        print("stage     time      memory    output    other files")
        for stage in STAGES.value:
            seconds, memory, output, other = run(stage, folder)
            gigabytes = "   ".join(f"{n / 1e9:5.2f} GB" for n in (memory, output, other))
            print(f"{stage:8}  {seconds:4.0f} s   {gigabytes}", flush=True)


if __name__ == "__main__":
    app.run(main)
