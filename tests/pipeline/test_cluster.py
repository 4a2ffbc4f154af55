"""The stage `cluster` continues within a level as if it had not been interrupted."""

from importlib import metadata

import numpy as np
import pytest

import jaxcurate as jc
from jaxcurate.artifacts.checkpoint import Checkpoint
from jaxcurate.config import ClusterConfig, Config, DedupConfig, EvaluateConfig, SampleConfig
from jaxcurate.pipeline.run import Pipeline
from jaxcurate.runtime.progress import Progress


class Lines(Progress):
    def __init__(self):
        super().__init__()
        self.lines = []

    def line(self, text):
        self.lines.append(text)


@pytest.fixture
def cluster(tmp_path):
    """Runs `embed` and `cluster` in a work directory; returns its lines."""
    x = np.random.default_rng(0).normal(size=(600, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)

    def run(work, **changes):
        settings = Config(
            source=f"npy:{tmp_path / 'x.npy'}",
            dedup=DedupConfig(enabled=False),
            cluster=ClusterConfig((jc.Level(30, 2, 5), jc.Level(6)), max_iter=30),
            sample=SampleConfig(30),
            evaluate=EvaluateConfig(arms=()),
            n_devices=1,
            **{"checkpoint_minutes": 0.0} | changes,
        )
        told = Lines()
        Pipeline(settings, tmp_path / work, told).run(["embed", "cluster"])
        return told.lines

    return run


def tree(path):
    return [array for level in jc.ClusterTree.load(path / "tree").levels for array in level]


def test_goes_on_within_a_level_after_a_kill(cluster, tmp_path, monkeypatch):
    cluster("whole", checkpoint_minutes=5.0)
    save, saved = Checkpoint.save, []

    def dies(self, arrays):
        save(self, arrays)
        saved.append(set(arrays))
        if len(saved) in (2, 5):
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", dies)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            cluster("killed")
        assert (tmp_path / "killed/tree-checkpoint/card.json").exists()
        assert not (tmp_path / "killed/tree").exists()
    assert "  continuing from the last checkpoint" in cluster("killed")
    assert any("phase" in names for names in saved)  # within a k-means
    assert not (tmp_path / "killed/tree-checkpoint").exists()
    for one, other in zip(tree(tmp_path / "whole"), tree(tmp_path / "killed"), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def killed(cluster, monkeypatch):
    """A work directory whose `cluster` was killed while rows were assigned, within a k-means."""

    def dies(self, arrays, save=Checkpoint.save):
        save(self, arrays)
        if arrays.get("phase") == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoint, "save", dies)
        cluster("work")
    return "work"


@pytest.mark.parametrize("changes", [{"seed": 1}, {"shard_centroids": True}])
def test_a_checkpoint_of_other_settings_is_not_used(cluster, killed, tmp_path, changes):
    assert "  continuing from the last checkpoint" not in cluster(killed, **changes)
    assert not (tmp_path / killed / "tree-checkpoint").exists()


def test_a_checkpoint_of_another_release_is_not_used(cluster, killed, monkeypatch):
    versions = metadata.version
    monkeypatch.setattr(metadata, "version", lambda package: f"{versions(package)}.other")
    assert "  continuing from the last checkpoint" not in cluster(killed)


def test_a_damaged_checkpoint_is_told(cluster, killed, tmp_path):
    (tmp_path / killed / "tree-checkpoint/n_runs.npy").write_bytes(b"")
    (line,) = [line for line in cluster(killed) if "checkpoint" in line]
    assert "n_runs.npy" in line and "made from the start" in line


def test_a_folder_of_the_users_is_refused_before_work_begins_and_stays(cluster, tmp_path):
    (tmp_path / "work/tree-checkpoint").mkdir(parents=True)
    (tmp_path / "work/tree-checkpoint/mine.txt").write_text("mine")
    with pytest.raises(jc.InputError, match="tree-checkpoint was not written by jaxcurate"):
        cluster("work")
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["tree-checkpoint"]
    (tmp_path / "work/tree-checkpoint").rename(tmp_path / "aside")
    cluster("work")
    (tmp_path / "aside").rename(tmp_path / "work/tree-checkpoint")
    assert "cluster: done before" in cluster("work")
    assert (tmp_path / "work/tree-checkpoint/mine.txt").read_text() == "mine"
