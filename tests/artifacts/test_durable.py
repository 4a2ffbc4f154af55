"""Power failures: a named file is on the disk, and at every moment the old or the new exists."""

import errno
import io
import os
import re
import threading

import numpy as np
import pytest
from etils import epath

from jaxcurate.artifacts import exchange, files, folders
from jaxcurate.checks import InputError


class Disk:
    """Records what has reached the disk, and looks at every renaming whether all of it has.

    A file is on the disk once it is synchronized, a name once its folder is.
    """

    def __init__(self, monkeypatch):
        self.synced = set()
        self.events = []
        fsync, rename, replace, swap, sync = (
            *(os.fsync, os.rename, os.replace, exchange.exchange, os.sync),
        )

        def recorded_fsync(number):
            path = os.readlink(f"/proc/self/fd/{number}")
            self.synced.add((path, os.fstat(number).st_mtime_ns))
            self.events.append(("sync", path))
            fsync(number)

        def recorded_sync():
            self.events.append(("sync", "all"))
            self.synced.add("all")
            sync()

        def recorded_rename(source, target, **how):
            self.moved(source, target)
            rename(source, target, **how)

        def recorded_replace(source, target, **how):
            self.moved(source, target)
            replace(source, target, **how)

        def recorded_swap(one, other):
            self.moved(one, other)
            swap(one, other)

        monkeypatch.setattr(os, "fsync", recorded_fsync)
        monkeypatch.setattr(os, "sync", recorded_sync)
        monkeypatch.setattr(os, "rename", recorded_rename)
        monkeypatch.setattr(os, "replace", recorded_replace)
        monkeypatch.setattr(exchange, "exchange", recorded_swap)

    def moved(self, source, target):
        """Checks that all of ``source`` is on the disk before it takes the name ``target``."""
        source, target = os.fspath(source), os.fspath(target)
        inside = [source]
        for folder, below, names in os.walk(source):
            inside += [os.path.join(folder, name) for name in (*below, *names)]
        for path in inside:
            found = "all" in self.synced or (path, os.stat(path).st_mtime_ns) in self.synced
            assert found, f"{path} was not synchronized before it became {target}"
        self.events.append(("move", target))

    def ends_with(self, path):
        """Checks that the folder of ``path`` was synchronized after the last renaming."""
        moves = [i for i, event in enumerate(self.events) if event == ("move", str(path))]
        assert moves, f"{path} was never renamed to"
        after = [name for kind, name in self.events[moves[-1] :] if kind == "sync"]
        assert {"all", str(path.parent)} & set(after)


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def write(path, n=3):
    with folders.new_folder(path, {"n": n}, "test") as folder:
        folder.save_array("a.npy", np.arange(n))
        folder.write_text("below/further/b.txt", "text")
        with folder.subfolder("inner", {}, "test") as inner:
            inner.save_array("c.npy", np.arange(2))


def test_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path, disk):
    path = tmp_path / "new/out"
    write(path)
    disk.ends_with(path)
    synced = [name for kind, name in disk.events if kind == "sync"]
    assert str(tmp_path) in synced  # where the name of `new` stands
    disk.events.clear()
    write(path, 4)
    disk.ends_with(path)
    assert folders.check_files(path)["n"] == 4


def test_many_files_are_synchronized_together(tmp_path, disk, monkeypatch):
    monkeypatch.setattr(files, "_IN_TURN", 2)
    write(tmp_path / "out")
    assert ("sync", "all") in disk.events
    disk.ends_with(tmp_path / "out")


def test_a_text_is_on_the_disk_before_it_has_its_name(tmp_path, disk):
    for text in ("one", "two"):
        files.write_text(tmp_path / "a.txt", text)
        disk.ends_with(tmp_path / "a.txt")
        assert (tmp_path / "a.txt").read_text() == text


def test_the_recorder_notices_what_was_not_synchronized(tmp_path, disk, monkeypatch):
    monkeypatch.setattr(folders, "sync", lambda files, folders: None)
    with pytest.raises(AssertionError, match="was not synchronized"):
        write(tmp_path / "out")


@pytest.mark.parametrize("atomic", [True, False])
def test_at_every_moment_the_old_or_the_new_stands(tmp_path, monkeypatch, atomic):
    """With the exchange of names at every moment; without it, again after `clean`."""
    path = tmp_path / "out"
    write(path)
    if not atomic:

        def unsupported(one, other):
            raise OSError(errno.EINVAL, "no exchange")

        monkeypatch.setattr(exchange, "exchange", unsupported)
        write(path, 4)
        assert folders.check_files(path)["n"] == 4
        assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
        return
    stop, missing = threading.Event(), []

    def watch():
        while not stop.is_set():
            if not os.path.exists(path / "card.json"):
                missing.append(True)

    watching = threading.Thread(target=watch)
    watching.start()
    for n in range(50):
        write(path, n)
    stop.set()
    watching.join()
    assert not missing


def test_where_neither_way_works_all_is_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "out"
    write(path)

    def fails(one, other):
        raise OSError(errno.EIO, "the disk is gone")

    monkeypatch.setattr(exchange, "exchange", fails)
    with pytest.raises(OSError, match="the disk is gone"):
        write(path, 4)
    assert folders.check_files(path)["n"] == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_told_with_the_path_and_the_bytes(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = epath.Path(tmp_path / "a.npy")
    with files.NewFile(path) as file:
        file._file.close()
        file._file = type("Full", (), {"tell": lambda self: 0, "write": full})()
        told = rf"cannot write 2000 bytes to {re.escape(str(path))}: No space left.*bytes are free"
        with pytest.raises(InputError, match=told):
            file.write(np.zeros(250))
        file._file = io.BytesIO()


def test_a_file_in_the_way_is_never_written_over(tmp_path):
    (tmp_path / "a.npy").write_text("mine")
    with pytest.raises(InputError, match=r"cannot write .*a\.npy: File exists"):
        files.NewFile(epath.Path(tmp_path / "a.npy"))
    assert (tmp_path / "a.npy").read_text() == "mine"


def test_digests_of_files_that_are_gone_back_in(tmp_path):
    path = epath.Path(tmp_path / "x")
    with files.NewFile(path) as file:
        file.write(b"....")
        file.write(np.arange(5, dtype=np.int16))
        file.seek(0)
        file.write(b"head")
    assert file.n_bytes == 14
    assert file.sha256() == files.sha256(path)
    assert path.read_bytes()[:4] == b"head"
