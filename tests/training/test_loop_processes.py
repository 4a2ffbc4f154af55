"""Two processes of two devices: the losses of one process, one folder, and one way to stop."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run

import jaxcurate
from jaxcurate.checks import InputError
from jaxcurate.runtime import processes
from jaxcurate.runtime.devices import ONE_DEVICE, Devices
from jaxcurate.training import loop

pytestmark = pytest.mark.slow


def begin(folder, work, n_processes, n_devices):
    """Processes that do some work on a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    paths = [str(Path(jaxcurate.__file__).parents[1]), str(Path(__file__).parent)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "JAX_NUM_CPU_DEVICES": str(n_devices),
    }
    started = []
    for process in range(n_processes):
        command = [sys.executable, __file__, str(folder), work, address, n_processes, process]
        with open(f"{folder}-log{process}", "w") as log:
            started.append(
                subprocess.Popen(list(map(str, command)), env=environment, stdout=log, stderr=log)
            )
    return started


def log_of(folder, process):
    return Path(f"{folder}-log{process}").read_text()


def finish(started, folder, codes=(0,)):
    try:
        for process, one in enumerate(started):
            assert one.wait(400) in codes, log_of(folder, process)
    finally:
        for one in started:
            one.kill()


def results(folder, n):
    return [dict(np.load(f"{folder}-{process}.npz")) for process in range(n)]


@pytest.fixture(scope="module")
def alone():
    return loop.train(tiny_run.settings(), tiny_run.data(), seed=0, devices=ONE_DEVICE)


@pytest.mark.parametrize("work", ["copied", "split", "crops"])
def test_two_processes_give_the_losses_of_one(tmp_path, alone, work):
    folder = tmp_path / "run"
    finish(begin(folder, work, 2, 2), folder)
    first, other = results(folder, 2)
    expected = alone.losses
    if work == "crops":
        import test_loop

        data = test_loop.Crops()
        expected = loop.train(tiny_run.settings(), data, seed=0, devices=ONE_DEVICE).losses
    np.testing.assert_allclose(first["losses"], expected, atol=1e-4)
    assert first.keys() == other.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(other[name], array, err_msg=name)
    text = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in text] == [5, 10, 15, 20]


def test_two_processes_stop_together_and_go_on(tmp_path):
    whole, folder = tmp_path / "whole", tmp_path / "run"
    finish(begin(whole, "split", 2, 2), whole)
    started = begin(folder, "slow", 2, 2)
    end = time.monotonic() + 300
    while not Path(f"{folder}-done7").exists():
        assert time.monotonic() < end and all(one.poll() is None for one in started), log_of(
            folder, 0
        ) + log_of(folder, 1)
        time.sleep(0.01)
    started[1].send_signal(signal.SIGTERM)
    finish(started, folder, codes=(3,))
    saved = [int(entry.name) for entry in (folder / "checkpoints").iterdir()]
    assert len(saved) == 1 and saved[0] in (10, 15), saved  # the next line of metrics
    finish(begin(folder, "split", 2, 2), folder)
    for one, other in zip(results(folder, 2), results(whole, 2), strict=True):
        for name, array in other.items():
            np.testing.assert_array_equal(one[name], array, err_msg=name)


def test_settings_that_differ_are_refused_in_every_process(tmp_path):
    folder = tmp_path / "run"
    finish(begin(folder, "differ", 2, 1), folder, codes=(1,))
    for process in range(2):
        assert "seed is not the same in all processes" in log_of(folder, process)


def main():
    """Runs in each process: ``folder work address n_processes process``."""
    folder, work, address = sys.argv[1:4]
    n, process = map(int, sys.argv[4:])
    processes.initialize(address, n, process)

    class Stopped(KeyboardInterrupt):
        pass

    def handler(number, frame):
        raise Stopped

    signal.signal(signal.SIGTERM, handler)

    def progress(done, total):
        if work == "slow":
            Path(f"{folder}-done{done}").touch()
            time.sleep(0.1)

    data = tiny_run.data(n_parts=n, part=process)
    if work == "crops":
        import test_loop

        data = test_loop.Crops(n_parts=n, part=process)
    settings = tiny_run.settings(shard_bytes=2**30 if work == "copied" else 0)
    try:
        trained = loop.train(
            settings,
            data,
            seed=process if work == "differ" else 0,
            devices=Devices.all(),
            folder=folder,
            progress=progress,
        )
    except InputError as error:
        print(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(3)
    leaves = {f"{i}": leaf for i, leaf in enumerate(jax.tree.leaves(trained.params))}
    np.savez(f"{folder}-{process}.npz", losses=trained.losses, **leaves)


if __name__ == "__main__":
    main()
