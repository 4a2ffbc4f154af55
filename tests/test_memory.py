"""Memory that a pool larger than its limit takes, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxcurate

WORKER = """
import json, sys, threading, time
from jaxcurate import cli

def anonymous():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1000

def peak_of(command, *flags):
    done, peak = threading.Event(), [anonymous()]
    def watch():
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous())
    watching = threading.Thread(target=watch)
    watching.start()
    code = cli.main([command, f"--config={sys.argv[1]}", "--quiet", *flags])
    done.set()
    watching.join()
    assert code == 0
    return peak[0]

stages = "embed", "dedup", "cluster", "sample"
for stage in stages:  # compiles, which takes memory of its own
    peak_of(stage, "--workdir=small", "--config.source=npy:small.npy", sys.argv[2])
before = anonymous()
print(json.dumps({s: peak_of(s, "--workdir=large", sys.argv[2]) - before for s in stages}))
"""
CONFIG = """
from jaxcurate.encoders import EmbedConfig
from jaxcurate import Level
from jaxcurate.config import ClusterConfig, EvaluateConfig, SampleConfig, Config, to_config

def get_config():
    return to_config(
        Config(
            source="npy:large.npy",
            cluster=ClusterConfig(
                (Level(30, 1, 1000), Level(5, 1, 2)), max_iter=3, init="k-means||"
            ),
            sample=SampleConfig(1000),
            evaluate=EvaluateConfig(arms=()),
            n_devices=2,
        )
    )
"""
N, D, LIMIT = 300_000, 256, 20_000_000


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
def test_no_stage_holds_the_embeddings(tmp_path):
    """None takes half of what they do, where `cluster` takes twice as much without a limit.

    What is taken is the limit, tens of bytes a row, and what compiling leaves behind.
    """
    rng = np.random.default_rng(0)
    centres = 5 * rng.normal(size=(50, D))
    large = np.lib.format.open_memmap(tmp_path / "large.npy", "w+", np.float32, (N, D))
    for begin in range(0, N, 100_000):
        part = large[begin : begin + 100_000]
        part[:] = centres[rng.integers(50, size=len(part))] + rng.normal(size=part.shape)
    np.save(tmp_path / "small.npy", large[:60_000])
    (tmp_path / "config.py").write_text(CONFIG)
    command = [sys.executable, "-c", WORKER, "config.py", f"--config.memory_limit={LIMIT}"]
    environment = os.environ | {"PYTHONPATH": str(Path(jaxcurate.__file__).parents[1])}
    # Compiled as users do, because it computes more than it compiles.
    del environment["JAX_NUM_CPU_DEVICES"], environment["XLA_FLAGS"]
    run = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    print(told)
    for stage, n_bytes in told.items():
        assert n_bytes < 4 * N * D / 2, f"{stage}: {n_bytes:,}"
