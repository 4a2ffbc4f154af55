"""Pools from any source to curated datasets: the same items, facts, filters, copies and leaks."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import jaxcurate as jc
from jaxcurate.config import (
    ClusterConfig,
    Config,
    DedupConfig,
    EmbedConfig,
    EvaluateConfig,
    ExportConfig,
    FilterConfig,
    Level,
    Rule,
    SampleConfig,
)
from jaxcurate.pipeline.run import Pipeline
from jaxcurate.runtime.progress import Progress

N = 60


class Lines(Progress):
    def __init__(self):
        super().__init__(quiet=True)
        self.lines = []

    def line(self, text):
        self.lines.append(text)


def encoded(pixels, kind="png"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of 60 noisy pictures of several sizes, in two formats and three folders."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(N):
        low = rng.integers(0, 200)
        pixels = rng.integers(low, low + 56, (20 + i % 9, 30, 3)).astype(np.uint8)
        path = folder / f"{'abc'[i % 3]}/{i:02}.{'jpg' if i % 2 else 'png'}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(pixels, "jpeg" if i % 2 else "png"))
    return folder


def run(source, work, stages=None, **fields):
    fields = {
        "embed": EmbedConfig("pixels", resolution=8),
        "cluster": ClusterConfig((Level(12, 2, 3), Level(4))),
        "sample": SampleConfig(20),
        "evaluate": EvaluateConfig(arms=()),
        "n_devices": 1,
        **fields,
    }
    lines = Lines()
    Pipeline(Config(str(source), **fields), work, lines).run(stages)
    return lines.lines


def manifest(work):
    return pq.read_table(Path(work) / "subsets/curated/manifest.parquet").to_pydict()


SAME = ("id", "row", "count", "cluster_l1", "cluster_l2")


def test_the_same_pool_from_any_source_gives_the_same_subset(pictures, tmp_path):
    """The whole pool is exported in each format, and each export is a source in turn."""
    formats = "copy,tfds,webdataset,huggingface,parquet"
    run(
        f"folder:{pictures}",
        tmp_path / "first",
        sample=SampleConfig(N),
        export=ExportConfig(formats, shard_size=25),
    )
    exports = tmp_path / "first/exports/curated"
    run(f"folder:{pictures}", tmp_path / "folder")
    wanted = manifest(tmp_path / "folder")
    sources = {
        "tfds": (f"tfds:{exports}/tfds", {}),
        "webdataset": (f"webdataset:{exports}/webdataset", {"id_key": "json:id"}),
        "huggingface": (f"huggingface:{exports}/huggingface", {}),
        "parquet": (f"parquet:{exports}/parquet", {}),
    }
    for name, (source, fields) in sources.items():
        run(source, tmp_path / name, ["embed", "dedup", "cluster", "sample"], **fields)
        found = manifest(tmp_path / name)
        assert {key: found[key] for key in SAME} == {key: wanted[key] for key in SAME}, name
    originals = {path.read_bytes() for path in pictures.rglob("*.*")}
    copies = {path.read_bytes() for path in (exports / "copy").glob("[abc]/*")}
    assert copies == originals and len(originals) == N


def test_a_loop_reads_the_items_of_a_subset(pictures, tmp_path):
    pictures, work = shutil.copytree(pictures, tmp_path / "pictures"), tmp_path / "work"
    run(f"folder:{pictures}", work)
    items = jc.load_subset(work)
    assert len(items) == 20
    for item, id in zip(items, manifest(work)["id"], strict=True):
        assert item.id == id and item.content == (pictures / id).read_bytes()
    # Size and time do not tell that this file is another one.
    file = pictures / items.ids[1]
    status, data = file.stat(), file.read_bytes()
    file.write_bytes(data[:-1] + b"?")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    items = jc.load_subset(work)
    assert items[0].id == items.ids[0]
    with pytest.raises(jc.InputError, match=rf"'{items.ids[1]}' .* was changed since it was emb"):
        items[1]


def test_filters_drop_by_columns_and_likeness(pictures, tmp_path):
    (tmp_path / "unwanted").mkdir()
    name = sorted(path.name for path in (pictures / "b").iterdir())[3]
    (tmp_path / "unwanted" / name).write_bytes((pictures / "b" / name).read_bytes())
    rules = FilterConfig(
        rules=(Rule("height", min=22), Rule("brightness", max=0.6)),
        unwanted=f"folder:{tmp_path}/unwanted",
        max_unwanted=0.99999,
    )
    work = tmp_path / "work"
    lines = run(f"folder:{pictures}", work, filter=rules)
    columns = pq.read_table(work / "pool/columns.parquet").to_pydict()
    kept = np.load(work / "filter/kept.npy")
    dropped = pq.read_table(work / "filter/dropped.parquet").to_pydict()
    assert f"b/{name}" in dropped["id"] and len(kept) + len(dropped["id"]) == N
    good = (np.array(columns["height"]) >= 22) & (np.array(columns["brightness"]) <= 0.6)
    ids = np.load(work / "pool/ids.npy")
    np.testing.assert_array_equal(kept, np.flatnonzero(good & (ids != f"b/{name}")))
    assert set(manifest(work)["row"]) <= set(kept.tolist())
    assert any("row(s) dropped: " in line for line in lines)


@pytest.fixture
def copies(pictures, tmp_path):
    """The pictures, of which three are there again: as bytes, as a link and in another format."""
    folder = tmp_path / "pool"
    for path in sorted(pictures.rglob("*.*")):
        target = folder / path.relative_to(pictures)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (folder / "a/copy.png").write_bytes((folder / "a/00.png").read_bytes())
    (folder / "a/link.png").symlink_to(folder / "a/06.png")
    pixels = np.asarray(Image.open(folder / "a/12.png"))
    Image.fromarray(pixels).save(folder / "a/same.webp", lossless=True)
    return folder


def test_copies_go_by_default_and_are_named(copies, tmp_path):
    work = tmp_path / "work"
    lines = run(f"folder:{copies}", work)
    assert (
        f"  kept {N:,} of {N + 3:,}: 3 equal; 'a/00.png' stands for most, 1 other (1.6 %)" in lines
    )
    dropped = pq.read_table(work / "dedup/dropped.parquet").to_pydict()
    pairs = dict(zip(dropped["id"], dropped["kept_id"], strict=True))
    assert pairs == {"a/copy.png": "a/00.png", "a/link.png": "a/06.png", "a/same.webp": "a/12.png"}
    assert dropped["same"] == [True] * 3 and dropped["similarity"] == [1] * 3


def test_duplicates_are_ranked_and_thresholds_changed_without_a_search(copies, tmp_path):
    work = tmp_path / "work"
    for name, size in (("small", (16, 16)), ("wide", (40, 40)), ("tiny", (8, 8))):
        gradient = Image.linear_gradient("L").convert("RGB").resize(size, Image.Resampling.BOX)
        (copies / f"b/{name}.png").write_bytes(encoded(np.asarray(gradient)))
    dedup = DedupConfig(threshold=0.998, keep="side")
    run(f"folder:{copies}", work, ["embed", "dedup"], dedup=dedup)
    first = pq.read_table(work / "dedup/dropped.parquet").to_pydict()
    pairs = dict(zip(first["id"], first["kept_id"], strict=True))
    assert pairs["b/small.png"] == pairs["b/tiny.png"] == "b/wide.png"
    higher = DedupConfig(threshold=0.9999, keep="side")
    lines = run(f"folder:{copies}", work, ["embed", "dedup"], dedup=higher)
    assert "  from the pairs that were found before" in lines
    again = pq.read_table(work / "dedup/dropped.parquet").to_pydict()
    run(f"folder:{copies}", tmp_path / "anew", ["embed", "dedup"], dedup=higher)
    anew = pq.read_table(tmp_path / "anew/dedup/dropped.parquet").to_pydict()
    assert again == anew


def test_left_out_files_are_counted_by_reason(pictures, tmp_path):
    folder = tmp_path / "pool"
    folder.mkdir()
    for i, path in enumerate(sorted(pictures.rglob("*.*"))):
        (folder / f"{i:02}{'' if i % 5 else path.suffix}").write_bytes(path.read_bytes())
    for i in range(3):
        (folder / f"note{i}.txt").write_text("a caption")
    (folder / ".hidden").mkdir()
    (folder / "Thumbs.db").write_bytes(b"")
    (folder / "cut.png").write_bytes(encoded(np.zeros((50, 50, 3), np.uint8))[:60])
    lines = run(f"folder:{folder}", tmp_path / "work", ["embed"])
    card = json.loads((tmp_path / "work/pool/card.json").read_text())
    assert card["n"] == N
    counts = card["left_out"]
    assert counts["not a picture"] == 3 and counts["hidden"] == 1 and sum(counts.values()) == 6
    table = pq.read_table(tmp_path / "work/pool/left_out.parquet").to_pydict()
    assert len(table["id"]) == 6 and {"cut.png", "Thumbs.db", ".hidden/"} <= set(table["id"])
    assert any("3 not a picture" in line for line in lines)
    # What nobody takes for an item does not stop a strict run; a broken picture does.
    with pytest.raises(jc.InputError, match=r"1 item\(s\) .* 'cut\.png'"):
        run(f"folder:{folder}", tmp_path / "work", ["embed"], strict=True)


def test_a_changed_file_is_not_exported(pictures, tmp_path):
    folder = tmp_path / "pool"
    folder.mkdir()
    for path in pictures.rglob("*.png"):
        (folder / path.name).write_bytes(path.read_bytes())
    fields = {"sample": SampleConfig(25), "export": ExportConfig("copy")}
    stages = ["embed", "dedup", "cluster", "sample"]
    run(f"folder:{folder}", tmp_path / "work", stages, **fields)
    path = folder / manifest(tmp_path / "work")["id"][0]
    stat, data = path.stat(), path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as `cp -p` of another file would
    with pytest.raises(jc.InputError, match=f"item '{path.name}' was changed since"):
        run(f"folder:{folder}", tmp_path / "work", ["export"], **fields)


SLOW = """
import sys, time
from jaxcurate.encoders import pixels
made = pixels._small
def slow(picture, side, fit):
    time.sleep(0.05)
    return made(picture, side, fit)
