"""A run whose source, work directory and exports are in a bucket, against the same run on disk."""

import dataclasses
import io
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from etils import epath
from PIL import Image
from stores import connected

import jaxcurate as jc
from jaxcurate.artifacts import bucket, bucket_rows
from jaxcurate.artifacts import lock as lock_module
from jaxcurate.artifacts.lock import NAME as LOCK
from jaxcurate.artifacts.lock import followed, locked
from jaxcurate.artifacts.owner import Owner
from jaxcurate.artifacts.parts import Parts
from jaxcurate.checks import InputError
from jaxcurate.config import ClusterConfig, Config, EvaluateConfig, ExportConfig, SampleConfig
from jaxcurate.encoders import EmbedConfig
from jaxcurate.pipeline.run import Pipeline
from jaxcurate.runtime import messages
from jaxcurate.runtime.progress import Progress
from jaxcurate.sources import open_source

pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")
N = 40
FORMATS = "copy,webdataset"
CARDS = ("card.json", "report.html", "config.json")


@pytest.fixture(scope="module")
def store():
    with connected("s3") as root:
        yield epath.Path(root)


class Lines(Progress):
    def __init__(self):
        super().__init__(quiet=True)
        self.lines = []

    def line(self, text):
        self.lines.append(text)


def write_pictures(place):
    rng = np.random.default_rng(0)
    for i in range(N):
        pixels = np.clip(60 * (i % 4) + rng.normal(20, 20, (6, 6, 3)), 0, 255).astype(np.uint8)
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "png")
        if "://" in str(place):
            bucket.write(place / f"c{i % 4}/{i:02}.png", data.getvalue())
        else:
            (place / f"c{i % 4}").mkdir(parents=True, exist_ok=True)
            (place / f"c{i % 4}/{i:02}.png").write_bytes(data.getvalue())


def settings_of(source, **changes):
    return Config(
        source=source,
        embed=EmbedConfig("pixels", resolution=6),
        cluster=ClusterConfig((jc.Level(4, 1, 2),)),
        sample=SampleConfig(12),
        export=ExportConfig(FORMATS, shard_size=5),
        evaluate=EvaluateConfig(arms=()),
        n_devices=1,
        **changes,
    )


def carry_out(settings, work, stages=None):
    progress = Lines()
    pipeline = Pipeline(settings, work, progress)
    pipeline.run(stages)
    return pipeline, progress.lines


@pytest.mark.slow
def test_a_run_in_a_bucket_is_that_on_disk(store, tmp_path, monkeypatch):
    """The work directory is below the folder of the pictures, as it may be on disk."""
    monkeypatch.setattr(bucket_rows, "LEAST_BYTES", 0)  # no array is read as a whole
    write_pictures(store / "pictures")
    write_pictures(tmp_path / "pictures")
    settings, work = settings_of(f"folder:{store}/pictures"), store / "pictures/run"
    disk, stages = tmp_path / "pictures/run", Pipeline(settings, work, Lines()).chosen[:-1]
    carry_out(settings_of(f"folder:{tmp_path}/pictures"), disk, stages)
    carry_out(settings, work, stages)  # all but the report
    here = {name: bucket.read(work / name) for name in bucket.listing(work)}
    files = [path for path in disk.rglob("*") if path.is_file()]
    there = {os.path.relpath(path, disk): path.read_bytes() for path in files}
    assert set(here) == set(there)
    for name, data in there.items():
        assert name.endswith(CARDS) or data == here[name], name
    pipeline, lines = carry_out(settings, work, stages)
    assert lines == [f"{name}: done before" for name in stages]
    assert [state for _, state, _ in pipeline.status()] == ["done"] * len(stages) + ["missing"]
    assert {name: bucket.read(work / name) for name in bucket.listing(work)} == here
    items = jc.load_subset(work)
    assert len(items) == 12 and items[0].id == jc.load_subset(disk)[0].id
    source = open_source(f"folder:{store}/pictures", leave_out=str(work))
    assert len(source) == N and source.skipped == [("run/", "the work directory")]

    data = here["pool/embeddings.npy"]
    bucket.write(work / "pool/embeddings.npy", data[:-1] + bytes([data[-1] ^ 1]))
    other = dataclasses.replace(settings, sample=SampleConfig(9))
    with pytest.raises(InputError, match=r"pool/embeddings\.npy is damaged"):
        carry_out(other, work)
    bucket.write(work / "pool/embeddings.npy", data)
    bucket.write(work / "theirs.txt", b"theirs")
    carry_out(other, work, ["sample", "export"])
    assert len(jc.load_subset(work)) == 9
    names = set(bucket.listing(work))
    assert len([n for n in names if n.endswith(".png")]) == 9
    assert {n for n in names - set(here) if not n.startswith("exports/")} == {"theirs.txt"}
    assert {n.rpartition("-of-")[2] for n in names if n.endswith(".tar")} == {"00002.tar"}


