"""Times decoding and embedding of JPEG pictures of 500 x 400, from files to a pool.

    python scripts/bench/embedding.py                      # 2,000 pictures, some minutes
    python scripts/bench/embedding.py --n=100000 --encoders=pca --folder=DIR --kill_after=300

Pictures are smooth noise, encoded at quality 85. The first table times what happens to each picture
in the threads that read: decoding to the size of the encoder, and facts (hashes and measures). The
second runs the stage `embed` in a process of its own. `busy` is processor time divided by time and
the number of cores, and `peak` the largest resident memory. With `--kill_after`, a first process is
killed (SIGKILL), the figures are those of the same command started again, the rate that of both,
and a line tells where it went on.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags
from PIL import Image

N = flags.DEFINE_integer("n", 2000, "Number of pictures.")
FOLDER = flags.DEFINE_string("folder", None, "Folder that keeps the pictures, or has them.")
KILL_AFTER = flags.DEFINE_float("kill_after", None, "Seconds until a first process is killed.")
ENCODERS = flags.DEFINE_list("encoders", ["pca", "efficientnet_lite0"], "Encoders to run.")

_RUN = """
import resource, sys, time
from jaxcurate import cli
begin = time.perf_counter()
code = cli.main(sys.argv[1:])
spent = resource.getrusage(resource.RUSAGE_SELF)
print(code, time.perf_counter() - begin, spent.ru_utime + spent.ru_stime, spent.ru_maxrss)
"""
_CONFIG = """
from jaxcurate.config import *

def get_config(argument):
    folder, encoder = argument.split(",")
    levels, sample = ClusterConfig((Level(2),)), SampleConfig(1)
    embed = EmbedConfig(encoder)
    return to_config(
        Config(f"folder:{folder}", levels, sample, embed=embed, checkpoint_minutes=0.5)
    )
"""


def write_pictures(folder: Path, n: int) -> None:
    """Writes JPEG files of smooth noise, about 40 kB each."""
    rng = np.random.default_rng(0)
    for i in range(n):
        small = rng.integers(0, 256, (50, 63, 3), np.uint8)
        picture = Image.fromarray(small).resize((500, 400), Image.Resampling.BICUBIC)
        path = folder / f"{i // 1000:03}/{i:06}.jpg"
        path.parent.mkdir(exist_ok=True, parents=True)
        picture.save(path, quality=85)


def time_reading(folder: Path) -> None:
    """Prints the rates of what threads do with each picture."""
    from jaxcurate.pipeline.embedding import prepared, prepared_with_facts
    from jaxcurate.sources import open_source, read_items
    from jaxcurate.sources.pictures import square

    source = open_source(f"folder:{folder}")
    rows = np.arange(min(1000, len(source)))
    small = lambda picture: np.asarray(square(picture, 224, filter="bicubic", shorter=256))
    tasks = {
        "bytes alone": None,
        "decoded to 224 pixels": prepared("picture", small),
        "and hashed and measured": prepared_with_facts("picture", small),
    }
    cores = len(os.sched_getaffinity(0))
    print(f"{'':26}" + "".join(f"{n:>4} threads" for n in (1, cores)) + "   pictures a second")
    for name, prepare in tasks.items():
        rates = []
        for n_threads in (1, cores):
            begin = time.perf_counter()
            for _ in read_items(source, rows, prepare=prepare, batch_size=256, n_threads=n_threads):
                pass
            rates.append(len(rows) / (time.perf_counter() - begin))
        print(f"{name:26}" + "".join(f"{rate:12.0f}" for rate in rates), flush=True)


def time_embedding(folder: Path, work: Path) -> None:
    """Prints the rate of the stage `embed` by each encoder, and what a killed run left."""
    config = work / "config.py"
    config.write_text(_CONFIG)
    cores = len(os.sched_getaffinity(0))
    print(f"{'encoder':26}{'pictures/s':>12}{'busy':>8}{'peak GB':>10}")
    for encoder in ENCODERS.value:
        arguments = [f"--config={config}:{folder},{encoder}", f"--workdir={work}/{encoder}"]
        command = [sys.executable, "-c", _RUN, "embed", *arguments]
        killed = KILL_AFTER.value or 0
        if killed:
            try:
                subprocess.run(command, capture_output=True, timeout=killed, check=True)
            except subprocess.TimeoutExpired:  # SIGKILL has been sent
                pass
            else:
                raise SystemExit(f"{encoder}: it was done within {killed:.0f} s; kill it sooner")
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        code, seconds, cpu, peak = map(float, done.stdout.split()[-4:])
        assert code == 0, done.stderr
        rate, busy = N.value / (killed + seconds), cpu / seconds / cores
        print(f"{encoder:26}{rate:12.1f}{busy:8.0%}{peak * 1024 / 1e9:10.2f}", flush=True)
        if killed:
            lines = (done.stdout + done.stderr).splitlines()
            kept = [line.strip() for line in lines if "continuing" in line]
            print(
                f"  killed after {killed:.0f} s; {'; '.join(kept) or 'nothing was kept'}",
                flush=True,
            )


def main(argv: list[str]) -> None:
    del argv
    with tempfile.TemporaryDirectory() as scratch:
        folder, work = Path(FOLDER.value or f"{scratch}/pictures"), Path(scratch, "work")
        work.mkdir()
        if not folder.exists():
            write_pictures(folder, N.value)
        time_reading(folder)
        time_embedding(folder, work)


if __name__ == "__main__":
    app.run(main)
