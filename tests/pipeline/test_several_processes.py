"""The command line in real processes on this machine, against one process with as many devices."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import xla_flags
from PIL import Image

import jaxcurate as jc
from jaxcurate.artifacts.parts import Parts
from jaxcurate.checks import InputError
from jaxcurate.pipeline import context
from jaxcurate.runtime import messages

MOST_SECONDS = 900
ROOT = Path(jc.__file__).parents[1]

VECTORS = """
from jaxcurate.config import ClusterConfig, Config, EvaluateConfig, Level, SampleConfig, to_config


def get_config():
    return to_config(
        Config(
            source="npy:{source}",
            cluster=ClusterConfig(levels=(Level(12, 2, 4), Level(3))),
            sample=SampleConfig(size=50),
            evaluate=EvaluateConfig(arms=()),
        )
    )
"""
PICTURES = """
from jaxcurate.config import ClusterConfig, Config, EmbedConfig, EvaluateConfig, ExportConfig
from jaxcurate.config import FilterConfig, Level, SampleConfig, to_config
from jaxcurate.curation.rules import Rule
from jaxcurate.models.vit_config import ViTArchitecture
from jaxcurate.training import PretrainConfig


def get_config():
    model = ViTArchitecture(8, 4, 16, 1, 2)
    return to_config(
        Config(
            source="folder:{source}/train",
            embed=EmbedConfig("pca", n_components=8),
            filter=FilterConfig(
                rules=(Rule("side", min=25),), wanted="folder:{source}/probe", min_wanted=-0.9
            ),
            cluster=ClusterConfig(levels=(Level(16, 2, 3), Level(4))),
            sample=SampleConfig(size=60),
            export=ExportConfig(format="list,copy,webdataset", shard_size=16),
            evaluate=EvaluateConfig(
                arms=("curated", "random", "flat_plain"),
                n_seeds=2,
                parallel="batch",
                probe_split="folder:{source}/probe",
                test_split="folder:{source}/test",
                pretraining=PretrainConfig(model=model, n_steps=8, batch_size=24),
            ),
            checkpoint_minutes=0.0001,
        )
    )
"""


@contextmanager
def started(folder, n, n_devices, arguments, own=None, compiled=False):
    """Processes of a command, killed in the end.

    ``own`` has more arguments of some of them; long runs are worth being ``compiled`` fully.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": str(n_devices),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "" if compiled else xla_flags.QUICK,
    }
    running = []
    try:
        for process in range(n):
            joined = [f"--coordinator={address}", f"--n_processes={n}", f"--process_id={process}"]
            more = (own or {}).get(process, [])
            command = [sys.executable, "-m", "jaxcurate", *arguments, *joined, *more]
            with open(folder / f"log{process}", "wb") as log:
                opened = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            running.append(opened)
        yield running
    finally:
        for one in running:
            one.kill()
            one.wait()


def logs(folder, n):
    return [(folder / f"log{process}").read_text() for process in range(n)]


def run(folder, n, n_devices, arguments, own=None, compiled=False):
    """Exit codes of the processes of a command."""
    with started(folder, n, n_devices, arguments, own, compiled) as running:
        codes = [one.wait(MOST_SECONDS) for one in running]
    print(*logs(folder, n), sep="\n")  # shown if the test fails
    return codes


def command(folder, text, source, workdir, *more):
    config = folder / "config.py"
    config.write_text(text.replace("{source}", str(source)))
    return ["run", f"--config={config}", f"--workdir={folder / workdir}", *more]