def test_what_a_bucket_cannot_do_is_refused_before_anything_is_written(store):
    write_pictures(store / "p2")
    source, work = f"folder:{store}/p2", store / "run2"
    with pytest.raises(InputError, match=r"in a bucket, which has no links: .*'copy'"):
        settings = settings_of(source)
        Pipeline(settings.__class__(**{**vars(settings), "export": ExportConfig("link")}),
                 work, Lines()).run()  # fmt: skip
    with pytest.raises(InputError, match="lies in the work directory"):
        carry_out(settings_of(f"folder:{store}/run2"), work)
    with locked(work), pytest.raises(InputError, match="is in use by process"):
        carry_out(settings_of(source), work)
    assert bucket.listing(work) == {}


def test_what_a_process_elsewhere_left_goes_with_the_next_run(store, monkeypatch):
    """Process 1 of a run over two machines is killed while it writes a part."""
    settings, work = settings_of(f"folder:{store}/p4"), store / "run4"
    parts = Parts(work / "pool.parts", {}, "a run", 1, 2)
    with pytest.MonkeyPatch.context() as dying, followed(work, "lock of the dead run"):
        elsewhere = Owner.current()._replace(host="elsewhere")
        dying.setattr(Owner, "current", classmethod(lambda cls: elsewhere))
        with pytest.raises(ZeroDivisionError), parts.new({}) as folder:
            folder.write_text("a.txt", "half of a part")
            dying.setattr(bucket, "system", lambda path: 1 // 0)
            raise ZeroDivisionError
    bucket.write(work / "pool.parts/theirs.txt", b"theirs")
    left = set(bucket.listing(work))
    assert "pool.parts/00001-000000/a.txt" in left and len(left) == 3
    with Pipeline(settings, work, Lines())._locked(["embed"]) as lock:
        assert set(bucket.listing(work)) == {"pool.parts/theirs.txt", LOCK}
        # Process 1 of the next run waits for that, and writes under the lock of process 0.
        monkeypatch.setattr(messages, "is_first", lambda: False)
        monkeypatch.setattr(messages, "from_first", lambda name, make: f"{name}-token")
        with Pipeline(settings, work, Lines())._locked(["embed"]):
            held = [each.token for each in lock_module._held]
            assert held == [lock.token, "lock-token"]


@pytest.mark.slow
def test_a_killed_run_goes_on(store):
    write_pictures(store / "p3")
    script = f"""
import sys
sys.path[:0] = {[os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))]!r}
from test_buckets_pipeline import Lines, carry_out, settings_of
carry_out(settings_of("folder:{store}/p3"), "{store}/run3")
"""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for wanted in ("pool/embeddings.npy", "tree/l1_labels.npy", "exports/curated/card.json"):
        run = subprocess.Popen([sys.executable, "-W", "ignore", "-c", script], **quiet)
        deadline = time.monotonic() + 200
        while not bucket.is_file(store / "run3" / wanted):
            assert run.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        run.kill()
        run.wait()
    pipeline, _ = carry_out(settings_of(f"folder:{store}/p3"), store / "run3")
    left = bucket.listing(store / "run3")
    assert not [name for name in left if ".jaxcurate" in name or "parts" in name]
    assert {state for _, state, _ in pipeline.status()} == {"done"}
