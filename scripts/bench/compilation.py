"""Times what compiling small k-means with less effort saves, and would cost large ones.

    python scripts/bench/compilation.py                  # minutes
    python scripts/bench/compilation.py --rounds=1

Each row of the table is a k-means in two ways, in turns, each in a process of its own without a
compilation cache: with XLA's usual effort, and with that of
:mod:`jaxcurate.runtime.compiler_options`, whatever the size. `first` is the first call, which
compiles; `later` is the median of three more. Seconds are those of the processor.
"""

import hashlib
import json
import os
import resource
import subprocess
import sys

import numpy as np
from absl import app, flags

ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds of turns.")
N_DEVICES = flags.DEFINE_integer("n_devices", 2, "CPU devices.")
WORKER = flags.DEFINE_string("worker", None, "Internal: the k-means that this process runs.")
QUICK = flags.DEFINE_bool("quick", False, "Internal: compile with less effort.")

CASES = (
    # n, d, k, seeding
    (700, 7, 70, "k-means++"),
    (8_000, 128, 1000, "k-means++"),
    (60_000, 16, 100, "k-means++"),
    (200_000, 16, 100, "k-means++"),
    (60_000, 64, 500, "k-means||"),
    (20_000, 768, 300, "k-means++"),
)


def mixture(n: int, d: int) -> np.ndarray:
    """Returns a long-tailed mixture of 300 Gaussians, float32 ``[n, d]``."""
    rng = np.random.default_rng(0)
    fractions = 1 / np.arange(1, 301)
    mode = rng.choice(300, n, p=fractions / fractions.sum())
    centers = rng.standard_normal((300, d), np.float32)
    return centers[mode] + 0.6 * rng.standard_normal((n, d), np.float32)


def run(n: int, d: int, k: int, init: str) -> None:
    """Prints the seconds of four calls, and a digest of the result."""
    import jaxcurate as jc
    from jaxcurate.kmeans import rows

    rows.SMALL = (2**62, 2**62) if QUICK.value else (0, 0)
    x, seconds = mixture(n, d), []
    for _ in range(4):
        begin = resource.getrusage(resource.RUSAGE_SELF)
        result = jc.kmeans(x, k, init, max_iter=20)
        end = resource.getrusage(resource.RUSAGE_SELF)
        seconds.append(end.ru_utime - begin.ru_utime)
    arrays = (result.centroids, result.labels, result.distances)
    digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
    print(json.dumps([seconds, digest]))


def timed(case: tuple, quick: bool) -> tuple[float, float, str]:
    """Returns the seconds of a first and of a later call in a new process, and the digest."""
    environment = os.environ | {
        "JAXCURATE_COMPILE_CACHE": "off",
        "JAX_NUM_CPU_DEVICES": str(N_DEVICES.value),
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, __file__, f"--worker={json.dumps(case)}", f"--quick={quick}"]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    (first, *later), digest = json.loads(output.stdout.splitlines()[-1])
    return first, float(np.median(later)), digest


def main(argv: list[str]) -> None:
    del argv
    if WORKER.value is not None:
        run(*json.loads(WORKER.value))
        return
    print(f"{'n x d -> k':24} {'first, usual':>12} {'quick':>7} {'later, usual':>13} {'quick':>7}")
    for case in CASES:
        turns = [(timed(case, False), timed(case, True)) for _ in range(ROUNDS.value)]
        usual, quick = (np.median([turn[i][:2] for turn in turns], axis=0) for i in (0, 1))
        same = len({way[2] for turn in turns for way in turn}) == 1
        n, d, k, init = case
        print(
            f"{f'{n} x {d} -> {k}':24} {usual[0]:12.1f} {quick[0]:7.1f} {usual[1]:13.2f} "
            f"{quick[1]:7.2f}  {init}, {'the same bits' if same else 'OTHER BITS'}",
            flush=True,
        )


if __name__ == "__main__":
    app.run(main)