@pytest.fixture
def vectors(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(331, 5)) + 4 * rng.normal(size=(9, 5))[rng.integers(9, size=331)]
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    return tmp_path / "x.npy"


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    made = rng.integers(0, 256, (6, 8, 8, 3))
    for split, n in (("train", 211), ("probe", 36), ("test", 36)):
        for i in range(n):
            kind = i % 6 if split != "train" else min(int(rng.geometric(0.4)), 6) - 1
            pixels = np.clip(made[kind] + rng.normal(0, 60, (8, 8, 3)), 0, 255).astype(np.uint8)
            file = tmp_path / "pictures" / split / f"class{kind}" / f"{i:04d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).resize((24 + i % 3, 25)).save(file)
    (tmp_path / "pictures" / "train" / "class0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    return tmp_path / "pictures"


def check_same_run(one, several):
    """Asserts that two work directories have the same pool and subset, and nearly the same tree."""
    for file in ("pool/ids.npy", "pool/items.npy", "subsets/curated/indices.npy"):
        assert (one / file).read_bytes() == (several / file).read_bytes(), file
    pools = [jc.Pool.load(work / "pool") for work in (one, several)]
    np.testing.assert_allclose(*(pool.embeddings for pool in pools), rtol=1e-5, atol=1e-5)
    trees = [jc.ClusterTree.load(work / "tree") for work in (one, several)]
    for alone, together in zip(*(tree.levels for tree in trees), strict=True):
        np.testing.assert_array_equal(alone.labels, together.labels)
        np.testing.assert_allclose(alone.centroids, together.centroids, rtol=1e-4, atol=1e-4)
    left = [name.name for name in several.iterdir()]
    assert not [name for name in left if "part" in name or "checkpoint" in name], left


def test_two_processes_give_the_subset_of_one(tmp_path, vectors):
    assert run(tmp_path, 1, 2, command(tmp_path, VECTORS, vectors, "one")) == [0]
    several = command(tmp_path, VECTORS, vectors, "several")
    assert run(tmp_path, 2, 1, several) == [0, 0], logs(tmp_path, 2)
    check_same_run(tmp_path / "one", tmp_path / "several")
    first, second = logs(tmp_path, 2)
    assert "process 0 of 2" in first and "1 of 2 x CPU" in first and "cluster: " in first
    assert "process 1 of 2" in second and "cluster" not in second
    assert run(tmp_path, 2, 1, several) == [0, 0]
    assert "cluster: done before" in logs(tmp_path, 2)[0]


def test_processes_with_other_settings_are_refused(tmp_path, vectors):
    arguments = command(tmp_path, VECTORS, vectors, "work")
    own = {1: ["--config.sample.size=51"]}
    assert run(tmp_path, 2, 1, arguments, own) == [2, 2]
    for text in logs(tmp_path, 2):
        assert "config.sample.size is not the same in all processes" in text and "51" in text
        assert "Traceback" not in text
    assert not (tmp_path / "work").exists()


def test_an_error_of_one_process_ends_all_with_its_line(tmp_path, vectors):
    (tmp_path / "work" / "pool").mkdir(parents=True)
    (tmp_path / "work" / "pool" / "notes.txt").write_text("mine")
    codes = run(tmp_path, 2, 1, command(tmp_path, VECTORS, vectors, "work"))
    assert codes[0] == 2 and codes[1] != 0
    first, second = logs(tmp_path, 2)
    assert "work/pool" in first and "Traceback" not in first + second
    assert (tmp_path / "work" / "pool" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--n_processes=2"], "--coordinator, --process_id not given"),
        (["--coordinator=127.0.0.1:1", "--n_processes=2", "--process_id=2"], "not within"),
        (["--n_processes=2", "--process_id=0", "--coordinator=nowhere"], "nowhere"),
        (["--n_processes=0", "--process_id=0", "--coordinator=127.0.0.1:1"], "--n_processes=0"),
    ],
)
def test_flags_that_cannot_be_used_are_told(tmp_path, vectors, flags, message):
    arguments = command(tmp_path, VECTORS, vectors, "work", "--start_seconds=2", *flags)
    ended = subprocess.run(
        [sys.executable, "-m", "jaxcurate", *arguments],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=MOST_SECONDS,
    )
    assert ended.returncode == 2 and message in ended.stderr, ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "work").exists()


def test_a_work_directory_that_is_not_shared_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(context, "_VISIBLE_SECONDS", 0.2)
    monkeypatch.setattr(messages, "index", lambda: 1)
    with pytest.raises(InputError, match="process 1 does not see pool"):
        context._wait_for(lambda: False, "pool")
    seen = iter([False, False, True])
    context._wait_for(lambda: next(seen), "pool")


def test_each_process_has_parts_of_its_own(tmp_path):
    for process in (0, 1):
        own = Parts(tmp_path / "parts", {"seed": 0}, "run", process, 2)
        assert not own.cards
        for i in range(1 + process):
            with own.new({"process": process}) as folder:
                folder.write_text("a.txt", f"{i}")
    again = [Parts(tmp_path / "parts", {"seed": 0}, "run", process, 2) for process in (0, 1)]
    assert [[card["process"] for card in parts.cards] for parts in again] == [[0], [1, 1]]
    assert not Parts(tmp_path / "parts", {"seed": 0}, "run").cards
    assert not Parts(tmp_path / "parts", {"seed": 0}, "run", 0, 3).cards
    again[0].check_replaceable("run")
    with pytest.raises(InputError):
        again[0].check_replaceable("another")
    again[0].remove()
    assert len(Parts(tmp_path / "parts", {"seed": 0}, "run", 1, 2).cards) == 2
    again[1].remove()
    assert (tmp_path / "parts").is_dir()  # a process may be about to write there
    Parts(tmp_path / "parts", None, "run").remove()
    assert not (tmp_path / "parts").exists()


