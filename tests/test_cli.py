"""The command line on small sources: stages, skipping, resuming, and one line for bad input."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import jaxcurate as jc
from jaxcurate import cli
from jaxcurate.config import Config
from jaxcurate.dataclass_fields import explained
from jaxcurate.evaluation.coverage import kl_to_uniform, level_balance
from jaxcurate.pipeline import STAGES

CONFIG = """
from jaxcurate import Level
from jaxcurate.encoders import EmbedConfig
from jaxcurate.config import (
    ClusterConfig, Config, DedupConfig, EvaluateConfig, SampleConfig, to_config,
)

def get_config(source):
    return to_config(
        Config(
            source=source,
            embed=EmbedConfig(
                "identity" if source.startswith("npy:") else "pixels", resolution=8, batch_size=64
            ),
            dedup=DedupConfig(enabled=False),
            cluster=ClusterConfig((Level(20, 2, 3), Level(5, 2, 2))),
            sample=SampleConfig(30),
            evaluate=EvaluateConfig(arms=()),
        )
    )
"""


def everything_in(path):
    """Returns the digest of every file below a folder."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Path of the place of every test, so that settings, which name it, stay the same."""
    return tmp_path_factory.mktemp("folder") / "place"


def fill(place):
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    (place / "config.py").write_text(CONFIG)
    rng = np.random.default_rng(0)
    np.save(place / "x.npy", rng.normal(size=(200, 6)).astype(np.float32))


@pytest.fixture
def place(folder):
    """A folder with a config and an array of 200 rows."""
    fill(folder)
    return folder


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """The work directory that `run` makes of them."""
    fill(folder)
    config = f"--config={folder}/config.py:npy:{folder}/x.npy"
    assert cli.main(["run", config, f"--workdir={folder}/work", "--quiet"]) == 0
    return shutil.move(folder / "work", tmp_path_factory.mktemp("whole") / "work")


@pytest.fixture
def ran(whole, place):
    """The place after `run`."""
    shutil.copytree(whole, place / "work", symlinks=True)


@pytest.fixture
def jaxcurate(place, capsys):
    """Runs a command on the array, and returns its exit code and the text on each stream."""

    def run(command, *flags, source=f"npy:{place}/x.npy"):
        config = f"--config={place}/config.py:{source}"
        code = cli.main([command, config, f"--workdir={place}/work", *flags])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def refused(outcome, *words):
    """Checks for exit code 2 and one line on standard error that has the words."""
    code, out, err = outcome
    assert code == 2, (out, err)
    assert out == ""
    line = err.splitlines()[-1]
    assert line.startswith("jaxcurate: ")
    assert "Traceback" not in err
    for word in words:
        assert word in line, line


def test_run_writes_the_work_directory(jaxcurate, place):
    code, out, err = jaxcurate("run")
    assert code == 0, err
    work = place / "work"
    assert out.strip() == str(work / "report.html")
    assert "where the time went" in err
    assert "level 1: 3/3, " in err and "level 2: 3/3, " in err  # a k-means, two rounds
    config = json.loads((work / "config.json").read_text())
    assert config["sample"]["size"] == 30
    indices = np.load(work / "subsets/curated/indices.npy")
    assert indices.dtype == np.int64
    assert len(indices) == 30
    table = pq.read_table(work / "subsets/curated/manifest.parquet").to_pydict()
    names = ["id", "row", "count", "cluster_l1", "cluster_l2", "distance"]
    assert list(table) == names
    assert table["row"] == indices.tolist()
    assert table["id"] == [str(row) for row in table["row"]]
    tree = jc.ClusterTree.load(work / "tree")
    np.testing.assert_array_equal(table["cluster_l2"], tree.point_labels(2)[indices])
    ids = np.load(work / "pool/ids.npy")
    np.testing.assert_array_equal(indices, jc.sample(tree, 30, seed=0, ids=ids))
    card = json.loads((work / "subsets/curated/card.json").read_text())
    assert card["pool"] == json.loads((work / "pool/card.json").read_text())["pool"]
    assert card["shortfall"] == 0
    assert {"jax", "numpy"} <= set(card["versions"])
    listed = pq.read_table(work / "exports/curated/list/items.parquet").to_pydict()
    assert (listed["id"], listed["row"], listed["count"]) == tuple(
        table[name] for name in ("id", "row", "count")
    )
    assert listed["cluster_l2"] == table["cluster_l2"]


def test_items_are_exported_in_several_formats(jaxcurate, place):
    code, _, err = jaxcurate("run", "--config.export.format=npy,parquet")
    assert code == 0, err
    indices = np.load(place / "work/subsets/curated/indices.npy")
    exported = np.load(place / "work/exports/curated/npy/items.npy")
    np.testing.assert_array_equal(exported, np.load(place / "x.npy")[indices])
    (file,) = (place / "work/exports/curated/parquet").glob("*.parquet")
    table = pq.read_table(file)
    np.testing.assert_array_equal(np.stack(table["vector"].to_numpy()), exported)
    assert not (place / "work/exports/curated.parts").exists()
    refused(jaxcurate("run", "--config.export.format=npy,link"), "'link'", "kind 'vector'")


def test_a_second_run_does_nothing(jaxcurate, place):
    jaxcurate("run")
    before = everything_in(place / "work")
    code, _, err = jaxcurate("run")
    assert code == 0
    assert err.count("done before") == 6
    assert everything_in(place / "work") == before


