import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from etils import epath

from jaxcurate import workdir
from jaxcurate.pool import Pool, make_pool

WRITE_FOREVER = """
import sys
from jaxcurate import workdir
import numpy as np
for i in range(10**6):
    with workdir.new_folder(sys.argv[1], {"i": i}) as folder:
        workdir.save_array(folder / "a.npy", np.full(2000, i))
        workdir.save_array(folder / "b.npy", np.full(2000, i))
    print(i, flush=True)
"""


def test_nothing_appears_when_the_block_raises(tmp_path):
    path = tmp_path / "out"

    def write():
        with workdir.new_folder(path, {}) as folder:
            workdir.save_array(folder / "a.npy", np.arange(3))
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
        if path.exists():  # else it was killed between two renames, and is written anew
            card = workdir.check_files(path)
            a, b = (workdir.load_array(epath.Path(path) / f"{c}.npy") for c in "ab")
            assert (a == card["i"]).all()
            assert (b == card["i"]).all()
    with workdir.new_folder(path, {}):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["out"]  # what was left behind is gone


def test_arrays_with_objects_are_refused(tmp_path):
    path = epath.Path(tmp_path / "x.npy")
    with pytest.raises(ValueError, match="Object arrays"):
        workdir.save_array(path, np.array([{}], object))
    with open(tmp_path / "evil.npy", "wb") as file:
        np.lib.format.write_array(file, np.array([{}], object))  # which pickles
    with pytest.raises(workdir.DamagedError, match=r"evil\.npy"):
        workdir.load_array(epath.Path(tmp_path / "evil.npy"))


def test_write_text_replaces_at_once(tmp_path):
    workdir.write_text(tmp_path / "a.txt", "one")
    workdir.write_text(tmp_path / "a.txt", "two")
    assert (tmp_path / "a.txt").read_text() == "two"
    assert len(list(tmp_path.iterdir())) == 1


def test_fingerprint_changes_with_the_value():
    assert workdir.fingerprint({"a": 1, "b": 2}) == workdir.fingerprint({"b": 2, "a": 1})
    assert workdir.fingerprint({"a": 1}) != workdir.fingerprint({"a": 2})
    a, b = np.arange(4), np.arange(4).reshape(2, 2)
    assert workdir.array_digest(a) != workdir.array_digest(b)
    assert workdir.array_digest(a) != workdir.array_digest(a.astype(np.int32))


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
