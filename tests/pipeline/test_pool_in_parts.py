"""All stages take a pool in parts, with the same subset as from a pool that is not in parts."""

import itertools
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

import jaxcurate as jc
from jaxcurate.artifacts import folders, new_folder
from jaxcurate.artifacts.files import DamagedError
from jaxcurate.artifacts.pool import Pool
from jaxcurate.config import (
    ClusterConfig,
    Config,
    DedupConfig,
    EmbedConfig,
    EvaluateConfig,
    FilterConfig,
    GrowConfig,
    MixConfig,
    SampleConfig,
)
from jaxcurate.pipeline import embed as stage
from jaxcurate.pipeline.load import load_subset
from jaxcurate.pipeline.run import Pipeline
from jaxcurate.runtime.progress import Progress

N, D = 300, 8
A_PART = 80 * 4 * D
STAGES = ("embed", "filter", "dedup", "cluster", "sample", "export", "report")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    x = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
    x[250], x[100] = x[10], x[99] * 1.0001
    x[170] = np.nan
    x[81] = 0
    for i, shard in enumerate(np.array_split(x, 3)):
        np.save(folder / f"x{i}.npy", shard)
    np.save(folder / "more.npy.new", x[:40] + 0.1)
    os.rename(folder / "more.npy.new.npy", folder / "more.new")
    np.save(folder / "examples.npy.new", x[:5])
    os.rename(folder / "examples.npy.new.npy", folder / "examples.new")
    return folder


def config(source, part_bytes=A_PART, **changes):
    settings = Config(
        source=f"npy:{source}",
        embed=EmbedConfig(batch_size=32, part_bytes=part_bytes),
        filter=FilterConfig(wanted=f"npy:{source}/examples.new", min_wanted=-0.95),
        dedup=DedupConfig(threshold=0.999, n_clusters=5),
        cluster=ClusterConfig((jc.Level(20, 2, 5), jc.Level(5)), metric="cosine"),
        sample=SampleConfig(
            60, mix=MixConfig(0.7, 0.2, 0.1, references=f"npy:{source}/examples.new")
        ),
        evaluate=EvaluateConfig(arms=()),
        grow=GrowConfig(f"npy:{source}/more.new", prefix="new-"),
        n_devices=1,
        memory_limit=100_000,
    )
    return replace(settings, **changes)


def run(settings, work, stages=STAGES):
    Pipeline(settings, work, Progress(quiet=True)).run(stages)
    return work


@pytest.fixture(scope="module")
def works(source, tmp_path_factory):
    """Work directories of a pool that is not in parts, and of the same pool in parts."""
    folder = tmp_path_factory.mktemp("works")
    return run(config(source, 2**32), folder / "flat"), run(config(source), folder / "parts")


def test_the_subset_is_the_same(works):
    flat, parts = works
    assert {path.name for path in (parts / "pool").iterdir()} == {
        "card.json",
        "left_out.parquet",
        "parts",
    }
    one, other = (Pool.load(work / "pool") for work in works)
    assert other.embeddings.sizes == [80, 80, 80, 58]
    assert isinstance(one.embeddings, np.ndarray)
    for array, lazy in zip(one_arrays(one), one_arrays(other), strict=True):
        np.testing.assert_array_equal(array, lazy)
    for name in (
        "subsets/curated/manifest.parquet",
        "filter/dropped.parquet",
        "dedup/dropped.parquet",
    ):
        assert pq.read_table(flat / name).equals(pq.read_table(parts / name)), name
    for name in ("subsets/curated/indices.npy", "tree/l1_labels.npy", "tree/l1_distances.npy"):
        assert (flat / name).read_bytes() == (parts / name).read_bytes()
    cards = [json.loads((work / "subsets/curated/card.json").read_text()) for work in works]
    assert cards[0]["measures"] == cards[1]["measures"] and cards[0]["pool"] != cards[1]["pool"]
    assert "report.html" in {path.name for path in parts.iterdir()}
    exports = [sorted(path.name for path in (work / "exports").rglob("*")) for work in works]
    assert exports[0] == exports[1] and len(exports[0]) > 1