def test_only_what_changed_is_done_again(jaxcurate, ran):
    _, _, err = jaxcurate("run", "--config.sample.size=40")
    assert "embed: done before" in err
    assert "cluster: done before" in err
    assert "sample: taken 40" in err
    lines = jaxcurate("status")[1].splitlines()  # of the settings as they were: size 30
    assert lines[1].startswith("cluster   done")
    assert lines[2].startswith("sample    out of date")
    states = jaxcurate("status", "--config.sample.size=40")[1]
    assert states.count(" done ") == 6


@pytest.mark.slow
def test_a_memory_limit_changes_no_more_than_float_order(jaxcurate, place):
    """It does not make a stage run again either."""
    np.save(place / "x.npy", np.random.default_rng(0).normal(size=(3000, 6)).astype(np.float32))
    jaxcurate("run")
    limit = "--config.memory_limit=30_000"
    _, _, err = jaxcurate("run", limit)
    assert err.count("done before") == 6
    trees = [jc.ClusterTree.load(place / "work/tree")]
    shutil.rmtree(place / "work/tree")
    code, _, err = jaxcurate("cluster", limit)
    assert code == 0, err
    trees.append(jc.ClusterTree.load(place / "work/tree"))
    for one, other in zip(*(tree.levels for tree in trees), strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_allclose(one.centroids, other.centroids, rtol=1e-4, atol=1e-5)


def test_status_of_nothing_is_missing_and_writes_nothing(jaxcurate, place):
    code, out, _ = jaxcurate("status")
    assert code == 0
    assert out.count("missing") == 6
    assert not (place / "work").exists()


def test_stages_one_by_one_are_a_run(jaxcurate, place, whole):
    together = np.load(whole / "subsets/curated/indices.npy")
    for stage in ("embed", "cluster", "sample", "export", "evaluate", "report"):
        assert jaxcurate(stage)[0] == 0
    np.testing.assert_array_equal(np.load(place / "work/subsets/curated/indices.npy"), together)


@pytest.mark.parametrize("n_stages", [1, 2, 3])
def test_a_run_that_was_cut_off_goes_on(jaxcurate, place, ran, n_stages):
    whole = np.load(place / "work/subsets/curated/indices.npy")
    for name in ("exports", "subsets", "tree")[:n_stages]:
        shutil.rmtree(place / "work" / name)
    code, _, err = jaxcurate("run")
    assert code == 0
    assert "embed: done before" in err
    np.testing.assert_array_equal(np.load(place / "work/subsets/curated/indices.npy"), whole)


@pytest.mark.slow
def test_pmap_gives_the_same_subset(jaxcurate, place):
    jaxcurate("run")
    first = everything_in(place / "work/tree")
    shutil.rmtree(place / "work")
    assert jaxcurate("run", "--config.mapper=pmap")[0] == 0
    second = everything_in(place / "work/tree")
    del first["card.json"], second["card.json"]
    assert first == second


def test_a_folder_of_pictures(jaxcurate, place):
    rng = np.random.default_rng(0)
    (place / "pictures/below").mkdir(parents=True)
    for i in range(40):
        pixels = rng.integers(0, 256, (9, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"pictures/below/{i:02}.png")
    (place / "pictures/broken.png").write_bytes(b"no picture")
    source = f"folder:{place}/pictures"
    code, _, err = jaxcurate("run", "--config.export.format=link,copy", source=source)
    assert code == 0, err
    assert "1 item(s) or file(s) could not be used" in err
    assert "'broken.png'" in err
    card = json.loads((place / "work/pool/card.json").read_text())
    assert [item[0] for item in card["unreadable"]] == ["broken.png"]
    assert card["n"] == 40
    ids = pq.read_table(place / "work/subsets/curated/manifest.parquet")["id"].to_pylist()
    for kind in ("link", "copy"):
        files = sorted(place.glob(f"work/exports/curated/{kind}/below/*.png"))
        assert [f"below/{file.name}" for file in files] == ids
        assert all(file.is_symlink() == (kind == "link") for file in files)
        for file in files:
            assert file.read_bytes() == (place / "pictures/below" / file.name).read_bytes()


@pytest.fixture
def duplicates(place):
    """50 of the 200 rows are there twice, and 20 others are there again at another length."""
    x = np.load(place / "x.npy")
    x[:50] = x[50:100]
    x[100:120] = 3 * x[120:140]
    np.save(place / "x.npy", x)


DEDUP = "--config.dedup.enabled=True"


def test_duplicates_are_left_out(jaxcurate, place, duplicates):
    flags = [DEDUP, "--config.dedup.threshold=0.9999"]
    code, _, err = jaxcurate("run", *flags)
    assert code == 0, err
    assert "dedup: kept 130, same 50, nearly the same 20" in err
    work = place / "work"
    card = json.loads((work / "dedup/card.json").read_text())
    assert (card["kept"], card["same"], card["near"]) == (130, 50, 20)
    kept = np.load(work / "dedup/kept.npy")
    assert not np.isin(kept, np.arange(50, 100)).any()
    representative, similarity = (
        np.load(work / f"dedup/{name}.npy") for name in ("representative", "similarity")
    )
    np.testing.assert_array_equal(np.unique(representative), kept)
    np.testing.assert_array_equal(representative[50:100], np.arange(50))
    np.testing.assert_array_equal(representative[120:140], np.arange(100, 120))
    assert (similarity == 1).all() and card["lowest_similarity"] == 1
    assert card["largest_group"] == {"row": 0, "n_others": 1}
    tree = jc.ClusterTree.load(work / "tree")
    assert tree.n_points == 200
    np.testing.assert_array_equal(
        np.load(work / "subsets/curated/indices.npy"),
        jc.sample(tree, 30, seed=0, rows=kept, ids=np.load(work / "pool/ids.npy")),
    )
    before = everything_in(work)
    assert jaxcurate("run", *flags)[2].count("done before") == 7
    assert everything_in(work) == before
    # All that stay, and no more: the shortfall is that of the valid rows.
    _, _, err = jaxcurate("sample", *flags, "--config.sample.size=150")
    np.testing.assert_array_equal(np.load(work / "subsets/curated/indices.npy"), kept)
    assert "20 item(s) fewer" in err
    states = jaxcurate("status", DEDUP, "--config.dedup.threshold=None")[1]
    assert re.search(r"dedup +out of date", states)
    assert "dedup" not in jaxcurate("status")[1]
    assert re.search(r"cluster +out of date", jaxcurate("status")[1])


def test_stages_want_the_duplicates_first(jaxcurate, place, duplicates):
    jaxcurate("embed")
    refused(jaxcurate("dedup"), "deduplication is off", "config.dedup.enabled=True")
    refused(jaxcurate("cluster", DEDUP), "`cluster` needs `dedup` first")
    by_embedding = [DEDUP, "--config.dedup.content=embeddings", "--config.dedup.threshold=None"]
    code, _, err = jaxcurate("dedup", *by_embedding)
    assert code == 0
    assert "kept 150, same 50, nearly the same 0" in err
    assert jaxcurate("cluster", *by_embedding)[0] == 0
    file = place / "work/dedup/kept.npy"
    file.write_bytes(file.read_bytes()[:-8])
    refused(jaxcurate("sample", *by_embedding), "kept.npy")


def test_the_card_measures_the_subset(jaxcurate, place):
    jaxcurate("run", "--config.cluster.levels[0].n_fit=150")
    card = json.loads((place / "work/subsets/curated/card.json").read_text())
    curated, random = card["measures"]["curated"], card["measures"]["random"]
    x = np.load(place / "x.npy")
    indices = np.load(place / "work/subsets/curated/indices.npy")
    tree = jc.ClusterTree.load(place / "work/tree")
    assert curated["levels"] == [one._asdict() for one in level_balance(tree, indices)]
    assert [level["level"] for level in random["levels"]] == [1, 2]
    expected = np.sqrt(((x[:, None] - x[None, indices]) ** 2).sum(-1)).min(1).mean()
    assert curated["coverage"]["mean"] == pytest.approx(expected, rel=1e-4)
    assert random["coverage"]["mean"] > 0
    assert "kl_to_uniform" not in curated


def test_the_card_of_a_pool_in_space_has_its_kl(jaxcurate, place):
    """The tree and the coverage depend on angles alone, and not on lengths."""
    x = np.load(place / "x.npy")[:, :3]
    np.save(place / "x.npy", x)
    one_level = "--config.cluster.levels=({'n_clusters': 5},)"
    code, _, err = jaxcurate("run", "--config.cluster.metric=cosine", one_level)
    assert code == 0, err
    told = json.loads((place / "work/subsets/curated/card.json").read_text())["measures"]
    indices = np.load(place / "work/subsets/curated/indices.npy")
    kl = kl_to_uniform(x[indices], x.min(0), x.max(0))
    assert told["curated"]["kl_to_uniform"] == pytest.approx(kl)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = np.sqrt(((unit[:, None] - unit[None, indices]) ** 2).sum(-1)).min(1).mean()
    assert told["curated"]["coverage"]["mean"] == pytest.approx(expected, rel=1e-4)
    assert jc.ClusterTree.load(place / "work/tree").metric == "cosine"
    page = (place / "work/report.html").read_text()
    assert f"{kl:.3f}" in page and "scaled to length 1" in page


def nearest(x, queries, n):
    """Returns the rows at the smallest angles to each query, by brute force."""
    unit = lambda a: a / np.linalg.norm(a, axis=1, keepdims=True)
    return np.argsort(-(unit(queries) @ unit(x).T), axis=1)[:, :n]


def mixture(curated, retrieved, raw, *more):
    shares = {"curated": curated, "retrieved": retrieved, "raw": raw}
    return [f"--config.sample.mix.{name}={share}" for name, share in shares.items()] + list(more)


def test_a_mixture_says_why(jaxcurate, place):
    x, rng = np.load(place / "x.npy"), np.random.default_rng(1)
    np.save(place / "wanted.npy", rng.normal(size=(4, 6)).astype(np.float32))
    references = f"--config.sample.mix.references=npy:{place}/wanted.npy"
    flags = mixture(0.5, 0.2, 0.3, references, "--config.sample.mix.n_per_query=5")
    code, _, err = jaxcurate("run", *flags)
    assert code == 0, err
    assert "sample: taken 30, curated 15, retrieved 6, raw 9, missing 0" in err
    subset = place / "work/subsets/curated"
    card = json.loads((subset / "card.json").read_text())
    assert card["why"] == {"curated": 15, "retrieved": 6, "raw": 9}
    table = pq.read_table(subset / "manifest.parquet").to_pydict()
    assert table["row"] == np.load(subset / "indices.npy").tolist()
    assert set(table["count"]) == {1}
    rows, why = np.array(table["row"]), np.array(table["why"])
    tree, ids = jc.ClusterTree.load(place / "work/tree"), np.load(place / "work/pool/ids.npy")
    curated = jc.sample(tree, 15, ids=ids)
    np.testing.assert_array_equal(rows[why == "curated"], curated)
    # Each reference's nearest row that is not taken, then of second ones those that are nearest.
    near = nearest(x, np.load(place / "wanted.npy"), 5)
    retrieved = set(rows[why == "retrieved"].tolist())
    assert retrieved <= set(near.ravel().tolist()) - set(curated.tolist())
    assert set(near[:, 0].tolist()) <= retrieved | set(curated.tolist())
    # The same again does nothing; other references make another subset.
    assert jaxcurate("run", *flags)[2].count("done before") == 6
    np.save(place / "wanted.npy", x[50:54])
    assert "sample    out of date" in jaxcurate("status", *flags)[1]
    assert jaxcurate("sample", *flags)[0] == 0
    rows = np.load(subset / "indices.npy")
    assert np.isin(np.arange(50, 54), rows).all()  # each is nearest to itself


@pytest.mark.parametrize("encoder", ["pixels", "pca"])
def test_items_of_another_kind_are_refused_before_anything_is_done(jaxcurate, place, encoder):
    np.save(place / "narrow.npy", np.ones((3, 2), np.float32))
    (place / "pictures").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(place / "pictures/0.png")
    before = everything_in(place)
    embed = [f"--config.embed.encoder={encoder}", "--config.embed.n_components=3"]
    for others, kind in (
        (f"npy:{place}/narrow.npy", "narrow.npy has rows of 2 columns"),
        (f"folder:{place}/pictures", "pictures has pictures"),
    ):
        words = kind, "x.npy, the pool, has rows of 6 columns"
        references = f"--config.sample.mix.references={others}"
        refused(jaxcurate("run", *embed, *mixture(0.5, 0.5, 0, references)), *words)
        refused(jaxcurate("run", *embed, f"--config.grow.source={others}"), *words)
        assert everything_in(place) == before


def test_references_that_name_too_few_are_told(jaxcurate, place):
    np.save(place / "wanted.npy", np.load(place / "x.npy")[:2])
    references = f"--config.sample.mix.references=npy:{place}/wanted.npy"
    flags = mixture(0, 1, 0, references, "--config.sample.mix.n_per_query=3")
    code, _, err = jaxcurate("run", *flags)
    assert code == 0, err
    assert re.search(r"taken 30, curated 0, retrieved [456], raw 2[456], missing 0", err)
    raw = mixture(0.5, 0, 0.5)
    assert "curated 15, retrieved 0, raw 15" in jaxcurate("sample", *raw)[2]


def test_pictures_are_retrieved_as_the_pool_was_embedded(jaxcurate, place):
    rng = np.random.default_rng(0)
    for folder in ("pictures", "wanted"):
        (place / folder).mkdir()
    for i in range(60):
        pixels = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"pictures/{i:02}.png")
        if i % 10 == 3:
            Image.fromarray(pixels).save(place / f"wanted/{i:02}.png")
        if i % 10 == 4:  # the same picture twice: deduplication leaves the first
            Image.fromarray(pixels).save(place / f"pictures/{i:02}x.png")
            Image.fromarray(pixels).save(place / f"wanted/{i:02}.png")
    (place / "wanted/broken.png").write_bytes(b"no picture")
    flags = mixture(
        0.4,
        0.6,
        0,
        f"--config.sample.mix.references=folder:{place}/wanted",
        "--config.sample.mix.n_per_query=1",
        "--config.embed.encoder=pca",
        "--config.embed.n_components=20",
        "--config.dedup.enabled=True",
        "--config.dedup.threshold=None",
    )
    source = f"folder:{place}/pictures"
    code, _, err = jaxcurate("run", *flags, source=source)
    assert code == 0, err
    assert "1 reference(s) could not be read" in err and "broken.png" in err
    table = pq.read_table(place / "work/subsets/curated/manifest.parquet").to_pydict()
    wanted = {f"{i:02}.png" for i in range(60) if i % 10 in (3, 4)}
    found = dict(zip(table["id"], table["why"], strict=True))
    assert wanted <= set(found)
    assert not any("x" in name for name in found)
    assert sum(why == "retrieved" for why in found.values()) <= 12
    refused(
        jaxcurate("sample", *flags, "--config.embed.n_components=9", source=source),
        "other settings of config.embed",
    )


def test_new_items_join_the_pool_and_its_tree(jaxcurate, place):
    x, rng = np.load(place / "x.npy"), np.random.default_rng(3)
    new = rng.normal(size=(40, 6)).astype(np.float32)
    np.save(place / "new.npy", new)
    refused(jaxcurate("grow"), "nothing to grow by", "config.grow.source")
    flags = [f"--config.grow.source=npy:{place}/new.npy", "--config.grow.prefix=new-"]
    refused(jaxcurate("grow", *flags), "`grow` needs `cluster` first")
    code, _, err = jaxcurate("run", *flags)
    assert code == 0, err
    assert "grow: items 240, new 40, not read 0" in err
    assert "level 1: keep" in err or "level 1: refit" in err
    work = place / "work"
    before = everything_in(work)
    folder = work / "grown/grown"
    tree, grown = (jc.ClusterTree.load(path / "tree") for path in (work, folder))
    np.testing.assert_array_equal(grown.levels[0].labels[:200], tree.levels[0].labels)
    np.testing.assert_array_equal(grown.levels[0].centroids, tree.levels[0].centroids)
    nearest = ((new[:, None] - tree.levels[0].centroids[None]) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(grown.levels[0].labels[200:], nearest)
    np.testing.assert_array_equal(np.load(folder / "pool/embeddings.npy"), np.r_[x, new])
    ids = np.load(folder / "pool/ids.npy")
    assert ids[199] == "199" and ids[200] == "new-0" and grown.pool != tree.pool
    drift = json.loads((folder / "drift.json").read_text())
    assert [level["level"] for level in drift] == [1, 2]
    assert np.load(folder / "growth_l2.npy").shape == (5,)
    # Nothing is done twice, and what was there is as it was; new rows can be sampled.
    assert "grow: done before" in jaxcurate("grow", *flags)[2]
    assert everything_in(work) == before
    config = f"--config={place}/config.py:npy:{place}/x.npy"
    assert cli.main(["sample", config, f"--workdir={folder}", "--config.sample.size=120"]) == 0
    rows = np.load(folder / "subsets/curated/indices.npy")
    np.testing.assert_array_equal(rows, jc.sample(grown, 120, ids=ids))
    assert (rows >= 200).any()
    # Their items are not there; and the stage that would put others in their place does not.
    before = everything_in(folder)
    for command in ("run", "embed", "export", "report"):
        assert cli.main([command, config, f"--workdir={folder}"]) == 2
    assert everything_in(folder) == before
    assert cli.main(["dedup", config, f"--workdir={folder}", DEDUP]) == 0


def test_branches_that_new_items_do_not_fit_are_refitted(jaxcurate, place):
    x, rng = np.load(place / "x.npy"), np.random.default_rng(3)
    new = (x[7] + 4 + rng.normal(size=(40, 6))).astype(np.float32)
    np.save(place / "new.npy", new)
    flags = [f"--config.grow.source=npy:{place}/new.npy", "--config.grow.prefix=new-"]
    assert jaxcurate("run", *flags)[0] == 0
    code, _, err = jaxcurate("grow", *flags, "--config.grow.name=new", "--config.grow.refit=True")
    assert code == 0, err
    assert "refitting 1 cluster(s) of level 2" in err
    grown = place / "work/grown"
    before, after = (jc.ClusterTree.load(grown / name / "tree") for name in ("grown", "new"))
    card = json.loads((grown / "new/card.json").read_text())
    (cluster,) = card["refitted"]["clusters"]
    inside = before.point_labels(2) == cluster
    assert card["refitted"]["level"] == 2 and inside[200:].mean() > 0.9
    np.testing.assert_array_equal(after.point_labels(2), before.point_labels(2))
    assert (after.point_labels(1) != before.point_labels(1))[inside].any()
    np.testing.assert_array_equal(after.point_labels(1)[~inside], before.point_labels(1)[~inside])
    far = [json.loads((grown / name / "drift.json").read_text()) for name in ("grown", "new")]
    assert far[0][0]["verdict"] == "refit branches"
    assert far[1][0]["far"] < 0.5 * far[0][0]["far"]


def test_new_items_with_known_ids_are_refused(jaxcurate, place, ran):
    flags = [f"--config.grow.source=npy:{place}/x.npy"]
    before = everything_in(place)
    refused(jaxcurate("grow", *flags), "200 id(s)", "the first '0'", "config.grow.prefix")
    refused(jaxcurate("grow", "--config.grow.source=npy:none.npy"), "none.npy")
    refused(jaxcurate("grow", *flags, "--config.grow.name=a/b"), "config.grow", "name='a/b'")
    refused(jaxcurate("grow", *flags, "--config.embed.resolution=4"), "other settings of config")
    np.save(place / "narrow.npy", np.zeros((3, 2), np.float32))
    narrow = ["--config.grow.prefix=n", f"--config.grow.source=npy:{place}/narrow.npy"]
    refused(jaxcurate("grow", *narrow), "2 columns", "6")
    (place / "narrow.npy").unlink()
    assert everything_in(place) == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (mixture(0.5, 0.5, 0.5), ["config.sample.mix", "add up to 1.5"]),
        (mixture(0.5, 0, 0.2), ["config.sample.mix", "add up to 0.7"]),
        (mixture(1.5, 0, -0.5), ["config.sample.mix", "curated=1.5"]),
        (mixture(0.5, 0.5, 0), ["config.sample.mix", "retrieved=0.5 needs references"]),
        (
            mixture(0.5, 0.5, 0, "--config.sample.mix.references=npy:none.npy"),
            ["none.npy: there is no such file"],
        ),
        (mixture(0.5, 0, 0.5, "--config.sample.max_repeats=2"), ["max_repeats=2", "mixture"]),
        (["--config.sample.mix.n_per_query=0"], ["n_per_query=0"]),
        (["--config.sample.mix.metric=angle"], ["config.sample.mix.metric", "angle"]),
        (["--config.dedup.threshold=1.5"], ["config.dedup", "threshold=1.5"]),
        (["--config.dedup.content=names"], ["config.dedup.content", "names"]),
        (["--config.dedup.n_neighbors=-1"], ["n_neighbors"]),
        (["--config.cluster.levels[0].n_fit=10"], ["n_fit=10 rows cannot make 20 clusters"]),
        (["--config.cluster.levels[0].n_fit=0"], ["n_fit=0"]),
        (["--config.cluster.levels[2].n_clusters=2"], ["level that is not there", "levels[2]"]),
        (
            ["--config.cluster.levels[1].n_cluster=3"],
            ["config.cluster.levels[1].n_cluster is unknown; did you mean n_clusters?"],
        ),
        (["--config.cluster.max_itr=3"], ["max_itr is unknown; did you mean max_iter?"]),
        (
            ["--config.cluster.n_clusters=(20,5)"],
            ["of an older release: write config.cluster.levels[0].n_clusters=..."],
        ),
        (["--config.dedup.n_neighbours=3"], ["of an older release", "dedup.n_neighbors"]),
        (
            ["--config.evaluate.pretraining.augmentation.grey=0.1"],
            ["of an older release: write config.evaluate.pretraining.augmentation.gray"],
        ),
        (["--config.dedup.threshold=0"], ["threshold=0", "None keeps near-duplicates"]),
        (["--config.n_devices=0"], ["n_devices=0 must be at least 1; None takes all devices"]),
        (["--config.memory_limit=0"], ["memory_limit=0 must be at least 1; None sets no limit"]),
        (["--config.dedup.n_clusters=0"], ["n_clusters=0", "None takes the square root"]),
        (["--config.embed.resolution=0"], ["resolution=0", "None takes that of the encoder"]),
        (["--config.data_dir="], ["config.data_dir='' must not be empty; config.data_dir=None"]),
        (["--config.platform="], ["config.platform='' must not be empty"]),
        (["--config.grow.source="], ["config.grow.source='' must not be empty"]),
        (["--noconfig.downlod"], ["config.downlod is unknown; did you mean download?"]),
        (["--config.seed=None"], ["seed", "None"]),
        (["--config.nothing=3"], ["nothing"]),
        (["--config.recipe.seed=1"], ["config.recipe.seed cannot be set, since recipe is None"]),
        (["--config.sample.size=many"], ["size", "many"]),
        (["--config.sample.size=0"], ["size"]),
        (["--config.sample.strategy=furthest"], ["config.sample.strategy", "furthest"]),
        (["--config.embed.encoder=clip"], ["encoder='clip'"]),
        (
            ["--config.cluster.levels[1].n_clusters=25"],
            ["config.cluster: level 2 asks for 25 clusters, but there are only 20", "at level 1"],
        ),
        (["--config.cluster.levels=()"], ["levels is empty"]),
        (["--config.cluster.levels[0].n_resamples=-1"], ["n_resamples=-1"]),
        (["--config.cluster.levels[0].n_clusters=201"], ["n_clusters", "201", "200 item"]),
        (["--config.evaluate.arms=('best',)"], ["arms", "best"]),
        (["--config.evaluate.arms=('random',)"], ["no splits", "probe"]),
        (["--config.cluster.levels[0].n_per_cluster=-3"], ["n_per_cluster=-3"]),
        (["--config.cluster.levels[0].n_splits=2"], ["n_splits and n_resamples exclude"]),
        (["--config.cluster.levels[0].resample=all"], ["config.cluster.levels[0].resample", "all"]),
        (["--config.seed=-1"], ["seed"]),
        (["--config.memory_limit=-1"], ["memory_limit=-1 must be at least 1"]),
        (
            ["--config.memory_limit=10", "--config.seed=1"],
            ["memory_limit=10 is too small", "are the least for rows of 6 numbers"],
        ),
        (["--config.seed=2147483648"], ["seed=2147483648"]),
        (["--unknown_flag"], ["unknown_flag"]),
        (["extra"], ["extra", "usage"]),
    ],
)
def test_bad_settings_change_nothing(jaxcurate, place, ran, flags, words):
    before = everything_in(place)
    refused(jaxcurate("run", *flags), *words)
    assert everything_in(place) == before


