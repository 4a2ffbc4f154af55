"""Times k-means beside other libraries: contenders take turns, each in its own process.

    python scripts/bench/kmeans.py                       # every case; minutes
    python scripts/bench/kmeans.py --cases=start --d=128 --n=20000 --k=1000 --rounds=3
    python scripts/bench/kmeans.py --path=DIR            # where pip put contenders (--target)

Cases: `start` gives every contender the same start and the same number of iterations; `whole`
includes seeding; `scale` compares n points with four times as many; `streamed` compares a memory
map larger than the limit with the same rows in memory. `taken` is the peak of allocated memory
during the last call, as the allocator counts it; `grown` is the growth of the process, including
memory that was freed but not returned to the system. Before each round the floors are measured:
the rates of matrix products and of copies. Ratios are medians over rounds of a contender's time
to that of jaxcurate in the same round. Inertia is computed from the centroids by one routine for
all. The time of a contender's first call (compilation, caches) is listed separately. A contender
that is not installed is left out and named.
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

import numpy as np
from absl import app, flags

CASES = flags.DEFINE_list("cases", ["start", "whole", "scale", "streamed"], "Cases.")
CONTENDERS = flags.DEFINE_list(
    "contenders",
    ["jaxcurate", "scikit-learn", "faiss", "faiss-super", "superkmeans", "pt-kmeans"],
    "Contenders.",
)
N = flags.DEFINE_integer("n", 100_000, "Rows of the case `start`.")
D = flags.DEFINE_list("d", ["128", "256", "768"], "Columns of the case `start`.")
K = flags.DEFINE_integer("k", 2000, "Clusters of the case `start`.")
ITERATIONS = flags.DEFINE_integer("iterations", 20, "Number of Lloyd iterations.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Number of rounds.")
THREADS = flags.DEFINE_integer("threads", 2, "Number of threads of every contender.")
PATH = flags.DEFINE_list("path", [], "More folders to import contenders from.")
WORKER = flags.DEFINE_string("worker", None, "Internal: the contender that this process is.")


def mixture(n: int, d: int, n_modes: int = 300, seed: int = 0) -> np.ndarray:
    """Returns rows ``[n, d]`` of a mixture of Gaussians; the weight of mode i is near 1 / i."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, n_modes + 1)
    modes = rng.choice(n_modes, n, p=weights / weights.sum())
    means = rng.standard_normal((n_modes, d), np.float32)
    spreads = rng.uniform(0.3, 1.0, n_modes).astype(np.float32)
    return means[modes] + spreads[modes, None] * rng.standard_normal((n, d), np.float32)


def _has_avx512() -> bool:
    """Returns whether the processor has AVX-512, by the list of Linux."""
    with open("/proc/cpuinfo") as file:
        return "avx512f" in file.read()


# Contenders: (rows, clusters, start or None, iterations, seed) -> centroids, and the fraction of
# distances that were computed in each pass if it is known.


def with_jaxcurate(x, k, start, iterations, seed, memory_limit=None):
    import jaxcurate as jc

    init = "k-means++" if start is None else start
    found = jc.kmeans(x, k, init, iterations, seed, memory_limit)
    return found.centroids, [round(float(fraction), 2) for fraction in found.distance_fraction]


def with_scikit_learn(x, k, start, iterations, seed):
    from sklearn.cluster import KMeans

    init = "k-means++" if start is None else start
    model = KMeans(k, init=init, n_init=1, max_iter=iterations, tol=0, random_state=seed)
    return model.fit(x).cluster_centers_


def with_faiss(x, k, start, iterations, seed, **options):
    import faiss

    model = faiss.Kmeans(
        x.shape[1],
        k,
        niter=iterations,
        seed=seed,
        max_points_per_centroid=2**31 // k,
        **options,
    )
    if start is None:
        model.cp.init_method = faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS
    model.train(x, init_centroids=start)
    return model.centroids


def with_faiss_super(x, k, start, iterations, seed):
    return with_faiss(x, k, start, iterations, seed, use_super_kmeans=True)


def with_superkmeans(x, k, start, iterations, seed):
    from superkmeans import SuperKMeans

    if start is not None:
        raise NotImplementedError("takes no start; see its own in the case `start`")
    model = SuperKMeans(
        k,
        x.shape[1],
        hierarchical=False,
        iters=iterations,
        sampling_fraction=1.0,
        early_termination=False,
        n_threads=int(os.environ["OMP_NUM_THREADS"]),
        seed=seed,
    )
    return model.train(x)


def with_pt_kmeans(x, k, start, iterations, seed):
    import pt_kmeans
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    start = None if start is None else torch.from_numpy(start)
    centers, _ = pt_kmeans.kmeans(
        torch.from_numpy(x), k, iterations, tol=0.0, random_seed=seed, initial_centers=start
    )
    return centers.numpy()


