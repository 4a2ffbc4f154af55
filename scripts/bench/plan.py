#!/usr/bin/env python3
"""Prints a table of the time and memory of `cluster`, as `jaxcurate plan` predicts and as measured.

    python scripts/bench/plan.py                      # six pools, some ten minutes
    python scripts/bench/plan.py --pools=small

Rates are calibrated first. Then the stages `embed` and `cluster` run over random rows in processes
of their own. Time is that of the processor over the number of its cores, in the prediction too, so
that other programs on the machine do not count; the start of Python and jax is left out by taking
off the time of `status`. Memory is anonymous memory, as in `memory.py`. Linux only.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(min(8, len(os.sched_getaffinity(0)))))

import numpy as np
from absl import app, flags
from anonymous_memory import anonymous_bytes

from jaxcurate import Level
from jaxcurate.config import ClusterConfig, Config, DedupConfig, EvaluateConfig, SampleConfig
from jaxcurate.pipeline.cluster import Cluster
from jaxcurate.pipeline.plan import calibrated
from jaxcurate.planning import Ask
from jaxcurate.planning.calibrate import calibrate
from jaxcurate.planning.machines import this_machine
from jaxcurate.runtime.devices import Devices

ROOT = Path(__file__).parents[2]


class Case(NamedTuple):
    """Pool and settings of a measurement."""

    n: int
    d: int
    levels: tuple[Level, ...]
    more: dict[str, Any]


CASES = {
    "small": Case(150_000, 64, (Level(1000, 2, 10), Level(100)), {}),
    "narrow": Case(100_000, 32, (Level(300, 2, 50), Level(30)), {}),
    "resampled": Case(200_000, 128, (Level(2000, 3, 10), Level(200, 3, 5)), {}),
    "wide": Case(60_000, 768, (Level(1000, 2, 10), Level(100)), {}),
    "large": Case(1_000_000, 64, (Level(500, 1, 1000), Level(50)), {"init": "k-means||"}),
    "streamed": Case(
        600_000, 128, (Level(300), Level(30)), {"init": "k-means||", "memory_limit": 100_000_000}
    ),
}

POOLS = flags.DEFINE_list("pools", list(CASES), "Pools to cluster.")


class Measured(NamedTuple):
    """Time and peak memory of a stage."""

    seconds: float
    n_bytes: float


def write_rows(path: Path, n: int, d: int, seed: int) -> None:
    """Writes a .npy file of rows around 100 centers of falling sizes, in parts."""
    rng = np.random.default_rng(seed)
    centers = 3 * np.random.default_rng(0).standard_normal((100, d), np.float32)
    falling = 1 / np.arange(1, 101)
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (n, d))
    for begin in range(0, n, 100_000):
        part = rows[begin : begin + 100_000]
        groups = rng.choice(100, size=len(part), p=falling / falling.sum())
        part[:] = centers[groups] + rng.standard_normal(part.shape, np.float32)


def settings_of(case: Case, folder: Path) -> Config:
    """Returns the settings of a run over the rows of a folder."""
    more = dict(case.more)
    init = more.pop("init", "k-means++")
    return Config(
        source=f"npy:{folder / 'rows.npy'}",
        cluster=ClusterConfig(case.levels, init=init),
        sample=SampleConfig(size=case.n // 10),
        dedup=DedupConfig(enabled=False),
        evaluate=EvaluateConfig(arms=()),
        **more,
    )


def run(stage: str, case: Case, folder: Path) -> Measured:
    """Runs a command over the rows of a folder, and returns its time and its peak."""
    levels = ",".join(
        f"{{'n_clusters': {level.n_clusters}, 'n_resamples': {level.n_resamples}, "
        f"'n_per_cluster': {level.n_per_cluster}}}"
        for level in case.levels
    )
    more = dict(case.more)
    command = [
        *(sys.executable, "-m", "jaxcurate", stage, "--quiet"),
        f"--config={ROOT / 'configs/small_2levels.py'}:{folder / 'rows.npy'}",
        f"--workdir={folder / 'work'}",
        f"--config.cluster.levels=({levels},)",
        f"--config.cluster.init={more.pop('init', 'k-means++')}",
        "--config.dedup.enabled=False",
        *(f"--config.{name}={value}" for name, value in more.items()),
    ]
    # Every kernel is compiled, as in the first run of a user.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAXCURATE_COMPILE_CACHE": "off"}
    before, peak = resource.getrusage(resource.RUSAGE_CHILDREN), 0
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(0.02)
    if process.returncode:
        raise SystemExit(process.returncode)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Measured(seconds / n_cores(), peak)


def n_cores() -> int:
    """Returns the number of cores that run the kernels."""
    return int(os.environ["JAX_NUM_CPU_DEVICES"])


def measured(case: Case) -> Measured:
    """Returns time and peak of `cluster` over new rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "rows.npy", case.n, case.d, seed=1)
        run("embed", case, folder)
        start = run("status", case, folder).seconds
        found = run("cluster", case, folder)
        return found._replace(seconds=found.seconds - start)


def predicted(case: Case) -> Measured:
    """Returns time and peak of `cluster` by its plan, after a calibration."""
    rates = calibrate(
        Devices.first(n_cores()), d=case.d, clock=lambda: time.process_time() / n_cores()
    )
    machine = this_machine(n_devices=n_cores())
    ask = Ask(settings_of(case, Path("/")), machine, case.n, case.d, item_bytes=4.0 * case.d)
    plan = Cluster().plan(calibrated(ask, rates))
    return Measured(plan.seconds, plan.host_bytes)


def main(_: list[str]) -> None:
    print(f"{'pool':10} {'time':>8} {'plan':>8} {'ratio':>6} {'peak':>9} {'plan':>9} {'ratio':>6}")
    for name in POOLS.value:
        plan, found = predicted(CASES[name]), measured(CASES[name])
        print(
            f"{name:10} {found.seconds:6.1f} s {plan.seconds:6.1f} s "
            f"{plan.seconds / found.seconds:6.2f} {found.n_bytes / 1e9:6.2f} GB "
            f"{plan.n_bytes / 1e9:6.2f} GB {plan.n_bytes / found.n_bytes:6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    app.run(main)
