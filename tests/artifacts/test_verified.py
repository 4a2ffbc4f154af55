"""A file that stayed the same is compared with its checksum once a process."""

import os
import time

import numpy as np
import pytest
from etils import epath

from jaxcurate.artifacts import folders, verified


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a file of an hour ago; and the names of the files that are hashed."""
    with folders.new_folder(tmp_path / "out", {}, "test") as new:
        new.save_array("a.npy", np.arange(3))
    an_hour_ago = time.time_ns() - 3600 * 10**9
    os.utime(tmp_path / "out/a.npy", ns=(an_hour_ago, an_hour_ago))
    hashed, sha256 = [], verified.sha256
    monkeypatch.setattr(verified, "sha256", lambda path: hashed.append(path.name) or sha256(path))
    monkeypatch.setattr(verified, "_verified", set())
    return epath.Path(tmp_path / "out"), hashed


def test_a_recent_file_is_hashed_each_time(folder):
    path, hashed = folder  # its number changed a moment ago
    for _ in range(3):
        folders.check_files(path)
    assert hashed == ["a.npy"] * 3


def test_an_old_file_is_hashed_once(folder, monkeypatch):
    path, hashed = folder
    monkeypatch.setattr(verified, "_SETTLED_NS", 0)
    for _ in range(3):
        folders.check_files(path)
    assert hashed == ["a.npy"]


def test_a_change_is_found_even_if_size_and_time_stay(folder, monkeypatch):
    path, hashed = folder
    monkeypatch.setattr(verified, "_SETTLED_NS", 0)
    folders.check_files(path)
    stat = os.stat(path / "a.npy")
    time.sleep(0.02)  # longer than the file system rounds times to
    with open(path / "a.npy", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")
    os.utime(path / "a.npy", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(folders.DamagedError, match=r"a\.npy is damaged"):
            folders.check_files(path)
    assert len(hashed) == 3