def curves(work):
    return {file.name: np.load(file) for file in sorted((work / "evaluation").glob("losses_*"))}


@pytest.mark.slow
@pytest.mark.parametrize("n, n_devices, mesh", [(2, 2, 4), (3, 1, 3)])
def test_a_folder_of_pictures_over_uneven_processes(tmp_path, pictures, n, n_devices, mesh):
    assert run(tmp_path, 1, mesh, command(tmp_path, PICTURES, pictures, "one")) == [0]
    several = command(tmp_path, PICTURES, pictures, "several")
    assert run(tmp_path, n, n_devices, several) == [0] * n, logs(tmp_path, n)
    one, several = tmp_path / "one", tmp_path / "several"
    check_same_run(one, several)
    exported = sorted(file for file in (one / "exports").rglob("*") if file.is_file())
    for file in exported:
        if file.name != "card.json":
            assert (several / file.relative_to(one)).read_bytes() == file.read_bytes(), file
    alone, together = curves(one), curves(several)
    assert list(alone) == list(together) and len(alone) == 3
    for name, curve in alone.items():
        np.testing.assert_allclose(curve, together[name], atol=1e-4)
    assert (several / "report.html").is_file()


@pytest.mark.slow
def test_ten_kills_of_any_process_change_nothing(tmp_path, pictures):
    """The same command goes on after any of its processes was killed at any moment."""
    assert run(tmp_path, 2, 2, command(tmp_path, PICTURES, pictures, "whole")) == [0, 0]
    # A process that is killed before it joins is missed at the end of the time to start.
    killed = command(tmp_path, PICTURES, pictures, "killed", "--start_seconds=60")
    rng = np.random.default_rng(0)
    for kill in range(10):
        with started(tmp_path, 2, 2, killed) as running:
            time.sleep(float(rng.uniform(4, 30)))
            victim = running[kill % 2]
            if victim.poll() is None:
                victim.send_signal((signal.SIGKILL, signal.SIGTERM)[kill // 2 % 2])
            codes = [one.wait(120) for one in running]  # a lost process ends the others
            assert all(codes) or not any(codes)
    assert run(tmp_path, 2, 2, killed) == [0, 0], logs(tmp_path, 2)
    check_same_run(tmp_path / "whole", tmp_path / "killed")
    whole, after = curves(tmp_path / "whole"), curves(tmp_path / "killed")
    for name, curve in whole.items():
        np.testing.assert_array_equal(curve, after[name])
    texts = [
        (tmp_path / work / "evaluation/runs.jsonl").read_text() for work in ("whole", "killed")
    ]
    measures = [[json.loads(line)["measures"] for line in text.splitlines()] for text in texts]
    assert measures[0] == measures[1]


@pytest.mark.parametrize(
    "config, levels, n, n_wanted",
    [
        ("web_4levels", [(10, 10), (20, 1), (5, 1), (1, 1)], 3_715, 500),
        pytest.param(
            *("dinov3_5levels", [(20, 20), (8, 5), (8, 1), (4, 1), (2, 1)], 17_000, 1_000),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_published_settings_in_small(tmp_path, config, levels, n, n_wanted):
    """All levels, splits and rounds of resampling, with fewer rows and clusters."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 8)) + 4 * rng.normal(size=(500, 8))[rng.zipf(1.5, n) % 500]
    np.save(tmp_path / "x.npy", x.astype(np.float16))
    fields = [
        f"--config.cluster.levels[{i}].{name}={value}"
        for i, level in enumerate(levels)
        for name, value in zip(("n_clusters", "n_splits"), level, strict=True)
    ]
    work = tmp_path / "work"
    arguments = [f"--config={config}:{tmp_path}/x.npy", f"--workdir={work}", *fields]
    arguments += [f"--config.sample.size={n_wanted}", f"--config.memory_limit={n * 20}"]
    assert run(tmp_path, 2, 1, ["run", *arguments], compiled=n > 10_000) == [0, 0]
    tree = jc.ClusterTree.load(work / "tree")
    assert [len(level.centroids) for level in tree.levels] == [k * m for k, m in levels]
    counts = tree.point_counts(1)
    assert counts.sum() == n and counts.min() > 0
    indices = np.load(work / "subsets/curated/indices.npy")
    assert len(np.unique(indices)) == n_wanted
    # A balanced subset takes more from the clusters than their shares of the rows.
    taken = np.bincount(tree.point_labels(2)[indices], minlength=len(tree.levels[1].centroids))
    drawn = np.bincount(tree.point_labels(2), minlength=len(taken)) / n * n_wanted
    assert taken.std() < 0.7 * drawn.std()
