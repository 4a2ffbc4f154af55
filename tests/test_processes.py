"""Real processes on this machine, against one process with as many devices."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import process_worker
import pytest

from jaxcurate import parallel

N_ROWS = 3301
WORKER = Path(process_worker.__file__)
ENDED = ("another task died", "this process ends on the error above")


@pytest.fixture
def rows(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N_ROWS, 6)) + 3 * rng.normal(size=(15, 6))[rng.integers(15, size=N_ROWS)]
    x = x.astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    return x


@contextmanager
def started(directory, what, n, n_devices=1, **options):
    """Processes that do ``what``, ended in any case."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    root = str(Path(parallel.__file__).parents[1])
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": str(n_devices),
        "PYTHONPATH": root,
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiles in half the time
    }
    running = []
    try:
        for process in range(n):
            given = dict(coordinator_address=address, num_processes=n, process_id=process)
            arguments = [what, directory / f"{process}.npz", json.dumps(given | options)]
            with open(directory / f"log{process}", "wb") as log:
                command = [sys.executable, "-W", "error", WORKER, *arguments]
                running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        yield running
    finally:
        for one in running:
            one.kill()
            one.wait()


def log_of(directory, process):
    return (directory / f"log{process}").read_text(errors="replace")


def results(directory, what, n, n_devices=1):
    """What each of the processes found."""
    with started(directory, what, n, n_devices) as running:
        end = time.monotonic() + 150
        for process, one in enumerate(running):
            assert one.wait(max(1, end - time.monotonic())) == 0, log_of(directory, process)
    return [dict(np.load(directory / f"{process}.npz")) for process in range(n)]


def test_two_processes_give_the_bits_of_one(tmp_path, rows):
    (one,) = results(tmp_path, "fits", 1, 2)
    for other in results(tmp_path, "fits", 2):
        assert other.keys() == one.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(other[name], array, err_msg=name)


@pytest.mark.parametrize(("n", "n_devices"), [(3, 1), (2, 2)])
def test_more_devices_add_up_in_another_order(tmp_path, rows, n, n_devices):
    (one,) = results(tmp_path, "few", 1, n * n_devices)
    first, *others = results(tmp_path, "few", n, n_devices)
    for name, array in one.items():
        for other in others:
            np.testing.assert_array_equal(other[name], first[name], err_msg=name)
        if array.dtype == np.float32:
            np.testing.assert_allclose(first[name], array, rtol=1e-5, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(first[name], array, err_msg=name)


def test_each_process_reads_its_part(tmp_path, rows):
    found = results(tmp_path, "parts", 3)
    one = process_worker.parts(rows, parallel.make_mesh(3))
    for name in ("for frame", "placed"):
        read = np.array([part[name] for part in found])
        np.testing.assert_array_equal(read.sum(axis=0), np.ones(N_ROWS))
        assert read.sum(axis=1).max() < 0.4 * N_ROWS
    for part in found:
        for name in ("rows", "weights", "mean"):
            np.testing.assert_array_equal(part[name], one[name])


def test_every_process_raises_the_same(tmp_path, rows):
    first, *others = results(tmp_path, "errors", 3)
    for other in others:
        assert other == first
    said = {name: str(message) for name, message in first.items()}
    assert said["nan"] == (
        "ValueError: x has a NaN or an infinity, first in row 10, then 2000: 2 rows in all"
    )
    assert said["infinite"] == "ValueError: x has a NaN or an infinity, first in row 3300"
    assert said["only assigned"] == said["nan"]
    assert said["init"].startswith("ValueError: init='best'")
    assert said["too many"].startswith("ValueError: n_clusters=3302")
    assert said["not the same"] == (
        "ValueError: x is not the same in all processes: [3301, 3300, 3299] rows"
    )
    assert said["one fails"] == "RuntimeError: process 1 failed: OSError: the disk is gone"
    assert said["pmap"].startswith("ValueError: mapper='pmap' works in one process")
    assert said["no device"].startswith("ValueError: n_devices=2 leaves some of the 3 processes")


@pytest.mark.parametrize(
    ("what", "how", "options"),
    [
        ("endless", "killed", {}),
        ("endless", "breaks off", {}),
        ("idle", "killed", {"heartbeat_seconds": 5}),
    ],
)
def test_a_process_that_dies_ends_the_others(tmp_path, rows, what, how, options):
    with started(tmp_path, what, 3, **options) as running:
        end = time.monotonic() + 60
        while not all((tmp_path / f"running{process}").exists() for process in range(3)):
            assert time.monotonic() < end and all(one.poll() is None for one in running)
            time.sleep(0.1)
        if how == "killed":
            running[1].send_signal(signal.SIGKILL)
        else:
            (tmp_path / "break").touch()
        end = time.monotonic() + 60
        codes = [one.wait(max(1, end - time.monotonic())) for one in running]
        assert 0 not in codes
        for process in (0, 2):
            log = log_of(tmp_path, process)
            assert any(line in log for line in ENDED), log
        if how == "breaks off":
            assert "OSError: the disk is gone" in log_of(tmp_path, 1)


def test_initialize_says_what_is_missing():
    program = "from jaxcurate import processes; processes.initialize()"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 1
    assert "give coordinator_address, num_processes and process_id" in run.stderr
