"""The plan of `cluster` beside a run on this machine, and compiled by the compiler of TPUs."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

import jaxcurate as jc
from jaxcurate.config import ClusterConfig, Config, EvaluateConfig, SampleConfig
from jaxcurate.planning import Ask, plan_stage, steps_of_clustering
from jaxcurate.planning.ahead_of_time import has_tpu_compiler
from jaxcurate.planning.machines import tpu_slice

BENCH = Path(__file__).parents[2] / "scripts" / "bench" / "plan.py"
pytestmark = pytest.mark.slow


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_time_and_memory_of_cluster_are_as_planned():
    # In a process of its own, with the devices and the effort of the compiler that a run has.
    done = subprocess.run(
        [sys.executable, BENCH, "--pools=small"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(BENCH.parents[2]), "HOME": "/tmp"},
        capture_output=True,
        text=True,
        check=True,
    )
    line = done.stdout.splitlines()[-1].split()
    time_ratio, memory_ratio = float(line[5]), float(line[-1])
    assert 1 / 1.5 < time_ratio < 1.5, done.stdout
    assert 0.8 < memory_ratio < 1.2, done.stdout


@pytest.mark.skipif(not has_tpu_compiler(), reason="no libtpu: run scripts/test_tpu")
@pytest.mark.parametrize("more", [{}, {"shard_centroids": True}, {"memory_limit": 4 * 10**9}])
def test_counted_memory_is_near_that_of_the_compiler_of_tpus(more):
    settings = Config(
        "npy:x.npy",
        ClusterConfig((jc.Level(50_000),)),
        SampleConfig(1000),
        evaluate=EvaluateConfig(arms=()),
        **more,
    )
    ask = Ask(settings, tpu_slice("v5e-8"), n_items=8 * 2**18, n_columns=1024)
    counted = plan_stage("cluster", ask, steps_of_clustering)
    compiled = plan_stage(
        "cluster", dataclasses.replace(ask, compiles=("cluster",)), steps_of_clustering
    )
    assert "compiled" in compiled.sources
    (step,) = [step for step in compiled.steps if step.memory_source == "compiled"]
    (alike,) = [one for one in counted.steps if one.name == step.name]
    assert alike.chip_bytes / step.chip_bytes == pytest.approx(1, abs=0.35)
    assert "all-reduce" in step.collectives