def one_arrays(pool):
    return pool.embeddings[:], pool.ids[:], pool.items[:]


def test_items_are_loaded_by_their_numbers(works):
    flat, parts = map(load_subset, works)
    assert flat.ids.tolist() == parts.ids.tolist()
    np.testing.assert_array_equal(flat[7].content, parts[7].content)


def test_other_bounds_are_no_reason_to_embed_again(source, works):
    told = Pipeline(config(source, 10**6), works[1], Progress(quiet=True)).status()
    assert {
        status.stage: status.state for status in told if status.stage in STAGES
    } == dict.fromkeys(STAGES, "done")


@pytest.mark.parametrize("part", [0, 1])
def test_a_pool_grows_in_parts(source, works, tmp_path, part):
    work = tmp_path / "work"
    shutil.copytree(works[part], work)
    run(config(source), work, ["grow"])
    grown = Pool.load(work / "grown/grown/pool")
    assert grown.embeddings.sizes == [80, 80, 80, 80, 18]
    np.testing.assert_array_equal(grown.embeddings[:298], Pool.load(work / "pool").embeddings[:])
    assert grown.ids[297:299].tolist() == ["299", "new-0"]
    tree = jc.ClusterTree.load(work / "grown/grown/tree")
    assert tree.n_points == 338


@pytest.mark.parametrize("name", ["embeddings", "ids"])
def test_a_damaged_part_is_named(source, works, tmp_path, name):
    work = tmp_path / "work"
    shutil.copytree(works[1], work)
    file = work / f"pool/parts/000002/{name}.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    settings = replace(config(source), seed=1)
    with pytest.raises(DamagedError, match=rf"pool/parts/000002/{name}\.npy is damaged"):
        run(settings, work)


def test_a_kill_between_parts_or_pieces_changes_nothing(source, works, tmp_path, monkeypatch):
    # After one call, then after two more, and so on, since whole stages take many calls.
    counter, kills, places = itertools.count(1), set(np.cumsum(np.arange(1, 25)).tolist()), []

    def dying(made):
        def wrapped(*args, **kwargs):
            if next(counter) in kills:
                places.append(made.__name__)
                raise KeyboardInterrupt
            return made(*args, **kwargs)

        return wrapped

    for name in ("_write_piece", "_write_part", "join_pool"):
        monkeypatch.setattr(stage, name, dying(getattr(stage, name)))
    link = os.link
    monkeypatch.setattr(new_folder.os, "link", dying(link))
    settings = config(source, checkpoint_minutes=0.0)
    work = tmp_path / "work"
    for _ in range(60):
        try:
            run(settings, work, ["embed"])
            break
        except KeyboardInterrupt:
            assert not (work / "pool").exists()
    assert set(places) >= {"_write_piece", "_write_part", "link"}
    assert {path.name for path in work.iterdir()} == {"config.json", "pool"}
    cards = [folders.check_files(path / "pool") for path in (work, works[1])]
    for key in ("pool", "parts", "zeros", "unreadable", "n"):
        assert cards[0].get(key) == cards[1].get(key), key
    embeddings = [{n: e for n, e in card["files"].items() if n.endswith(".npy")} for card in cards]
    assert embeddings[0] == embeddings[1]


def test_a_work_directory_of_an_older_release_is_read(source, works, tmp_path):
    """The card has settings without the bound of a part, and the pool is not in parts."""
    work = tmp_path / "work"
    shutil.copytree(works[0], work)
    card = json.loads((work / "pool/card.json").read_text())
    assert "part_bytes" not in card["made_from"]["embed"] and "parts" not in card
    shutil.rmtree(work / "tree")
    run(config(source), work)
    assert (work / "tree/l1_labels.npy").read_bytes() == (
        works[0] / "tree/l1_labels.npy"
    ).read_bytes()