def test_a_plain_config_will_do(jaxcurate, place):
    """Without the fields that have defaults, as ml_collections users write them."""
    (place / "config.py").write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(source):\n"
        "    return ConfigDict({'source': source, 'sample': {'size': 9},\n"
        "        'evaluate': {'arms': ()},\n"
        "        'cluster': {'levels': ({'n_clusters': 9},)}})\n"
    )
    assert jaxcurate("run")[0] == 0
    refused(jaxcurate("run", "--config.export.format=npy"), "no field", "export")


def test_a_config_that_fails_is_told(jaxcurate, place):
    (place / "config.py").write_text("def get_config(source):\n    return 1 / 0\n")
    refused(jaxcurate("run"), "division by zero")
    (place / "config.py").write_text("def get_config(source):\n    raise ValueError('too few')\n")
    refused(jaxcurate("run"), "jaxcurate: too few")
    assert not (place / "work").exists()


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "max_iter=9",
            "max_itr=9",
            "ClusterConfig.max_itr is unknown; did you mean max_iter?",
        ),
        (
            "levels=(Level(20),)",
            "n_clusters=(20, 5)",
            "ClusterConfig.n_clusters is of an older release: write ClusterConfig.levels[0]",
        ),
        (
            "gray=0.1",
            "grey=0.1",
            "Augmentation.grey is of an older release: write Augmentation.gray",
        ),
        ("levels=(Level(20),)", "n_fit=(20, 5)", "levels=(Level(n_fit=...), ...)"),
        ("levels=(Level(20),)", "levels=(20, 5)", "Level(20) has so many clusters"),
        (
            "import ClusterConfig",
            "import Clustering",
            "jaxcurate.config.Clustering is of an older release: write jaxcurate.config.Clu",
        ),
        (
            "levels=(Level(20),), max_iter=9",
            "(20, 5), (2, 2), (3, 2)",
            "levels[0] must be a Level, not int; Level(20) has so many clusters",
        ),
    ],
)
def test_an_old_or_mistyped_config_is_told_what_to_write(jaxcurate, place, old, new, line):
    config = (
        "from jaxcurate import Level\n"
        "from jaxcurate.config import ClusterConfig, Config, SampleConfig, to_config\n"
        "from jaxcurate.evaluation.arms import EvaluateConfig\n"
        "from jaxcurate.training import Augmentation, PretrainConfig\n"
        "def get_config(source):\n"
        "    cluster = ClusterConfig(levels=(Level(20),), max_iter=9)\n"
        "    pretraining = PretrainConfig(augmentation=Augmentation(gray=0.1))\n"
        "    evaluate = EvaluateConfig(arms=(), pretraining=pretraining)\n"
        "    return to_config(Config(source, cluster, SampleConfig(9), evaluate=evaluate))\n"
    )
    (place / "config.py").write_text(config)
    assert jaxcurate("status")[0] == 0
    (place / "config.py").write_text(config.replace(old, new))
    refused(jaxcurate("status"), line)