RUN: dict[str, Callable] = {
    "jaxcurate": with_jaxcurate,
    "scikit-learn": with_scikit_learn,
    "faiss": with_faiss,
    "faiss-super": with_faiss_super,
    "superkmeans": with_superkmeans,
    "pt-kmeans": with_pt_kmeans,
}


_OPENBLAS = {"OPENBLAS_CORETYPE": "SkylakeX"} if _has_avx512() else {}
_ENVIRONMENT = {"faiss": _OPENBLAS, "faiss-super": _OPENBLAS}
"""Variables of the environment of a contender. The OpenBLAS in the wheel of FAISS does not know
processors newer than itself, for which it takes a kernel that is three times as slow."""


class Contender:
    """Process of this script that runs tasks, one for each line of JSON."""

    def __init__(self, name: str):
        self.name = name
        threads = str(THREADS.value)
        environment = os.environ | _ENVIRONMENT.get(name, {})
        environment |= {
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "OMP_WAIT_POLICY": "passive",  # no spinning while another contender runs
            "PYTHONPATH": os.pathsep.join([*sys.path, *PATH.value]),
        }
        command = [sys.executable, __file__, f"--worker={name}", f"--threads={threads}"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )

    def ask(self, **task) -> dict:
        """Returns seconds, inertia and memory of one run, or an ``error``."""
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "it died"}

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def serve(name: str) -> None:
    """Runs a contender in this process: reads one task and writes one answer on each line."""
    cores = sorted(os.sched_getaffinity(0))[: THREADS.value]
    os.sched_setaffinity(0, cores)
    answer_to, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        task = json.loads(line)
        try:
            answer = floors() if name == "floors" else timed(name, **task)
        except (ImportError, NotImplementedError) as error:
            answer = {"error": str(error)}
        answer_to.write(json.dumps(answer) + "\n")
        answer_to.flush()


def timed(name, data, k, start, iterations, seed=0, **extra) -> dict:
    x = np.load(data, mmap_mode="r" if extra else None)
    start = None if start is None else np.load(start)
    with PeakMemory() as memory:
        begin = time.perf_counter()
        found = RUN[name](x, k, start, iterations, seed, **extra)
        seconds = time.perf_counter() - begin
    centroids, shares = found if isinstance(found, tuple) else (found, [])
    inertia = inertia_of(x, np.asarray(centroids))
    return {
        "seconds": seconds,
        "inertia": inertia,
        "grown": memory.grown,
        "taken": memory.taken,
        "shares": shares,
    }


class PeakMemory:
    """Peak memory of this process, sampled every 10 ms: resident, and in use.

    Pages of a memory map are not counted, because the system can take them back at any time.
    """

    def __enter__(self) -> "PeakMemory":
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # returns free memory, so that using it again counts
        self._before = self._peak = self._now()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.grown, self.taken = (self._peak - self._before).tolist()

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self._peak = np.maximum(self._peak, self._now())

    @staticmethod
    def _now() -> np.ndarray:
        with open("/proc/self/status") as status:
            line = next(line for line in status if line.startswith("RssAnon"))
        mallinfo2 = ctypes.CDLL(None).mallinfo2
        mallinfo2.restype = _MallInfo
        counts = mallinfo2()
        return np.array([int(line.split()[1]) * 1024, counts.uordblks + counts.hblkhd])


