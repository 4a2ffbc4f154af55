"""The lock of a work directory: refused, waited for, shared, taken over."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from etils import epath

from jaxcurate.artifacts import lock
from jaxcurate.artifacts.lock import NAME, locked
from jaxcurate.checks import InputError

HOLD = """
import sys, time
from etils import epath
from jaxcurate.artifacts.lock import locked
with locked(epath.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path):
    """Starts another process that holds the lock of ``work``."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "work")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def work(tmp_path):
    return epath.Path(tmp_path / "work")


def test_nothing_is_left(work):
    with locked(work / "below") as held:
        held.check()
        assert (work / "below" / NAME).exists()
    assert not work.exists()
    work.mkdir()
    with locked(work):
        (work / "file").write_text("")
    assert [entry.name for entry in work.iterdir()] == ["file"]


def test_a_second_run_is_refused_and_told_by_whom(work, holder):
    told = pytest.raises(InputError, match=f"in use by process {holder.pid} on .*--wait")
    with told, locked(work):
        pytest.fail("both hold it")
    holder.send_signal(signal.SIGSTOP)  # stopped is not gone
    with pytest.raises(InputError, match=f"process {holder.pid}"), locked(work):
        pytest.fail("both hold it")


def test_a_second_run_waits(work, holder):
    threading.Timer(0.7, holder.terminate).start()
    said = []
    with locked(work, wait=True, say=said.append):
        assert holder.poll() is not None or holder.wait(5) is not None
    assert len(said) == 1 and f"waiting for process {holder.pid}" in said[0]


def test_the_lock_of_a_dead_process_is_taken_over(work, holder):
    holder.kill()
    holder.wait()
    assert (work / NAME).exists()
    with locked(work) as held:
        held.check()
    assert not (work / NAME).exists()


@pytest.mark.parametrize("content", ["", "{", '{"token": 1}', "[]"])
def test_a_half_written_lock_is_taken_over(work, content):
    work.mkdir()
    (work / NAME).write_text(content)
    with locked(work) as held:
        held.check()


def test_processes_of_one_run_hold_it_together(work):
    with locked(work, token="a"):
        with locked(work, token="a") as held:
            held.check()
        assert (work / NAME).exists()  # the first of them gives it back
        with pytest.raises(InputError), locked(work, token="b"):
            pytest.fail("both hold it")


def test_a_run_that_lost_its_lock_writes_no_more(work):
    with locked(work) as held:
        (work / NAME).unlink()
        with pytest.raises(InputError, match="now held by nobody"):
            held.check()
        told = pytest.raises(InputError, match=f"now held by process {os.getpid()}")
        with locked(work), told:
            held.check()


def test_a_holder_on_another_machine(work, monkeypatch):
    """It counts as running as long as it touches the file, even if its clock differs."""
    monkeypatch.setattr(lock, "OBSERVED_SECONDS", 1.0)
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.05)
    with locked(work):
        holder = json.loads((work / NAME).read_text()) | {"host": "elsewhere"}
    work.mkdir()
    (work / NAME).write_text(json.dumps(holder))
    with pytest.raises(InputError, match="on elsewhere"), locked(work):
        pytest.fail("both hold it")
    hour_ago = time.time() - 3600
    stop = threading.Event()

    def beat():  # with a clock that is an hour late
        n = 0
        while not stop.wait(0.1):
            n += 1
            os.utime(work / NAME, (hour_ago + n, hour_ago + n))

    os.utime(work / NAME, (hour_ago, hour_ago))
    beating = threading.Thread(target=beat)
    beating.start()
    try:
        with pytest.raises(InputError, match="on elsewhere"):
            monkeypatch.setattr(lock, "SILENT_SECONDS", 120.0)
            _refused_at_once(work)
    finally:
        stop.set()
        beating.join()
    os.utime(work / NAME, (hour_ago, hour_ago))
    said = []
    with locked(work, say=said.append) as held:
        held.check()
    assert "looking for" in said[0]


def _refused_at_once(work):
    """A holder that touches the file is observed again and again, of which the test needs one."""
    looked = []

    def say(line):
        looked.append(line)
        if len(looked) > 1:
            os.utime(work / NAME)  # now its clock is right

    with locked(work, say=say):
        pytest.fail("both hold it")


def test_the_file_is_touched(work, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    with locked(work):
        os.utime(work / NAME, (0, 0))
        deadline = time.monotonic() + 5
        while os.stat(work / NAME).st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert os.stat(work / NAME).st_mtime > 0