def test_what_is_given_by_default_can_be_left_out(jaxcurate, place):
    limit = "--config.memory_limit=1_000_000"
    for none in (["--config.memory_limit=None"], ["--config.memory_limit", "None"]):
        assert jaxcurate("status", limit, *none)[0] == 0
        assert jaxcurate("status", *none, "--config.dedup.threshold=None")[0] == 0
    refused(jaxcurate("status", "--config.seed", "None"), "seed", "None")


@pytest.mark.parametrize("command", ["", "runn", "embed cluster"])
def test_unknown_commands(jaxcurate, command):
    refused(jaxcurate(command), "is not a command", "usage")


def test_no_arguments_and_help(capsys):
    assert cli.main([]) == 2
    assert "usage" in capsys.readouterr().err
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "usage" in out and "dedup.threshold: float or None = None\n" in out
    assert "embed.encoder: identity or pixels or pca or efficientnet_lite0 or vit or bert" in out
    assert cli.main(["cluster", "--help"]) == 0
    out = capsys.readouterr().out
    assert "  cluster.levels[0].n_clusters: int\n      Number of clusters" in out
    assert "dedup.enabled" in out and "memory_limit" in out
    for field in ("dedup.threshold", "source", "title", "sample.size", "evaluate.arms"):
        assert f"  {field}: " not in out
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"{jc.__version__}\n"


