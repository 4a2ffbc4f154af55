import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from etils import epath

from jaxcurate.artifacts import files, folders
from jaxcurate.artifacts.pool import Block, Pool, make_pool, write_pool
from jaxcurate.artifacts.row_file import RowFile

WRITE_FOREVER = """
import sys
from jaxcurate.artifacts import folders
import numpy as np
for i in range(10**6):
    with folders.new_folder(sys.argv[1], {"i": i}, "test") as folder:
        folder.save_array("a.npy", np.full(2000, i))
        folder.save_array("b.npy", np.full(2000, i))
    print(i, flush=True)
"""


def test_nothing_appears_when_the_block_raises(tmp_path):
    path = tmp_path / "out"

    def write():
        with folders.new_folder(path, {}, "test") as folder:
            folder.save_array("a.npy", np.arange(3))
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_a_whole_folder(tmp_path):
    path = tmp_path / "out"
    for delay in (0.0, 0.003, 0.011):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOREVER, str(path)], stdout=subprocess.PIPE
        )
        process.stdout.readline()
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        card = folders.check_files(path)
        a, b = (files.load_array(epath.Path(path) / f"{c}.npy") for c in "ab")
        assert (a == card["i"]).all()
        assert (b == card["i"]).all()
    with folders.new_folder(path, {}, "test"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["out"]  # what was left behind is gone


def test_arrays_with_objects_are_refused(tmp_path):
    with (
        pytest.raises(ValueError, match="Object arrays"),
        files.NewFile(epath.Path(tmp_path / "x.npy")) as file,
    ):
        files.save_array(file, np.array([{}], object))
    with open(tmp_path / "evil.npy", "wb") as file:
        np.lib.format.write_array(file, np.array([{}], object))  # which pickles
    with pytest.raises(files.DamagedError, match=r"evil\.npy"):
        files.load_array(epath.Path(tmp_path / "evil.npy"))


def test_write_text_replaces_at_once(tmp_path):
    files.write_text(tmp_path / "a.txt", "one")
    files.write_text(tmp_path / "a.txt", "two")
    assert (tmp_path / "a.txt").read_text() == "two"
    assert len(list(tmp_path.iterdir())) == 1


def test_fingerprint_changes_with_the_value():
    assert files.fingerprint({"a": 1, "b": 2}) == files.fingerprint({"b": 2, "a": 1})
    assert files.fingerprint({"a": 1}) != files.fingerprint({"a": 2})
    a, b = np.arange(4), np.arange(4).reshape(2, 2)
    assert files.array_digest(a) != files.array_digest(b)
    assert files.array_digest(a) != files.array_digest(a.astype(np.int32))


def test_pool_is_saved_and_loaded(tmp_path):
    pool = make_pool(np.eye(3), ["x", "y", "z"], [4, 5, 9])
    pool.save(tmp_path / "pool")
    loaded = Pool.load(tmp_path / "pool")
    np.testing.assert_array_equal(loaded.embeddings, np.eye(3))
    np.testing.assert_array_equal(loaded.ids, ["x", "y", "z"])
    np.testing.assert_array_equal(loaded.items, [4, 5, 9])
    assert loaded.fingerprint == pool.fingerprint
    assert make_pool(np.eye(3)[::-1], ["x", "y", "z"]).fingerprint != pool.fingerprint
    assert isinstance(loaded.embeddings, np.memmap)


def blocks_of(pool, size):
    for begin in range(0, len(pool), size):
        part = slice(begin, begin + size)
        yield Block(pool.embeddings[part], pool.ids[part], pool.items[part])


def test_a_pool_is_written_block_by_block(tmp_path):
    x = np.random.default_rng(0).normal(size=(107, 5)).astype(np.float32)
    pool = make_pool(x, items=np.arange(107) * 2)
    pool.save(tmp_path / "whole", {"seen": 107})
    seen = []

    def blocks():
        for block in blocks_of(pool, 10):
            seen.append(block)
            yield block

    written = write_pool(tmp_path / "written", blocks(), lambda: {"seen": 10 * len(seen) - 3})
    assert isinstance(written.embeddings, np.memmap)
    assert written.fingerprint == pool.fingerprint
    whole, written = (folders.check_files(tmp_path / name) for name in ("whole", "written"))
    assert whole == written  # the files' checksums as well
    np.save(tmp_path / "x.npy", x)
    with (
        open(tmp_path / "x.npy", "rb") as ours,
        open(tmp_path / "written/embeddings.npy", "rb") as theirs,
    ):
        assert ours.read() == theirs.read()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.embeddings.__setitem__((7, 1), np.nan), "first in row 17"),
        (lambda b: b.ids.__setitem__(7, "3"), "'3' is there twice"),
    ],
)
def test_nothing_is_left_of_a_bad_pool(tmp_path, change, message):
    def blocks():
        for number, block in enumerate(blocks_of(make_pool(np.ones((30, 2))), 10)):
            block = Block(*map(np.array, block[:3]))
            if number == 1:
                change(block)
            yield block

    with pytest.raises(ValueError, match=message):
        write_pool(tmp_path / "new/pool", blocks(), dict)
    assert list(tmp_path.iterdir()) == []


def test_a_memory_map_makes_a_pool_without_a_copy(tmp_path):
    np.save(tmp_path / "x.npy", np.eye(5, dtype=np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert np.shares_memory(make_pool(mapped).embeddings, mapped)


@pytest.mark.parametrize("rows", [np.ones((2, 3)), np.array([{}, {}]), np.ones((2, 4), int)])
def test_a_file_of_rows_takes_rows_of_one_kind(tmp_path, rows):
    with (
        pytest.raises(ValueError, match=r"follows one of rows|Object arrays"),
        files.NewFile(epath.Path(tmp_path / "x.npy")) as file,
        RowFile(file) as written,
    ):
        written.append(np.ones((2, 4)))
        written.append(rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([np.ones(3)], "embeddings must be"),
        ([np.ones((0, 3))], "embeddings must be"),
        ([np.array([[1.0], [np.nan]])], "NaN or an infinity, first in row 1"),
        ([np.ones((2, 2)), ["a", "a"]], "'a' is there twice"),
        ([np.ones((2, 2)), ["a"]], "ids and items must have 2"),
    ],
)
def test_bad_pools_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_pool(*arguments)
