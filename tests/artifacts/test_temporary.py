"""Temporary folders: their owners, and other folders with similar names, which stay."""

import json
import os
import subprocess
import sys

import pytest
from etils import epath

from jaxcurate.artifacts import temporary
from jaxcurate.artifacts.owner import Owner

MAKE_AND_DIE = """
import os, sys
from etils import epath
from jaxcurate.artifacts import temporary
with temporary.beside(epath.Path(sys.argv[1])) as folder:
    (folder / "half.npy").write_text("half")
    print(folder.name, flush=True)
    os.kill(os.getpid(), 9)
"""


def left_behind(path):
    """Returns the name of a temporary folder that a killed process left beside a path."""
    command = [sys.executable, "-c", MAKE_AND_DIE, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def test_nothing_stays(tmp_path):
    with temporary.beside(epath.Path(tmp_path / "out")) as folder:
        (folder / "below").mkdir()
        (folder / "below/file").write_text("")
        assert temporary.is_temporary(folder.name)
    assert list(tmp_path.iterdir()) == []


def test_those_of_dead_processes_are_removed_and_nothing_else(tmp_path):
    """Folders with similar or former names belong to the user."""
    name = left_behind(tmp_path / "out")
    lookalikes = [".out.backup-2024.zip", ".out.my-notes", ".jaxcurate-notes.tmp"]
    lookalikes += [f"{name[:-4]}.old", f".jaxcurate-{'0' * 32}-1-1.tmp.bak"]
    for lookalike in lookalikes:
        (tmp_path / lookalike).mkdir()
        (tmp_path / lookalike / "notes").write_text("mine")
    # By its name a temporary folder, but without the mark.
    unmarked = tmp_path / f".jaxcurate-{'0' * 32}-{2**22 + 1}-1.tmp"
    unmarked.mkdir()
    (unmarked / "notes").write_text("mine")
    assert (tmp_path / name / "half.npy").exists()
    temporary.clean(epath.Path(tmp_path))
    left = {entry.name for entry in tmp_path.iterdir()}
    assert left == {*lookalikes, unmarked.name}
    assert all((tmp_path / lookalike / "notes").exists() for lookalike in lookalikes)


def test_a_copy_under_another_name_is_the_users(tmp_path):
    name = left_behind(tmp_path / "out")
    other = name.replace(name[11:43], "0" * 32)
    (tmp_path / name).rename(tmp_path / other)
    temporary.clean(epath.Path(tmp_path))
    assert [entry.name for entry in tmp_path.iterdir()] == [other]


@pytest.mark.parametrize("mark", [None, ""])
def test_a_folder_whose_maker_died_at_once(tmp_path, mark):
    folder = tmp_path / left_behind(tmp_path / "out")
    (folder / "half.npy").unlink()
    (folder / "jaxcurate-temporary.json").unlink()
    if mark is not None:
        (folder / "jaxcurate-temporary.json").write_text(mark)
    temporary.clean(epath.Path(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_what_stood_there_is_put_back(tmp_path):
    """A process dies between two renames, on a file system that cannot exchange names."""
    folder = tmp_path / left_behind(tmp_path / "out")
    (folder / temporary.OLD).mkdir()
    (folder / temporary.OLD / "card.json").write_text("old")
    temporary.clean(epath.Path(tmp_path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out/card.json").read_text() == "old"


def test_those_of_other_machines_stay(tmp_path):
    folder = tmp_path / left_behind(tmp_path / "out")
    mark = json.loads((folder / "jaxcurate-temporary.json").read_text())
    (folder / "jaxcurate-temporary.json").write_text(json.dumps(mark | {"host": "elsewhere"}))
    temporary.clean(epath.Path(tmp_path))
    assert folder.exists()
    # This machine, before it was started anew.
    (folder / "jaxcurate-temporary.json").write_text(json.dumps(mark | {"boot": "earlier"}))
    temporary.clean(epath.Path(tmp_path))
    assert not folder.exists()


def test_a_process_is_known_by_more_than_its_number():
    me = Owner.current()
    assert me.is_running() is True
    assert Owner.from_plain(json.loads(json.dumps(me._asdict()))) == me
    assert me._replace(started="1").is_running() is False  # the number was given anew
    assert me._replace(namespace="pid:[1]").is_running() is None  # another container
    child = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    zombie = me._replace(pid=child.pid)
    assert zombie.is_running() is False
    child.communicate()
    assert str(os.getpid()) in str(me)