def test_every_field_is_explained():
    for field in explained(Config):
        assert field.meaning.endswith(".") and field.meaning[0].isupper(), field


def test_every_field_is_read_by_a_command():
    paths = [field.path.replace("[0]", "") for field in explained(Config)]
    reads = [*cli._DEVICES, *(read for stage in STAGES for read in stage.reads)]
    for read in reads:
        assert any(f"{path}.".startswith(f"{read}.") for path in paths), read
    for path in paths:
        assert any(f"{path}.".startswith(f"{read}.") for read in reads), path


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["run", "--workdir=w"], "--config is missing, and there is no config.json in w; usage"),
        (["run", "--config=nowhere.py", "--workdir=w"], "nowhere.py"),
        (["run", "--config=/data/pictures,9", "--workdir=w"], "auto:SOURCE,SIZE takes a source"),
        (["run", "--config=/", "--workdir=w"], "--config=/ is no file NAME.py"),
        (["run"], "--config is missing"),
    ],
)
def test_missing_flags_and_files(arguments, word, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    assert word in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_work_directory_has_its_settings(place, ran, capsys):
    work = f"--workdir={place}/work"
    assert cli.main(["sample", work, "--config.sample.size=12", "--quiet"]) == 0
    config = json.loads((place / "work/config.json").read_text())
    assert config["sample"]["size"] == 12 and config["cluster"]["levels"][0]["n_clusters"] == 20
    assert cli.main(["sample", work, "--config.sample.sise=12"]) == 2
    assert "config.sample.sise is unknown; did you mean size?" in capsys.readouterr().err


def test_missing_workdir(place, capsys):
    assert cli.main(["run", f"--config={place}/config.py:npy:{place}/x.npy"]) == 2
    assert "--workdir is missing" in capsys.readouterr().err


def array(change):
    return change(np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32))


