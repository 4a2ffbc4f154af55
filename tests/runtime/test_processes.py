"""Real processes on this machine, against one process with as many devices."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import process_worker
import pytest
import xla_flags

import jaxcurate
from jaxcurate.runtime import devices, monitor
from jaxcurate.runtime.devices import Devices
from jaxcurate.runtime.rendezvous import Member, Party
from jaxcurate.runtime.verdict import Beat

N_ROWS = 3301
WORKER = Path(process_worker.__file__)
WATCHED = {"heartbeat_seconds": 5, "stall_seconds": 4}
MOST_SECONDS = 400


@pytest.fixture
def rows(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N_ROWS, 6)) + 3 * rng.normal(size=(15, 6))[rng.integers(15, size=N_ROWS)]
    x = x.astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    return x


@contextmanager
def started(directory, what, n, n_devices=1, missing=(), own=None, **options):
    """Processes that do ``what``, ended in any case; ``own`` has options of one of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    root = str(Path(devices.__file__).parents[2])
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": str(n_devices),
        "PYTHONPATH": root,
        "XLA_FLAGS": xla_flags.QUICK,
    }
    running = []
    try:
        for process in sorted(set(range(n)) - set(missing)):
            given = dict(coordinator_address=address, num_processes=n, process_id=process)
            given |= options | (own or {}).get(process, {})
            arguments = [what, directory / f"{process}.npz", json.dumps(given)]
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
        end = time.monotonic() + MOST_SECONDS
        for process, one in enumerate(running):
            assert one.wait(max(1, end - time.monotonic())) == 0, log_of(directory, process)
    return [dict(np.load(directory / f"{process}.npz")) for process in range(n)]


@pytest.mark.slow
def test_two_processes_give_the_bits_of_one(tmp_path, rows):
    (one,) = results(tmp_path, "fits", 1, 2)
    for other in results(tmp_path, "fits", 2):
        assert other.keys() == one.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(other[name], array, err_msg=name)


@pytest.mark.parametrize(("n", "n_devices"), [(3, 1), pytest.param(2, 2, marks=pytest.mark.slow)])
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
    one = process_worker.parts(rows, Devices.first(3))
    for name in ("for frame", "placed", "fitted"):
        read = np.array([part[name] for part in found])
        np.testing.assert_array_equal(read.sum(axis=0), np.ones(N_ROWS))
        assert read.sum(axis=1).max() < 0.4 * N_ROWS
    for part in found:
        for name in ("rows", "weights", "mean"):
            np.testing.assert_array_equal(part[name], one[name])
        for name in ("components", "center"):
            np.testing.assert_array_equal(part[name], part[f"{name} of one"])
            np.testing.assert_allclose(part[name], one[name], rtol=1e-5, atol=1e-6)


def test_every_process_raises_the_same(tmp_path, rows):
    first, *others = results(tmp_path, "errors", 3)
    for other in others:
        assert other == first
    said = {name: str(message) for name, message in first.items()}
    assert said["nan"] == (
        "InputError: x has a NaN or an infinity, first in row 10, then 2000: 2 rows in all"
    )
    assert said["infinite"] == "InputError: x has a NaN or an infinity, first in row 3300"
    assert said["only assigned"] == said["nan"]
    assert said["init"].startswith("InputError: init='best'")
    assert said["too many"].startswith("InputError: n_clusters=3302")
    assert re.fullmatch(
        r"InputError: x is not the same in all processes: "
        r"process 1 has x=float32 \[3300, 6\], rows \w+, "
        r"process 2 has x=float32 \[3299, 6\], rows \w+, "
        r"process 0 has x=float32 \[3301, 6\], rows \w+",
        said["not the same"],
    )
    assert said["one fails"] == "RuntimeError: process 1 failed: OSError: the disk is gone"
    assert said["pmap"].startswith("InputError: mapper='pmap' works in one process")
    assert said["no device"].startswith("InputError: n_devices=2 leaves some of the 3 processes")


def test_calls_that_differ_are_refused_in_every_process(tmp_path, rows):
    first, other = results(tmp_path, "differing", 2)
    assert other == first
    said = {name: str(message) for name, message in first.items()}
    assert all(message.startswith("InputError: ") for message in said.values())
    for name, values in {
        "n_clusters": ("4", "3"),
        "max_iter": ("30", "50"),
        "metric": ("'cosine'", "'euclidean'"),
        "memory_limit": ("100000", "None"),
        "seed": ("1", "0"),
        "call": ("hierarchical_kmeans", "kmeans"),
        "threshold": ("0.8", "0.9"),
        "rows": ("[1, 3]", "[1, 2]"),
        "jax_default_matmul_precision": ("'highest'", "None"),
    }.items():
        assert said[name] == (
            f"InputError: {name} is not the same in all processes: process 1 has "
            f"{name}={values[0]}, process 0 has {name}={values[1]}"
        )
    for name in ("init", "levels", "tree"):
        assert said[name].startswith(f"InputError: {name} is not the same in all processes")
    for name in ("dtype", "content"):
        assert said[name].startswith("InputError: x is not the same in all processes")


def await_running(directory, running):
    end = time.monotonic() + MOST_SECONDS
    while not all((directory / f"running{process}").exists() for process in range(len(running))):
        assert time.monotonic() < end and all(one.poll() is None for one in running)
        time.sleep(0.05)