pixels._small = slow
from jaxcurate import cli
sys.exit(cli.main(sys.argv[1:]))
"""


def test_embed_goes_on_after_a_kill(pictures, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(
        "from jaxcurate.config import *\n"
        "def get_config(source):\n"
        "    return to_config(Config(source, ClusterConfig((Level(4),)), SampleConfig(9),\n"
        "        embed=EmbedConfig('pixels', resolution=8, batch_size=4), checkpoint_minutes=0.0))"
    )
    command = [f"--config={config}:folder:{pictures}", "embed"]
    work = tmp_path / "work"
    arguments = [sys.executable, "-c", SLOW, *command, f"--workdir={work}"]
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (work / "pool.pieces/000003/card.json").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not (work / "pool").exists()
    told = []
    done = subprocess.run(
        [sys.executable, "-m", "jaxcurate", *command, f"--workdir={work}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = [line for line in done.stderr.splitlines() if "continuing after" in line]
    assert len(told) == 1 and 16 <= int(told[0].split()[2]) < N
    assert {path.name for path in work.iterdir()} == {"config.json", "pool"}
    subprocess.run(
        [sys.executable, "-m", "jaxcurate", *command, f"--workdir={tmp_path}/whole", "--quiet"],
        check=True,
    )
    for name in ("embeddings.npy", "ids.npy", "items.npy", "columns.parquet"):
        columns = [tmp_path / f"{folder}/pool/{name}" for folder in ("work", "whole")]
        if name.endswith(".npy"):
            assert columns[0].read_bytes() == columns[1].read_bytes(), name
        else:
            assert pq.read_table(columns[0]).equals(pq.read_table(columns[1]))
