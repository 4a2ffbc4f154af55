"""A small part of ``scripts/faults``: kills, full disks, damage, two runs, foreign folders."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from faults.operations import Operations, Plan

from jaxcurate.artifacts import files, folders, lock
from jaxcurate.checks import InputError
from jaxcurate.curation.dedup import deduplicate

SCRIPT = Path(__file__).parents[2] / "scripts" / "faults"


@pytest.fixture(scope="module")
def table():
    """Kinds with how often each was tried and wrong."""
    sections = "kills,chains,disk,damage,two,folders"
    command = [sys.executable, str(SCRIPT), "--suite", f"--only={sections}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "in all" in done.stdout, done.stderr
    rows = re.findall(r"^(.+?) +(\d+) +(\d+) +(\d+) +[\d.]+$", done.stdout, re.MULTILINE)
    return {kind: (int(tried), int(wrong)) for kind, tried, _, wrong in rows}, done.stderr


@pytest.mark.parametrize(
    ("kind", "least"),
    [
        ("SIGKILL at an operation of", 10),
        ("SIGKILL again and again", 2),
        ("full disk at an operation of", 4),
        ("(a flipped bit|a truncation|a deletion)", 4),
        ("two runs", 8),
        ("a read-only work directory", 3),
        ("a work directory with a stranger's files", 3),
    ],
)
def test_nothing_is_lost(table, kind, least):
    rows, told = table
    found = [row for name, row in rows.items() if re.match(kind, name)]
    assert sum(tried for tried, _ in found) >= least, rows
    assert sum(wrong for _, wrong in found) == 0, told


def test_a_run_that_was_overtaken_gives_nothing_its_name(tmp_path):
    """Its lock was removed, or taken over, after it had begun to write."""
    work = epath.Path(tmp_path / "work")
    with lock.locked(work):
        with pytest.raises(InputError, match="held by nobody"):  # noqa: SIM117
            with folders.new_folder(work / "pool", {}, "test") as folder:
                folder.write_text("a.txt", "a")
                (work / lock.NAME).unlink()
        with pytest.raises(InputError, match="held by nobody"):
            files.write_text(work / "config.json", "{}")
        assert list(work.iterdir()) == []
        files.write_text(tmp_path / "elsewhere", "{}")  # what lies elsewhere has no lock
    with lock.locked(work), folders.new_folder(work / "pool", {}, "test"):
        pass
    assert folders.read_card(work / "pool") is not None


def full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_lock_on_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pwrite", full)
    told = rf"cannot write \d+ bytes to {tmp_path / 'work' / lock.NAME}: No space"
    with pytest.raises(InputError, match=told), lock.locked(epath.Path(tmp_path / "work")):
        pytest.fail("the lock is not written")
    assert list(tmp_path.iterdir()) == []


def test_a_full_temporary_disk_is_told_before_rows_are_mapped(tmp_path, monkeypatch):
    """A sparse file would end the process by SIGBUS when the disk fills."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    x = np.random.default_rng(0).normal(size=(4096, 64)).astype(np.float32)
    if hasattr(os, "posix_fallocate"):
        allocated, real = [], os.posix_fallocate
        monkeypatch.setattr(os, "posix_fallocate", lambda *a: (allocated.append(a[2]), real(*a)))
        deduplicate(x[:2048], 0.99, n_clusters=4, memory_limit=300_000)
        assert allocated == [4 * 2048 * 64]
        monkeypatch.setattr(os, "posix_fallocate", full)
        with pytest.raises(
            InputError, match=rf"cannot write {x.nbytes} bytes to {tmp_path}/.*unit"
        ):
            deduplicate(x, 0.99, n_clusters=4, memory_limit=300_000)
    assert list(tmp_path.iterdir()) == []


def test_the_disturber_disturbs(tmp_path):
    """Every kind of operation is seen, in its order, at the path that it is on."""
    code = f"""
import json, os, sys
sys.path[:0] = {[str(SCRIPT.parents[1]), str(SCRIPT.parents[1] / "tests")]}
from faults.operations import COUNT, Operations
from jaxcurate.artifacts import folders
operations = Operations([{str(tmp_path)!r}], COUNT)
operations.install()
for n in range(2):
    with folders.new_folder({str(tmp_path / "out")!r}, {{"n": n}}, "test") as folder:
        folder.write_text("a.txt", "text")
print(json.dumps([line.split()[0] for line in operations.done]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kinds = done.stdout
    for kind in (
        "mkdir",
        "open",
        "write",
        "flush",
        "fsync",
        "rename",
        "exchange",
        "remove",
        "rmdir",
    ):
        assert f'"{kind}"' in kinds, kinds
    assert kinds.count("write") == 4 and kinds.count("exchange") == 1
    assert Operations([str(tmp_path)], Plan(0, "full")).done == []