FAULTS = [
    ("idle", 1, signal.SIGKILL, "died; last heard of"),
    ("endless", 0, signal.SIGKILL, "died; last heard of"),
    ("endless", 1, signal.SIGTERM, "was ended by SIGTERM"),
    ("sticks", 1, None, "is stuck: it used no CPU or disk for 4 s after step"),
    ("endless", 1, signal.SIGSTOP, "no longer answers; last heard of 5."),
    pytest.param("endless", 1, signal.SIGKILL, "died; last heard of", marks=pytest.mark.slow),
    pytest.param("idle", 0, signal.SIGKILL, "died; last heard of", marks=pytest.mark.slow),
    pytest.param("endless", 1, signal.SIGINT, "was ended by SIGINT", marks=pytest.mark.slow),
    pytest.param("idle", 0, signal.SIGINT, "was ended by SIGINT", marks=pytest.mark.slow),
    pytest.param("endless", 0, signal.SIGTERM, "was ended by SIGTERM", marks=pytest.mark.slow),
    pytest.param("idle", 0, signal.SIGSTOP, "no longer answers; last", marks=pytest.mark.slow),
    pytest.param("leaves", 1, None, "has ended its program", marks=pytest.mark.slow),
    pytest.param("breaks", 1, None, "failed: OSError: the disk is gone", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("what", "process", "number", "said"), FAULTS)
def test_a_process_that_fails_ends_the_others_by_its_name(
    tmp_path, rows, what, process, number, said
):
    with started(tmp_path, what, 3, **WATCHED) as running:
        await_running(tmp_path, running)
        begun = time.monotonic()
        if number is None:
            (tmp_path / "go").touch()
        else:
            running[process].send_signal(number)
        for other, one in enumerate(running):
            if other != process:
                assert one.wait(60) == 1
                *rest, line = log_of(tmp_path, other).splitlines()
                named = f"jaxcurate: process {process} (pid {running[process].pid} on "
                assert line.startswith(named + socket.gethostname() + ") " + said), line
                assert not any("Traceback" in line or "***" in line for line in rest)
        assert time.monotonic() - begun < 60
        if number == signal.SIGSTOP:
            running[process].send_signal(signal.SIGCONT)
        assert running[process].wait(60) not in (0, -signal.SIGABRT)
        last = log_of(tmp_path, process).splitlines()[-1]
        if number == signal.SIGKILL:
            assert "jaxcurate:" not in last
        else:
            assert last.startswith("jaxcurate: "), last


def test_a_process_that_computes_is_not_taken_for_stuck(tmp_path, rows):
    with started(tmp_path, "computes", 2, heartbeat_seconds=10, stall_seconds=2) as running:
        for process, one in enumerate(running):
            assert one.wait(MOST_SECONDS) == 0, log_of(tmp_path, process)


@pytest.mark.parametrize(("seconds", "is_stuck"), [(4.2, False), (6.2, True)])
def test_one_late_heartbeat_makes_no_process_stuck(monkeypatch, seconds, is_stuck):
    """Heartbeats come every 2 s, and process 0 has waited for 10 s in a later step."""
    members = {process: Member(process, "here", 7 + process) for process in range(2)}
    watch = monitor.Monitor(Party(members[0], members, {}), 20, 2)
    ahead, now, said = Beat(1, "fetch", 0.0, 0, "a line", False), time.monotonic(), []
    monkeypatch.setattr(watch, "_own_beat", lambda: ahead)
    monkeypatch.setattr(watch, "end", lambda line: said.append(line))
    watch._seen[0] = replace(watch._seen[0], beat=ahead, then=ahead, stepped=now - 10)
    watch._seen[1] = replace(watch._seen[1], stepped=now - 10, active=now - seconds)
    watch._beat(now)
    assert ["process 1 (pid 8 on here) is stuck" in line for line in said] == [True] * is_stuck


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ((2, 3), "InputError: 2 of 4 processes did not come within 3 s: 2, 3"),
        ((0, 2, 3), "InputError: process 0 did not come to 127.0.0.1:"),
    ],
)
def test_a_start_tells_which_processes_are_missing(tmp_path, rows, missing, said):
    with started(tmp_path, "idle", 4, missing=missing, start_seconds=3) as running:
        codes = [one.wait(MOST_SECONDS) for one in running]
    assert set(codes) == {1}
    for process in set(range(4)) - set(missing):
        assert said in log_of(tmp_path, process).splitlines()[-1]


def test_a_start_tells_what_is_not_the_same(tmp_path, rows):
    own = {1: {"other_code": True}}
    with started(tmp_path, "idle", 2, own=own) as running:
        assert [one.wait(MOST_SECONDS) for one in running] == [1, 1]
    for process in range(2):
        assert log_of(tmp_path, process).splitlines()[-1] == (
            "jaxcurate.checks.InputError: jaxcurate is not the same in all processes: process 1 "
            "has jaxcurate=0.0.1, process 0 has jaxcurate=" + jaxcurate.__version__
        )


def test_a_process_that_is_there_twice_is_told(tmp_path, rows):
    with started(tmp_path, "idle", 3, own={2: {"process_id": 1}}) as running:
        assert [one.wait(MOST_SECONDS) for one in running] == [1, 1, 1]
    for process in range(3):
        assert "process_id=1 is there twice: pid" in log_of(tmp_path, process).splitlines()[-1]


def test_initialize_says_what_is_missing():
    program = "from jaxcurate.runtime import processes; processes.initialize()"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 1
    assert "coordinator_address, num_processes, process_id not given" in run.stderr
    assert "give coordinator_address, num_processes and process_id" in run.stderr