def with_value(value):
    def change(x):
        x[7, 1] = value
        return x

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_value(np.nan), ["NaN", "item '7'"]),
        (with_value(np.inf), ["infinity", "item '7'"]),
        (lambda x: x[:10], ["n_clusters", "10 item"]),
        (lambda x: x[:0], ["x.npy"]),
        (lambda x: x.astype(complex), ["x.npy", "complex128"]),
        (lambda x: x[:, 0], ["x.npy", "[n, d]"]),
    ],
    ids=["NaN", "infinity", "too few rows", "empty", "wrong dtype", "wrong shape"],
)
def test_bad_arrays_change_nothing(jaxcurate, place, change, words):
    np.save(place / "x.npy", array(change))
    before = everything_in(place)
    refused(jaxcurate("run", "--config.strict=True"), *words)
    assert everything_in(place) == before


def test_rows_that_cannot_be_used_are_left_out_and_listed(jaxcurate, place):
    np.save(place / "x.npy", with_value(np.nan)(array(lambda x: x)))
    code, _, err = jaxcurate("embed")
    assert code == 0, err
    assert "1 item(s) or file(s) could not be used" in err and "'7'" in err
    card = json.loads((place / "work/pool/card.json").read_text())
    assert card["n"] == 99
    assert card["unreadable"] == [["7", "has a NaN or an infinity as float32"]]
    # Also where they were left out before.
    before = everything_in(place)
    refused(jaxcurate("run", "--config.strict=True"), "1 item(s)", "'7'", "config.strict")
    assert everything_in(place) == before


