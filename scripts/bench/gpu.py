"""Times one assignment and one Lloyd iteration on a GPU, beside torch and flash-kmeans.

    python scripts/bench/gpu.py                                     # 10 M x 1024 -> 100 k, and
    python scripts/bench/gpu.py --cases=8000000x128x1024 --rounds=5  # 8 M x 128 -> 1024

Contenders run one after another, each in its own process, because the rows of one leave no memory
for another; rows are drawn on the device from one seed. `rate` is 2 n k d / time; the columns
after it give it relative to the best rate of a product of two square matrices in the same run, in
bfloat16 and in true float32. `+ update` is the time of an iteration beyond its two assignments
(flash-kmeans includes it in its assignment). `fused` is the kernel for Hopper GPUs that
jaxcurate/kmeans/kernels/dispatch.py can turn on. jaxcurate's labels are those of float32 at
either precision; `agree` is the fraction of a sample of rows whose label is the nearest centroid
by float64. A contender that is not installed is left out and named. The script runs on any
backend of jax and torch, for example with `--cases=20000x64x300` on a CPU.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from absl import app, flags

from jaxcurate.runtime.devices import ONE_DEVICE

CASES = flags.DEFINE_list(
    "cases", ["10000000x1024x100000", "8000000x128x1024"], "n x d x k, rows drawn on the device."
)
CONTENDERS = flags.DEFINE_list(
    "contenders",
    [
        "jaxcurate float32",
        "jaxcurate bfloat16",
        "jaxcurate bfloat16 fused",
        "torch",
        "flash-kmeans",
    ],
    "Contenders.",
)
ROUNDS = flags.DEFINE_integer("rounds", 3, "Timed rounds, after one round for warm-up.")
WORKER = flags.DEFINE_string("worker", None, "Internal: the contender that this process is.")
_SAMPLE = 256


def matrix_rate(multiply: Callable[[], None], n: int) -> float:
    """Returns the best rate of five products of two square matrices ``[n, n]``, in FLOP/s."""
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        multiply()
        times.append(time.perf_counter() - begin)
    return 2 * n**3 / min(times)


def agreement(rows: np.ndarray, centroids: np.ndarray, labels: np.ndarray) -> float:
    """Returns the fraction of rows whose label is the nearest centroid, by float64."""
    rows, centroids = rows.astype(np.float64), centroids.astype(np.float64)
    scores = 0.5 * (centroids**2).sum(1) - rows @ centroids.T
    return float((scores.argmin(1) == labels).mean())


class WithJaxcurate:
    """Rows, centroids and the timed functions, in jax."""

    def __init__(self, precision: str, gpu_kernel: str, n: int, d: int, k: int):
        import jax
        import jax.numpy as jnp

        from jaxcurate.kmeans.kernels import dispatch
        from jaxcurate.kmeans.lloyd import LLOYD_SPECS, assigned, more_iterations, unassigned
        from jaxcurate.kmeans.rows import block_rows
        from jaxcurate.runtime.devices import ROWS, SAME

        dispatch.gpu_kernel = gpu_kernel
        if gpu_kernel == "fused" and not dispatch.runs_fused(precision):
            raise ValueError("the fused kernel is for Hopper GPUs and bfloat16")
        block = block_rows()
        n = -(-n // block) * block
        self.jax, self.jnp = jax, jnp
        self.x = jax.jit(lambda: jax.random.normal(jax.random.key(0), (n, d)))()
        self.weights, self.centroids = jnp.ones(n), self.x[:k] + 0
        options = dict(block=block, precision=precision)
        self._assigned = ONE_DEVICE.spmd(assigned, (ROWS, SAME), (ROWS, ROWS), **options)
        self._state = ONE_DEVICE.spmd(
            unassigned, (ROWS, SAME), LLOYD_SPECS, max_iter=1, block=block
        )
        self._more = ONE_DEVICE.spmd(
            more_iterations, (ROWS, ROWS, LLOYD_SPECS, SAME), LLOYD_SPECS, **options
        )

    def assign(self) -> None:
        self.labels = self.jax.block_until_ready(self._assigned(self.x, self.centroids))[0]

    def iterate(self) -> None:
        state = self._more(self.x, self.weights, self._state(self.x, self.centroids), 1)
        self.jax.block_until_ready(state)

    def rates(self) -> dict[str, float]:
        found = {}
        for dtype, precision in (("bfloat16", None), ("float32", "highest")):
            n = 8192 if self.jax.default_backend() == "gpu" else 1024
            a = self.jnp.ones((n, n), dtype)
            product = self.jax.jit(lambda a, p=precision: self.jnp.dot(a, a, precision=p))
            product(a).block_until_ready()
            multiply = lambda a=a, f=product: f(a).block_until_ready()
            found[dtype] = matrix_rate(multiply, n)
        return found

    def sample(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        take = lambda a: np.asarray(a[-_SAMPLE:])
        return take(self.x), np.asarray(self.centroids), take(self.labels)


class WithTorch:
    """Plain loop in torch: blocks of products, argmin, and sums by index_add."""

    def __init__(self, n: int, d: int, k: int):
        import torch

        self.torch = torch
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(0)
        self.x = torch.randn(n, d, device=self.device)
        self.centroids = self.x[:k].clone()

    def done(self) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def assign(self) -> None:
        half, block = 0.5 * (self.centroids**2).sum(1), max(1, 2**30 // len(self.centroids))
        self.labels = self.torch.cat(
            [(half - part @ self.centroids.T).argmin(1) for part in self.x.split(block)]
        )
        self.done()

    def iterate(self) -> None:
        self.assign()
        k, ones = len(self.centroids), self.torch.ones(len(self.x), device=self.device)
        sums = self.torch.zeros_like(self.centroids).index_add_(0, self.labels, self.x)
        counts = self.torch.zeros(k, device=self.device).index_add_(0, self.labels, ones)
        self.moved = sums / counts.clamp(min=1)[:, None]
        before, self.centroids = self.centroids, self.moved
        self.assign()
        self.centroids = before
        self.done()

    def rates(self) -> dict[str, float]:
        return {}

    def sample(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        take = lambda a: a.cpu().numpy()
        return take(self.x[-_SAMPLE:]), take(self.centroids), take(self.labels[-_SAMPLE:])


class WithFlash(WithTorch):
    """flash-kmeans: Triton kernels for both steps, with rows in half precision as it requires."""

    def __init__(self, n: int, d: int, k: int):
        from flash_kmeans import batch_kmeans_Euclid

        super().__init__(n, d, k)
        self.kmeans, self.x = batch_kmeans_Euclid, self.x.half()
        self.centroids = self.centroids.half()

    def _run(self, iterations: int) -> None:
        found = self.kmeans(
            self.x[None],
            n_clusters=len(self.centroids),
            max_iters=iterations,
            tol=-1.0,
            init_centroids=self.centroids[None],
        )
        self.labels = found[0][0]
        self.done()

    def assign(self) -> None:
        self._run(1)  # its iteration is an assignment and an update

    def iterate(self) -> None:
        self._run(2)


def serve(name: str) -> None:
    """Runs a contender in this process: reads one task and writes one answer on each line."""
    answer_to, sys.stdout = sys.stdout, sys.stderr
    made = None
    for line in sys.stdin:
        task = json.loads(line)
        try:
            if made is None:
                size = task["n"], task["d"], task["k"]
                if name.startswith("jaxcurate"):
                    _, precision, *gpu_kernel = name.split()
                    made = WithJaxcurate(precision, (gpu_kernel or ["blocks"])[0], *size)
                else:
                    made = {"torch": WithTorch, "flash-kmeans": WithFlash}[name](*size)
            answer = {"rates": made.rates()}
            for step in ("assign", "iterate"):
                begin = time.perf_counter()
                getattr(made, step)()
                answer[step] = time.perf_counter() - begin
            made.assign()
            answer["agree"] = agreement(*made.sample())
        except Exception as error:  # any contender may run out of memory
            answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"}
        answer_to.write(json.dumps(answer) + "\n")
        answer_to.flush()


def ask(name: str, rounds: int, **task: int) -> list[dict]:
    """Returns the answers of a contender, run in its own process so that its memory is freed."""
    process = subprocess.Popen(
        [sys.executable, __file__, f"--worker={name}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    out, _ = process.communicate((json.dumps(task) + "\n") * rounds)
    return [json.loads(line) for line in out.splitlines()] or [{"error": "it died"}]


def main(argv: list[str]) -> None:
    del argv
    if WORKER.value is not None:
        serve(WORKER.value)
        return
    for case in CASES.value:
        n, d, k = map(int, case.split("x"))
        print(f"n={n} d={d} k={k}")
        found = {name: ask(name, 1 + ROUNDS.value, n=n, d=d, k=k) for name in CONTENDERS.value}
        rates = [a["rates"] for answers in found.values() for a in answers[1:] if a.get("rates")]
        peak = {p: max((r[p] for r in rates), default=np.nan) for p in ("bfloat16", "float32")}
        peaks = ", ".join(f"{p} {rate / 1e12:.1f} TFLOP/s" for p, rate in peak.items())
        print(f"  square products: {peaks}")
        print(f"  {'':24} {'assign s':>9} {'+ update':>9} {'rate':>7} {'of bf16':>8} "
              f"{'of f32':>7} {'agree':>6} {'first s':>8}")  # fmt: skip
        for name, answers in found.items():
            if "error" in answers[-1]:
                print(f"  {name}: left out ({answers[-1]['error']})")
                continue
            assign, iterate = (
                float(np.median([a[step] for a in answers[1:]])) for step in ("assign", "iterate")
            )
            rate = 2 * n * d * k / assign
            print(
                f"  {name:24} {assign:9.3f} {iterate - 2 * assign:9.3f} {rate / 1e12:7.1f} "
                f"{rate / peak['bfloat16']:8.2f} {rate / peak['float32']:7.2f} "
                f"{answers[-1]['agree']:6.3f} {answers[0]['assign']:8.2f}",
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
