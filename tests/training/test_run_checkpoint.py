"""A run that is interrupted at any moment, and gives what an uninterrupted one would have given."""

import json
import os
import shutil
import signal
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
from jaxcurate.runtime.devices import ONE_DEVICE
from jaxcurate.training import loop

TIMED = "steps_per_second", "images_per_second", "peak_fraction", "waiting_fraction"


class Broken(Exception):
    """Error in the middle of a run."""


def run(folder, *, devices=ONE_DEVICE, data=None, seed=0, **options):
    """The run with a checkpoint every four steps."""
    settings = options.pop("settings", tiny_run.settings(checkpoint_steps=4))
    data = tiny_run.data() if data is None else data
    return loop.train(settings, data, seed=seed, devices=devices, folder=folder, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return run(folder), folder


def lines(folder):
    """Metrics of a folder without those of its speed."""
    text = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMED} for line in text]


def kept(folder):
    names = [entry.name for entry in (Path(folder) / "checkpoints").iterdir()]
    return sorted(int(name) for name in names if name.isdigit())


def assert_same(trained, folder, whole):
    expected, expected_folder = whole
    np.testing.assert_array_equal(trained.losses, expected.losses)
    for one, other in zip(*map(jax.tree.leaves, (trained.params, expected.params)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert lines(folder) == lines(expected_folder)
    assert [line["step"] for line in trained.metrics] == [5, 10, 15, 20]
    for name in ("config.json", "model.safetensors"):
        place = Path("encoder", "last", name)
        assert (folder / place).read_bytes() == (expected_folder / place).read_bytes()


def breaks_at(step, error=Broken):
    def progress(done, total):
        if done == step:
            raise error

    return progress


def test_a_run_that_breaks_again_and_again_gives_the_bits_of_one(tmp_path, whole):
    last = 0
    for step in sorted(np.random.default_rng().choice(np.arange(1, 20), 3, replace=False)):
        with pytest.raises(Broken):
            run(tmp_path, progress=breaks_at(step))
        before = (step - 1) // 4 * 4
        assert not kept(tmp_path) if not before else kept(tmp_path)[-1] == before
        assert len(kept(tmp_path)) <= 2
        last = max(last, before)
    made = []
    trained = run(tmp_path, progress=lambda done, total: made.append(done))
    assert made == list(range(last + 1, 21))  # what was saved is not done again
    assert_same(trained, tmp_path, whole)
    assert kept(tmp_path) == [16, 20]


def test_a_finished_run_is_read_back(whole):
    trained, folder = whole
    made = []
    again = run(folder, progress=lambda done, total: made.append(done))
    assert not made
    assert_same(again, folder, whole)
    np.testing.assert_array_equal(again.losses, trained.losses)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_that_it_came_in(tmp_path, whole, number):
    class Ended(KeyboardInterrupt):
        pass

    def handler(number, frame):
        raise Ended

    def progress(done, total):
        if done == 7:
            os.kill(os.getpid(), number)

    before = signal.signal(number, handler)
    try:
        with pytest.raises(Ended):
            run(tmp_path, progress=progress)
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
    assert kept(tmp_path) == [4, 7]
    made = []
    trained = run(tmp_path, progress=lambda done, total: made.append(done))
    assert made[0] == 8
    assert_same(trained, tmp_path, whole)


def started(folder, *arguments):
    """A process that runs this file with the settings of the tests."""
    root = Path(jaxcurate.__file__).parents[1]
    paths = os.pathsep.join([str(root), str(Path(__file__).parent)])
    environment = os.environ | {"PYTHONPATH": paths, "JAX_NUM_CPU_DEVICES": "1"}
    command = [sys.executable, __file__, str(folder), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_kill_9_loses_less_than_an_interval(tmp_path):
    killed, folder = tmp_path / "killed", tmp_path / "whole"
    for step in (6, 13):
        process = started(killed, "slow")
        end = time.monotonic() + 300
        while not (killed / f"done{step}").exists():
            assert process.poll() is None and time.monotonic() < end, process.stderr.read()
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stderr.close()
        assert kept(killed)[-1] >= step - 1 - 4
    for place in (killed, folder):
        with started(place) as process:
            assert process.wait(300) == 0, process.stderr.read()
    assert lines(killed) == lines(folder)
    assert (killed / "params.npz").read_bytes() == (folder / "params.npz").read_bytes()


def test_a_full_disk_ends_with_one_line_and_loses_nothing(tmp_path, whole, monkeypatch):
    with pytest.raises(Broken):
        run(tmp_path, progress=breaks_at(6))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(InputError, match=r"cannot write a checkpoint of .*: 1000 bytes are free"):
        run(tmp_path)
    monkeypatch.undo()
    assert kept(tmp_path) == [4]
    assert_same(run(tmp_path), tmp_path, whole)


@pytest.mark.slow
def test_a_write_that_fails_midway_ends_with_one_line_and_loses_nothing(tmp_path, whole):
    with pytest.raises(Broken):
        run(tmp_path, progress=breaks_at(6))
    with started(tmp_path, "full") as process:
        error = process.stderr.read()
        assert process.wait(300) == 1
    line = f"cannot write a checkpoint in {tmp_path}/checkpoints: File too large; finished ones"
    assert any(said.startswith(line) for said in error.splitlines()), error
    assert kept(tmp_path) == [4]
    assert_same(run(tmp_path), tmp_path, whole)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(settings=tiny_run.settings(learning_rate=1e-3)), "learning_rate=0.005, now 0.001"),
        (dict(settings=tiny_run.settings(n_accumulate=2)), "n_accumulate=1, now 2"),
        (dict(settings=tiny_run.regression()), "objective.name='simclr', now 'regression'"),
        (dict(seed=1), "seed=0, now 1"),
        (dict(data=tiny_run.data(59)), "data="),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(whole, change, words):
    folder = whole[1]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="is a checkpoint of other settings: .*" + words) as raised:
        run(folder, **change)
    assert "\n" not in str(raised.value)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_other_intervals_are_not_other_settings(tmp_path, whole):
    shutil.copytree(whole[1], tmp_path / "copy")
    settings = tiny_run.settings(checkpoint_steps=3, log_every=2, keep=1, shard_bytes=0)
    assert_same(run(tmp_path / "copy", settings=settings), tmp_path / "copy", whole)


def test_a_damaged_checkpoint_is_named(tmp_path, whole):
    shutil.copytree(whole[1], tmp_path / "copy")
    step = tmp_path / "copy" / "checkpoints" / "20"
    for path in (step / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=f"cannot read {step}: .*; remove it") as raised:
        run(tmp_path / "copy")
    assert "\n" not in str(raised.value)
    shutil.rmtree(step)
    assert_same(run(tmp_path / "copy"), tmp_path / "copy", whole)


def test_other_devices_go_on_from_the_checkpoint(tmp_path, whole, devices):
    with pytest.raises(Broken):
        run(tmp_path, progress=breaks_at(10))
    settings = tiny_run.settings(checkpoint_steps=4, shard_bytes=0)
    with pytest.raises(Broken):
        run(tmp_path, devices=devices, settings=settings, progress=breaks_at(15))
    assert kept(tmp_path)[-1] == 12
    trained = run(tmp_path)
    np.testing.assert_allclose(trained.losses, whole[0].losses, atol=1e-4)


def test_time_decides_where_no_number_of_steps_is_given(tmp_path):
    settings = tiny_run.settings(checkpoint_minutes=1e-9, keep=3)
    with pytest.raises(Broken):
        run(tmp_path, settings=settings, progress=breaks_at(5))
    assert kept(tmp_path) == [2, 3, 4]


def test_the_best_encoder_is_that_of_the_highest_score(tmp_path):
    seen, scores = {}, {4: 0.2, 8: 0.9, 12: 0.5, 16: 0.9, 20: 0.1}

    def on_eval(n_done, params):
        seen[n_done] = params
        return {"score": scores[n_done], "other": 2}

    settings = tiny_run.settings(checkpoint_steps=4, eval_every=4)
    for step in (11, None):  # the best of before the break is remembered
        try:
            run(tmp_path, settings=settings, on_eval=on_eval, progress=breaks_at(step))
        except Broken:
            assert step
    from jaxcurate.models.pretrained import load_vit

    best, _ = load_vit(tmp_path / "encoder" / "best")
    last, _ = load_vit(tmp_path / "encoder" / "last")
    for model, step in ((best, 8), (last, 20)):
        expected = seen[step]["embed"]["kernel"]
        np.testing.assert_array_equal(model.embed.kernel[...], expected)
    evaluated = [line for line in lines(tmp_path) if "score" in line]
    assert [(line["step"], line["score"]) for line in evaluated] == list(scores.items())
    assert all(1 <= line["rankme"] <= 16 and line["other"] == 2 for line in evaluated)


def main():
    """Runs in a process of its own: ``folder [slow|full]``."""
    folder, how = Path(sys.argv[1]), (*sys.argv[2:], "")[0]

    def progress(done, total):
        if how == "slow":
            (folder / f"done{done}").touch()
            time.sleep(0.05)

    if how == "full":
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    try:
        trained = run(folder, progress=progress)
    except InputError as error:
        sys.exit(str(error))
    np.savez(folder / "params.npz", *jax.tree.leaves(trained.params), losses=trained.losses)


if __name__ == "__main__":
    main()
