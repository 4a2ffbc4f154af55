"""Lines of metrics, which agree with the checkpoint, and the speed that they tell."""

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from jaxcurate.checks import InputError
from jaxcurate.runtime.devices import ONE_DEVICE
from jaxcurate.training import loop, metrics, sharding

MESH = sharding.mesh_of(ONE_DEVICE)


def written(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_lines_are_numbers_of_any_library(tmp_path):
    with metrics.MetricsLog(tmp_path, 0) as log:
        log.write(1, a=jnp.float32(0.1), b=np.int32(3), c=None, d=float("inf"))
        assert written(tmp_path) == log.lines  # at once, for who watches
    assert log.lines == [{"step": 1, "a": pytest.approx(0.1), "b": 3.0, "c": None, "d": None}]


@pytest.mark.parametrize(
    "rest", ["", '{"step": 4, "lo', '{"step": 4}', "\x00\x00\n", "[]\n", "3\n"]
)
def test_lines_after_the_checkpoint_are_dropped(tmp_path, rest):
    with metrics.MetricsLog(tmp_path, 0) as log:
        for step in (1, 2, 2, 3):
            log.write(step, loss=step / 7)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write(rest)
    for n_done, n_kept in ((4, 4), (2, 3), (2, 3), (0, 0)):
        with metrics.MetricsLog(tmp_path, n_done) as again:
            assert again.lines == log.lines[:n_kept]
        assert written(tmp_path) == log.lines[:n_kept]


def test_nothing_is_written_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with metrics.MetricsLog(None, 0, tensorboard=True) as log:
        log.write(1, loss=1)
    assert log.lines == [{"step": 1, "loss": 1}] and not any(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write .*file/run/metrics\.jsonl"):
        metrics.MetricsLog(tmp_path / "file" / "run", 0)


class Clock:
    """Time that passes when told."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


class Result:
    """Result of a step on a device."""

    def __init__(self, is_ready):
        self.is_ready = lambda: is_ready


class Compiled:
    """Compiled step of a known number of operations."""

    def cost_analysis(self):
        return {"flops": 2e12}


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(metrics, "time", clock)
    return clock


def test_the_meter_leaves_out_evaluation_and_tells_waiting(clock, monkeypatch):
    monkeypatch.setattr(metrics, "peak_flops", lambda kind: 100e12)
    meter = metrics.Meter(MESH, tiny_run.settings(n_accumulate=2), 10)
    clock.now += 50  # compiling
    meter.start(Compiled())
    for results, seconds in (([], 1), ([Result(True)], 2), ([Result(True), Result(False)], 4)):
        with meter.waiting(results):
            clock.now += seconds
    clock.now += 1
    with meter.aside():
        clock.now += 1000
    assert meter.read(26) == pytest.approx(
        {
            "steps_per_second": 2,
            "images_per_second": 32,
            "peak_fraction": 4e12 * 2 / 100e12,
            "waiting_fraction": 3 / 8,
        }
    )
    clock.now += 4
    again = meter.read(27)
    assert again["steps_per_second"] == 0.25 and again["waiting_fraction"] == 0


@pytest.mark.parametrize(
    "kind, teraflops",
    [
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("Tesla T4", 65),
    ],
)
def test_peaks_are_those_that_makers_publish(kind, teraflops):
    assert metrics.peak_flops(kind) == teraflops * 1e12


def test_an_unknown_device_has_no_peak():
    assert metrics.peak_flops("cpu") is None and metrics.peak_flops("NVIDIA X") is None


def test_a_run_tells_all_metrics(tmp_path):
    settings = tiny_run.regression()
    trained = loop.train(settings, tiny_run.data(), seed=0, devices=ONE_DEVICE, folder=tmp_path)
    assert written(tmp_path) == trained.metrics
    for line, first in zip(trained.metrics, (0, 5, 10, 15), strict=True):
        assert line["step"] == first + 5
        assert line["loss"] == pytest.approx(trained.losses[first : first + 5].mean())
        assert line["gradient_norm"] > 0 and line["peak_fraction"] is None
        assert line["images_per_second"] == pytest.approx(16 * line["steps_per_second"])
        assert 0 <= line["waiting_fraction"] <= 1
        assert -1 <= line["red"] <= 1
    rates = [line["learning_rate"] for line in trained.metrics]
    progress = np.array([4, 9, 14, 19]) - 2
    np.testing.assert_allclose(rates, 5e-3 * (1 + np.cos(np.pi * progress / 18)) / 2, rtol=1e-5)


def test_tensorboard_asks_for_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match=r"pip install 'jaxcurate\[tensorboard\]'"):
        metrics.MetricsLog(tmp_path, 0, tensorboard=True)


def test_tensorboard_gets_the_numbers(tmp_path):
    writer = pytest.importorskip("tensorboardX")
    with metrics.MetricsLog(tmp_path, 0, tensorboard=True) as log:
        log.write(3, loss=0.25, nothing=None)
    from tensorboardX import proto

    (file,) = (tmp_path / "tensorboard").iterdir()
    content = file.read_bytes()
    assert writer and proto and b"loss" in content and np.float32(0.25).tobytes() in content
    assert b"nothing" not in content