def test_a_damaged_pool_is_made_again_where_nothing_may_be_left_out(jaxcurate, place):
    jaxcurate("embed")
    whole = everything_in(place / "work/pool")
    file = place / "work/pool/ids.npy"
    file.write_bytes(file.read_bytes()[:-4])
    code, _, err = jaxcurate("embed", "--config.strict=True")
    assert code == 0, err
    assert "embed ... (damaged: " in err
    again = everything_in(place / "work/pool")
    assert whole.pop("card.json") and again.pop("card.json")  # which tells the time
    assert again == whole


def test_rows_without_direction_matter_to_cosine_alone(jaxcurate, place):
    x = array(lambda x: x)
    x[7] = 0
    np.save(place / "x.npy", x)
    cosine = "--config.cluster.metric=cosine"
    for flags, n, state in (([], 100, "missing"), ([cosine], 99, "out of date"), ([], 100, "out")):
        assert re.search(rf"embed +{state}", jaxcurate("status", *flags)[1])
        assert jaxcurate("embed", *flags)[0] == 0
        card = json.loads((place / "work/pool/card.json").read_text())
        assert card["n"] == n
        assert jaxcurate("cluster", *flags)[0] == 0
        assert "embed     done" in jaxcurate("status", *flags)[1]


def test_bad_sources_change_nothing(jaxcurate, place):
    (place / "empty").mkdir()
    for source, word in (
        (f"folder:{place}/empty", "empty"),
        (f"folder:{place}/none", "none"),
        (f"npy:{place}/none.npy", "none.npy"),
        ("s3:bucket", "s3:bucket"),
    ):
        refused(jaxcurate("run", source=source), word)
    assert not (place / "work").exists()


