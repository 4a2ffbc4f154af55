"""The command line never replaces, removes or changes files of the user."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from etils import epath
from PIL import Image

from jaxcurate import cli
from jaxcurate.artifacts.lock import locked
from jaxcurate.pipeline.cluster import Cluster

CONFIG = """
from jaxcurate.encoders import EmbedConfig
from jaxcurate import Level
from jaxcurate.config import *

def get_config(source):
    return to_config(
        Config(
            source=source,
            embed=EmbedConfig(
                "identity" if source.startswith("npy:") else "pixels", resolution=8, batch_size=64
            ),
            dedup=DedupConfig(enabled=False),
            cluster=ClusterConfig((Level(8),)),
            sample=SampleConfig(10),
            evaluate=EvaluateConfig(arms=()),
        )
    )
"""


def everything_in(path):
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


@pytest.fixture
def place(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.normal(size=(60, 4)).astype(np.float32))
    np.save(tmp_path / "new.npy", rng.normal(size=(9, 4)).astype(np.float32))
    np.save(tmp_path / "newer.npy", rng.normal(size=(9, 4)).astype(np.float32))
    return tmp_path


@pytest.fixture
def jaxcurate(place, capsys):
    """Runs a command; returns its exit code and what it said on standard error."""

    def run(command, *flags, source=f"npy:{place}/x.npy", work=f"{place}/work"):
        code = cli.main(
            [command, f"--config={place}/config.py:{source}", f"--workdir={work}", *flags]
        )
        return code, capsys.readouterr().err

    return run


def refused(outcome, *words):
    code, err = outcome
    assert code == 2, err
    line = err.splitlines()[-1]
    assert line.startswith("jaxcurate: ") and "Traceback" not in err
    for word in words:
        assert word in line, line


def pictures(path, n=12):
    path.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(path / f"{i:02}.png")


@pytest.mark.parametrize("name", ["pool", "tree", "subsets/curated", "elsewhere"])
def test_pictures_in_the_work_directory_stay(jaxcurate, place, monkeypatch, name):
    pictures(place / name)
    monkeypatch.chdir(place)
    before = everything_in(place)
    for command in ("embed", "run"):
        refused(jaxcurate(command, source=f"folder:{name}", work="."), "lies in the work directory")
        link = place / "link"
        link.symlink_to(place / name)
        refused(jaxcurate(command, source=f"folder:{link}", work="."), "lies in the work directory")
        link.unlink()
    assert everything_in(place) == before


def test_a_work_directory_among_the_pictures_is_no_item(jaxcurate, place):
    """Exported pictures are not taken for new ones, and nothing is done twice."""
    pictures(place / "pictures")
    where = {"source": f"folder:{place}/pictures", "work": f"{place}/pictures/work"}
    copies = "--config.export.format=copy"
    assert jaxcurate("run", copies, **where)[0] == 0
    assert len(list((place / "pictures" / "work" / "exports").rglob("*.png"))) == 10
    code, err = jaxcurate("run", copies, **where)
    assert code == 0 and err.count("done before") == 6
    code, err = jaxcurate("run", copies, "--config.embed.batch_size=5", **where)
    assert code == 0, err
    card = json.loads((place / "pictures" / "work" / "pool" / "card.json").read_text())
    assert card["n"] == 12
    assert ["work/", "the work directory"] in card["unreadable"]


def test_an_array_among_what_stages_write_stays(jaxcurate, place):
    (place / "work/pool").mkdir(parents=True)
    shutil.copy(place / "x.npy", place / "work/pool/embeddings.npy")
    before = everything_in(place)
    source = f"npy:{place / 'work' / 'pool' / 'embeddings.npy'}"
    refused(jaxcurate("run", source=source), "lies in the work directory")
    refused(jaxcurate("run"), "work/pool was not written by jaxcurate")
    assert everything_in(place) == before
    shutil.move(place / "work/pool/embeddings.npy", place / "work/embeddings.npy")
    assert jaxcurate("embed", source=f"npy:{place / 'work' / 'embeddings.npy'}")[0] == 0


@pytest.mark.parametrize(
    "name", ["tree", "evaluation", "exports/curated", "report.html", "config.json"]
)
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_stands_in_the_way_is_told_before_work_begins(jaxcurate, place, name, kind):
    path = place / "work" / name
    path.parent.mkdir(parents=True)
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
        (path / "thesis.txt").write_text("ten years")
    else:
        path.symlink_to(place / "x.npy")
    before = everything_in(place)
    refused(jaxcurate("run"), str(path), "move it away")
    assert everything_in(place) == before
    assert not (place / "work/pool").exists()


def test_names_that_look_like_leftovers_stay(jaxcurate, place):
    (place / "work/.tree.my-notes").mkdir(parents=True)
    (place / "work/.tree.backup-2024.zip").write_text("mine")
    assert jaxcurate("run")[0] == 0
    assert (place / "work/.tree.my-notes").is_dir()
    assert (place / "work/.tree.backup-2024.zip").read_text() == "mine"


def test_a_file_beside_the_exported_items_stays(jaxcurate, place):
    assert jaxcurate("run")[0] == 0
    labels = place / "work/exports/curated/labels.csv"
    labels.write_text("a,b")
    assert jaxcurate("run")[0] == 0  # nothing is to be done
    before = everything_in(place)
    refused(jaxcurate("run", "--config.sample.size=12"), str(labels), "move it away")
    assert everything_in(place) == before
    labels.unlink()
    assert jaxcurate("run", "--config.sample.size=12")[0] == 0


def test_work_in_what_has_grown_stays(jaxcurate, place):
    assert jaxcurate("run")[0] == 0
    flags = ["--config.grow.prefix=n", f"--config.grow.source=npy:{place}/new.npy"]
    newer = ["--config.grow.prefix=n", f"--config.grow.source=npy:{place}/newer.npy"]
    assert jaxcurate("grow", *flags)[0] == 0
    assert jaxcurate("grow", *newer)[0] == 0  # nothing was done there yet
    grown = place / "work/grown/grown"
    for command in ("cluster", "sample"):
        code, err = jaxcurate(command, "--config.sample.size=20", work=str(grown))
        assert code == 0, err
        before = everything_in(place)
        refused(jaxcurate("grow", *flags), str(grown), "move it away")
        assert everything_in(place) == before


def test_the_work_of_another_run_stays(jaxcurate, place):
    assert jaxcurate("run")[0] == 0
    assert jaxcurate("run", "--config.seed=1", work=f"{place}/other")[0] == 0
    shutil.rmtree(place / "work/tree")
    shutil.move(place / "other/tree", place / "work/tree")
    before = everything_in(place)
    refused(jaxcurate("cluster"), "work/tree was written by jaxcurate, but by another run")
    refused(jaxcurate("run"), "by another run")
    assert everything_in(place) == before
    shutil.rmtree(place / "work/tree")
    assert jaxcurate("run")[0] == 0
    # Also where this work directory has nothing else yet.
    for name in ("tree", "pool"):
        (place / "fresh").mkdir()
        shutil.move(place / "work" / name, place / "fresh" / name)
        before = everything_in(place)
        flags = ["--config.seed=2", "--config.embed.batch_size=5"]
        refused(jaxcurate("run", *flags, work=f"{place}/fresh"), f"fresh/{name}", "another run")
        assert everything_in(place) == before
        shutil.move(place / "fresh" / name, place / "work" / name)
        (place / "fresh").rmdir()
    # The work directory as a whole may be moved or copied.
    shutil.move(place / "work", place / "moved")
    assert jaxcurate("run", "--config.seed=1", work=f"{place}/moved")[0] == 0


def test_an_older_work_directory_is_gone_on_with(jaxcurate, place):
    """Its cards and its config.json have no id of the run."""
    assert jaxcurate("run")[0] == 0
    older = set(place.glob("work/**/*.json")) - set(place.glob("work/exports/curated/*/*.json"))
    for file in older:
        plain = json.loads(file.read_text())
        for name in ("run", "written_by", "kind", "checksum"):
            plain.pop(name, None)
        file.write_text(json.dumps(plain))
    assert jaxcurate("run", "--config.seed=1")[0] == 0


def test_a_second_run_is_refused(jaxcurate, place):
    assert jaxcurate("run")[0] == 0
    before = everything_in(place)
    with locked(epath.Path(place / "work")):
        for command in ("run", "embed", "sample"):
            refused(jaxcurate(command), "is in use by process", "--wait")
        assert jaxcurate("status")[0] == 0  # which writes nothing
    assert everything_in(place) == before


def test_the_home_directory_is_meant(jaxcurate, place, monkeypatch):
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.chdir(place)
    assert jaxcurate("embed", work="~/work")[0] == 0
    assert (place / "work/pool/card.json").exists()
    assert not (place / "~").exists()


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_a_signal_ends_in_one_line_and_leaves_nothing_half(place, number, code, word):
    x = np.random.default_rng(0).normal(size=(50_000, 64))
    np.save(place / "x.npy", x.astype(np.float32))
    command = [sys.executable, "-m", "jaxcurate", "run", f"--workdir={place}/work"]
    command += [
        f"--config={place}/config.py:npy:{place}/x.npy",
        "--config.cluster.levels[0].n_clusters=2000",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("cluster"):
                break
        time.sleep(0.5)
        process.send_signal(number)
        rest = process.stderr.read()
    assert process.returncode == code, rest
    assert rest.splitlines()[-1] == f"jaxcurate: {word}; the same command continues from here"
    assert "Traceback" not in rest
    left = {entry.name for entry in (place / "work").iterdir()}
    assert left == {"pool", "config.json"}


def test_what_is_no_input_error_is_a_bug(jaxcurate, place, monkeypatch):
    def fails(self, context, card):
        raise ValueError("could not broadcast")

    monkeypatch.setattr(Cluster, "run", fails)
    with pytest.raises(ValueError, match="could not broadcast"):
        jaxcurate("run")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device", "/tmp/a"), ["No space left on device: '/tmp/a'"]),
        (PermissionError(13, "Permission denied", "a", None, "b"), ["denied: 'a' and 'b'"]),
        (MemoryError("Unable to allocate 3 TiB"), ["not enough memory", "3 TiB", "memory_limit"]),
    ],
)
def test_errors_of_the_system_are_one_line(jaxcurate, place, monkeypatch, error, words):
    def fails(self, context, card):
        raise error

    monkeypatch.setattr(Cluster, "run", fails)
    refused(jaxcurate("run"), *words)


def test_the_device_is_told_first(jaxcurate):
    first = jaxcurate("status")[1].splitlines()[0]
    assert first.startswith("4 x CPU (cpu), ") and first.endswith(" GB of host memory")


@pytest.mark.parametrize(
    ("environment", "flags", "words"),
    [
        ({"JAX_PLATFORMS": "tpu"}, [], ["asks for 'tpu', which does not exist here"]),
        ({"JAX_PLATFORMS": "cuda"}, [], ["asks for 'cuda', which does not exist here"]),
        ({"JAX_PLATFORMS": ""}, ["--config.platform=tpu"], ["config.platform asks for 'tpu'"]),
    ],
)
def test_a_device_that_is_not_there_is_an_error(place, environment, flags, words):
    import jax

    if jax.default_backend() != "cpu":
        pytest.skip("this machine has more than a CPU")
    command = [sys.executable, "-m", "jaxcurate", "run", f"--workdir={place}/work"]
    command += [f"--config={place}/config.py:npy:{place}/x.npy", *flags]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    refused((done.returncode, done.stderr), *words)
    assert not (place / "work").exists()