class _MallInfo(ctypes.Structure):
    """Statistics of glibc's allocator over all its arenas."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]


def inertia_of(x: np.ndarray, centroids: np.ndarray) -> float:
    """Returns the sum of squared distances to the nearest centroid, by one routine for all."""
    total = 0.0
    half_norms = 0.5 * np.square(centroids, dtype=np.float64).sum(1)
    for begin in range(0, len(x), 4096):
        rows = x[begin : begin + 4096]
        labels = (half_norms - rows @ centroids.T).argmin(1)
        total += np.square(rows - centroids[labels], dtype=np.float64).sum()
    return float(total)


def floors() -> dict:
    """Returns the best rates of five: float32 matrix products (FLOP/s) and copies (bytes/s)."""
    a, b = np.ones((2048, 2048), np.float32), np.ones((2048, 2048), np.float32)
    big = np.ones(2**25, np.float32)
    out, copy = np.empty_like(a), np.empty_like(big)

    def best(work: Callable[[], object]) -> float:
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            work()
            times.append(time.perf_counter() - begin)
        return min(times)

    return {
        "flops": 2 * 2048**3 / best(lambda: np.dot(a, b, out=out)),
        "bytes": 2 * big.nbytes / best(lambda: np.copyto(copy, big)),
    }


def compare(names: list[str], tasks: dict[str, dict], floor_of: Callable | None = None) -> None:
    """Runs the tasks ``{row of the table: task}`` in turns and prints the table.

    Args:
        names: the contender of each row.
        tasks: the task of each row; times are compared with those of the first row.
        floor_of: function from the measured rate to the least seconds that full passes can take.
    """
    rows = list(tasks)
    contenders = {row: Contender(name) for row, name in zip(rows, names, strict=True)}
    scales = Contender("floors")
    first, rounds, rates = {}, {row: [] for row in rows}, []
    for row in list(rows):
        first[row] = contenders[row].ask(**tasks[row])
        if "error" in first[row]:
            print(f"  {row}: left out ({first[row]['error']})")
            rows.remove(row)
    for _ in range(ROUNDS.value):
        rates.append(scales.ask())
        for row in rows:
            rounds[row].append(contenders[row].ask(**tasks[row]))
    for contender in (*contenders.values(), scales):
        contender.close()
    flops, copied = (float(np.median([r[key] for r in rates])) for key in ("flops", "bytes"))
    print(f"  floors: {flops / 1e9:.0f} GFLOP/s, {copied / 1e9:.1f} GB/s copied")
    print(f"  {'':22} {'seconds':>8} {'ratio':>6} {'first':>7} {'inertia':>12} taken, grown GB")
    base = [r["seconds"] for r in rounds[rows[0]]]
    for row in rows:
        seconds = [r["seconds"] for r in rounds[row]]
        ratio = float(np.median(np.array(seconds) / np.array(base)))
        inertia, taken, grown = (rounds[row][-1][key] for key in ("inertia", "taken", "grown"))
        share = ""
        if floor_of is not None:
            share = f"  floor of full passes / time {floor_of(flops) / np.median(seconds):.2f}"
        print(
            f"  {row:22} {np.median(seconds):8.2f} {ratio:6.2f} {first[row]['seconds']:7.2f}"
            f" {inertia:12.6g} {taken / 1e9:8.3f} {grown / 1e9:6.3f}{share}",
            flush=True,
        )
        if shares := rounds[row][-1]["shares"]:
            passes = f"{sum(shares):.1f} of {len(shares)} passes"
            print(f"  {'':22} worked out {passes}: {' '.join(map(str, shares))}", flush=True)


def main(argv: list[str]) -> None:
    del argv
    if WORKER.value is not None:
        serve(WORKER.value)
        return
    from jaxcurate import kmeans

    chosen = CONTENDERS.value
    with tempfile.TemporaryDirectory() as scratch:

        def saved(name: str, array: np.ndarray) -> str:
            path = os.path.join(scratch, name + ".npy")
            np.save(path, array)
            return path

        if "start" in CASES.value:
            n, k, iterations = N.value, K.value, ITERATIONS.value
            for d in map(int, D.value):
                x = mixture(n, d)
                # A spread start leaves hardly any cluster empty; some contenders would move those.
                start = kmeans(x[: 10 * k], k, max_iter=0).centroids
                task = dict(data=saved("x", x), k=k, start=saved("s", start), iterations=iterations)
                print(f"start: n={n} d={d} k={k}, {iterations} iterations")
                own_start = {name: task | {"start": None} for name in ("superkmeans",)}
                floor = lambda flops, d=d: 2 * n * k * d * (iterations + 1) / flops
                compare(chosen, {name: own_start.get(name, task) for name in chosen}, floor)
        if "whole" in CASES.value:
            task = dict(data=saved("x", mixture(20_000, 128)), k=1000, start=None, iterations=20)
            print("whole: n=20000 d=128 k=1000, seeding (random: superkmeans), 20 iterations")
            compare(chosen, dict.fromkeys(chosen, task))
        if "scale" in CASES.value:
            n, d, k = 4 * N.value, int(D.value[0]), K.value // 2
            x = mixture(n, d)
            start = saved("s", x[np.random.default_rng(1).choice(n // 4, k, replace=False)])
            files = {n // 4: saved("quarter", x[: n // 4]), n: saved("x", x)}
            # In few iterations all distances are computed; later, fewer rows settle sooner.
            for iterations in (2, ITERATIONS.value):
                print(f"scale: d={d} k={k}, {iterations} iterations")
                task = dict(k=k, start=start, iterations=iterations)
                rows = {f"n={size}": task | {"data": file} for size, file in files.items()}
                compare(["jaxcurate"] * 2, rows)
        if "streamed" in CASES.value:
            n, d, k = 4 * N.value, int(D.value[0]), K.value // 2
            x = mixture(n, d)
            start = saved("s", x[np.random.default_rng(1).choice(n, k, replace=False)])
            task = dict(data=saved("x", x), k=k, start=start, iterations=ITERATIONS.value)
            budget = x.nbytes // 4
            print(
                f"streamed: n={n} d={d} k={k}, {x.nbytes / 1e9:.2f} GB, {budget / 1e9:.2f} allowed"
            )
            compare(
                ["jaxcurate"] * 2,
                {"in memory": task, "streamed": task | {"memory_limit": budget}},
            )


if __name__ == "__main__":
    app.run(main)