def test_a_stage_without_its_input_is_refused(jaxcurate, place):
    for stage, before in (("cluster", "embed"), ("sample", "cluster"), ("evaluate", "sample")):
        refused(jaxcurate(stage), f"`{stage}` needs `{before}` first")
    assert not (place / "work").exists()


@pytest.mark.parametrize("how", ["truncated", "altered", "removed"])
@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("pool/embeddings.npy", "cluster"),
        ("tree/l1_labels.npy", "sample"),
        ("subsets/curated/indices.npy", "evaluate"),
        ("subsets/curated/manifest.parquet", "export"),
    ],
)
def test_damaged_files_are_refused_by_name(jaxcurate, place, ran, how, file, stage):
    path = place / "work" / file
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[:-5])
    elif how == "altered":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        path.unlink()
    shutil.rmtree(place / "work/exports")
    before = everything_in(place / "work")
    again = ["--config.seed=1"] if stage in ("cluster", "sample", "evaluate") else []
    refused(jaxcurate(stage, *again), file.split("/")[-1])
    assert everything_in(place / "work") == before


def test_what_belongs_to_another_pool_is_refused(jaxcurate, place, ran):
    pools = [json.loads((place / "work/pool/card.json").read_text())["pool"]]
    np.save(place / "x.npy", np.load(place / "x.npy")[::-1])
    refused(jaxcurate("export", "--config.export.format=npy"), "x.npy is now", "run `embed` first")
    jaxcurate("embed")
    pools.append(json.loads((place / "work/pool/card.json").read_text())["pool"])
    before = everything_in(place / "work")
    refused(jaxcurate("sample", "--config.seed=1"), "tree", *pools)
    refused(jaxcurate("export", "--config.export.format=npy"), "curated", *pools)
    assert everything_in(place / "work") == before


def test_a_pool_that_was_saved_by_hand(jaxcurate, place):
    """It can be clustered and sampled; stages that need its items say what is missing."""
    jc.make_pool(np.load(place / "x.npy")).save(place / "work/pool")
    assert jaxcurate("cluster")[0] == jaxcurate("sample")[0] == 0
    before = everything_in(place)
    for stage in ("export", "evaluate", "report", "grow"):
        flag = f"--config.grow.source=npy:{place}/x.npy"
        refused(jaxcurate(stage, flag), "made from source None", "run `embed` first")
    assert everything_in(place) == before


def test_more_neighborhoods_than_items_change_nothing(jaxcurate, place):
    before = everything_in(place)
    flags = [DEDUP, "--config.dedup.threshold=0.9", "--config.dedup.n_clusters=201"]
    for command in ("run", "embed"):  # later stages are asked before a pool is made for them
        refused(jaxcurate(command, *flags), "dedup.n_clusters asks for 201", "200 item")
    assert everything_in(place) == before


@pytest.mark.parametrize("command", ["run", "embed"])
def test_more_clusters_than_items_change_nothing(jaxcurate, place, command):
    before = everything_in(place)
    flag = "--config.cluster.levels[0].n_clusters=201"
    refused(jaxcurate(command, flag), "cluster.levels[0].n_clusters asks for 201", "200 item")
    assert everything_in(place) == before


@pytest.mark.parametrize("command", ["run", "embed"])
def test_names_that_no_export_can_have_change_nothing(jaxcurate, place, command, monkeypatch):
    (place / "pictures").mkdir()
    for i in range(20):
        Image.new("RGB", (4, 4)).save(place / f"pictures/{i:02}.png")
    monkeypatch.setattr("jaxcurate.export.names._LONGEST_PATH", 10)
    before = everything_in(place)
    outcome = jaxcurate(
        command, "--config.export.format=list,copy", source=f"folder:{place}/pictures"
    )
    refused(outcome, "'00.png'", "exports/curated/copy")
    assert everything_in(place) == before


def test_a_shortfall_is_reported(jaxcurate, place):
    code, _, err = jaxcurate("run", "--config.sample.size=300")
    assert code == 0
    assert "the pool holds 100 item(s) fewer than sample.size wants" in err
    card = json.loads((place / "work/subsets/curated/card.json").read_text())
    assert (card["size"], card["shortfall"]) == (200, 100)


def test_as_a_module_in_its_own_process(place):
    """Without the settings of the tests: devices, rank promotion, warnings."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_NUM")}
    command = [sys.executable, "-m", "jaxcurate", "run", f"--workdir={place}/work"]
    command.append(f"--config={place}/config.py:npy:{place}/x.npy")
    command.append("--config.cluster.levels=({'n_clusters': 5},)")  # compiles little
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("report.html")
    assert os.path.exists(done.stdout.strip())
