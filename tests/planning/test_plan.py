"""Plans of runs: machines, counts, advice, the page, and the command line."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import jaxcurate as jc
from jaxcurate import cli
from jaxcurate.checks import InputError
from jaxcurate.config import ClusterConfig, Config, DedupConfig, EvaluateConfig, SampleConfig
from jaxcurate.encoders import EmbedConfig
from jaxcurate.pipeline import STAGES, Stage
from jaxcurate.pipeline.plan import plan_of
from jaxcurate.planning import Ask
from jaxcurate.planning.ahead_of_time import compiled
from jaxcurate.planning.clustering import Fit, chip_bytes, n_iterations, n_passes
from jaxcurate.planning.embedding import encoding_of
from jaxcurate.planning.kernels import kernels
from jaxcurate.planning.machines import gpu_box, this_machine, tpu_slice
from jaxcurate.runtime.devices import Devices
from jaxcurate.training import PretrainConfig, ViTConfig


def settings_of(*levels, **more):
    cluster = ClusterConfig(levels or (jc.Level(1000, 2, 10), jc.Level(100)))
    usual = dict(source="npy:x.npy", evaluate=EvaluateConfig(arms=()))
    return Config(cluster=cluster, sample=SampleConfig(size=1000), **(usual | more))


def ask_for(machine=None, n=10**6, d=64, **more):
    machine = machine or tpu_slice("v5e-8")
    settings = settings_of(**more)
    # Compilation takes the same time for any number of rows.
    return Ask(settings, machine, n, d, item_bytes=4.0 * d, compile_seconds=0.0)


def plan(ask, name):
    (stage,) = [stage for stage in STAGES if stage.name == name]
    return stage.plan(ask)


@pytest.mark.parametrize(
    "name, n_chips, n_hosts, topology",
    [
        ("v5e-8", 8, 1, "v5e:2x4"),
        ("v5e-64", 64, 16, "v5e:8x8"),
        ("v5litepod-256", 256, 64, "v5e:16x16"),
        ("v6e:4x4", 16, 4, "v6e:4x4"),
        ("v5p-128", 64, 16, "v5p:4x4x4"),
    ],
)
def test_slices(name, n_chips, n_hosts, topology):
    machine = tpu_slice(name)
    assert (machine.n_chips, machine.n_hosts, machine.topology) == (n_chips, n_hosts, topology)


@pytest.mark.parametrize("name", ["v5e", "v5e-7", "v9-8", "v5e:axb", ""])
def test_an_unknown_slice_is_refused(name):
    with pytest.raises(InputError, match="slice="):
        tpu_slice(name)


def test_every_stage_of_a_run_has_a_plan_or_is_named():
    ask = ask_for(dedup=DedupConfig(threshold=0.9))
    plans, skipped = plan_of(ask)
    assert [one.name for one in plans] == [
        *("embed", "dedup", "cluster", "sample", "export", "evaluate")
    ]
    assert skipped == ["report"]
    for one in plans:
        assert one.seconds > 0
        assert np.isfinite([one.cost, one.chip_bytes, one.host_bytes, one.read]).all()


def test_a_new_stage_needs_no_plan():
    assert Stage.plan(Stage, ask_for()) is None


def test_time_and_memory_scale_with_rows_and_chips():
    at = lambda chips, n: plan(ask_for(tpu_slice(f"v5e-{chips}"), n, 1024), "cluster")
    small, more_rows, more_chips = at(8, 10**6), at(8, 4 * 10**6), at(32, 4 * 10**6)
    assert 3 < more_rows.seconds / small.seconds < 5
    assert more_chips.seconds < 0.5 * more_rows.seconds
    assert 3 < more_rows.chip_bytes / small.chip_bytes < 5
    assert more_chips.chip_bytes < 0.4 * more_rows.chip_bytes


def test_what_does_not_fit_is_told_with_changes_that_fit():
    levels = (jc.Level(100_000),)
    ask = Ask(settings_of(*levels), tpu_slice("v5e-8"), 10**8, 1024)
    told = plan(ask, "cluster").advice
    assert told[0].startswith("does not fit")
    assert any(line.startswith("v5e x 64 fits") for line in told), told
    limit = [line for line in told if line.startswith("config.memory_limit=")]
    assert limit, told
    changed = int(limit[0].split("=")[1].split(" ")[0].replace(",", ""))
    settings = dataclasses.replace(ask.settings, memory_limit=changed)
    assert plan(dataclasses.replace(ask, settings=settings), "cluster").advice == ()


def test_too_many_centroids_are_told_to_be_split():
    ask = Ask(settings_of(jc.Level(500_000)), tpu_slice("v5e-64"), 10**8, 1024)
    told = plan(ask, "cluster").advice
    assert any(line.startswith("config.shard_centroids=True fits") for line in told), told


def test_a_measured_rate_is_taken():
    picture = dict(source="pictures", embed=EmbedConfig("pca"))
    ask = dataclasses.replace(ask_for(**picture), kind="picture", item_bytes=5e4, embed_rate=500.0)
    (step,) = plan(ask, "embed").steps
    assert step.seconds == 10**6 / 500
    assert step.source == "measured"


def test_pictures_wait_for_their_decoding():
    ask = dataclasses.replace(
        ask_for(embed=EmbedConfig("pca")), kind="picture", item_bytes=5e4, decode_rate=5.0
    )
    (step,) = plan(ask, "embed").steps
    assert step.limit == "decoding on hosts"
    assert step.seconds == pytest.approx(2 * 10**6 / (224 * 5))  # pca reads them twice


def test_operations_of_an_encoder_are_those_of_its_products():
    found = encoding_of(EmbedConfig("efficientnet_lite0", resolution=64), "picture")
    assert found.n_columns == 1280
    # 0.4 G products of two numbers at 224 pixels are published.
    assert found.flops * (224 / 64) ** 2 == pytest.approx(2 * 0.4e9, rel=0.35)


def test_runs_of_pretraining_are_counted():
    model = ViTConfig(image_size=16, patch_size=8, width=16, depth=1, n_heads=1)
    training = PretrainConfig(model, n_steps=10, batch_size=8)
    evaluate = EvaluateConfig(arms=("curated", "random"), n_seeds=3, pretraining=training)
    ask = ask_for(evaluate=evaluate)
    few = plan(ask, "evaluate").seconds
    twice = dataclasses.replace(evaluate, n_seeds=16)
    many = plan(ask_for(evaluate=twice), "evaluate").seconds
    assert many / few == pytest.approx(32 / 8, rel=0.01)  # six runs leave two of eight chips idle
    timed = dataclasses.replace(ask, step_seconds=0.5)
    assert plan(timed, "evaluate").seconds == 10 * 0.5


def test_dedup_without_a_threshold_takes_no_search():
    without = plan(ask_for(), "dedup")
    with_search = plan(ask_for(dedup=DedupConfig(threshold=0.9)), "dedup")
    assert [step.name for step in without.steps] == ["equal content"]
    assert with_search.seconds > without.seconds


def test_iterations_and_passes_are_those_of_a_run():
    """On a mixture as that of the counts, the expected work is that of a real fit."""
    rng = np.random.default_rng(0)
    centers = 3 * rng.normal(size=(100, 16))
    falling = 1 / np.arange(1, 101)
    groups = rng.choice(100, size=3000, p=falling / falling.sum())
    x = (centers[groups] + rng.normal(size=(3000, 16))).astype(np.float32)
    result = jc.kmeans(x, 100, init="random", devices=jc.Devices.first(1))
    fit = Fit(3000, 100, 16)
    assert 0.5 < n_iterations(fit, 50) / result.n_iter < 2
    passes = n_passes(fit, 50, 1024, 1)
    assert 0.5 < passes / result.distance_fraction.sum() < 2


def test_counted_memory_is_that_of_the_compiler():
    devices = Devices.first(2)
    ask = ask_for(this_machine(n_devices=2), n=2**16, d=128)
    fit = Fit(2**16, 1024, 128)
    made = kernels(fit.n, fit.d, fit.k, 2, 1024)
    found = max(compiled(devices, made[name]).peak for name in ("seeds", "iterations"))
    assert chip_bytes(ask, fit) == pytest.approx(found, rel=0.2)


def test_gpus_and_this_machine():
    assert gpu_box(16, "h100").n_hosts == 2
    with pytest.raises(InputError, match="gpu='b7' is not one of"):
        gpu_box(8, "b7")
    assert this_machine().n_chips >= 1


def test_command_prints_a_page_and_writes_nothing(capsys, monkeypatch, tmp_path):
    config = cli._named_config("small_2levels")
    monkeypatch.chdir(tmp_path)
    arguments = ["plan", f"--config={config}:x.npy", "--items=1e6", "--dimensions=64"]
    assert cli.main([*arguments, "--slice=v5e-8", "--compile=none", "--price=2"]) == 0
    page = capsys.readouterr().out
    assert page.startswith("1,000,000 vectors, 64 columns, on v5e x 8")
    for stage in ("embed", "dedup", "cluster", "sample", "export"):
        assert f"\n{stage} " in page
    assert cli.main([*arguments, "--gpus=8", "--json", "--config.platform=gpu"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["machine"]["n_chips"] == 8
    assert made["stages"]["cluster"]["seconds"] > 0
    assert list(tmp_path.iterdir()) == []


def test_command_counts_the_source(capsys, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((500, 8), np.float32))
    config = cli._named_config("small_2levels")
    assert cli.main(["plan", f"--config={config}:{tmp_path / 'x.npy'}"]) == 0
    assert capsys.readouterr().out.startswith("500 vectors, 8 columns, on this machine")


def test_command_counts_the_pool_of_a_work_directory(capsys, tmp_path):
    pool = jc.make_pool(np.ones((30, 5), np.float32), [f"id-{i}" for i in range(30)])
    pool.save(tmp_path / "pool")
    config = cli._named_config("small_2levels")
    assert cli.main(["plan", f"--config={config}:/nowhere.npy", f"--workdir={tmp_path}"]) == 0
    assert capsys.readouterr().out.startswith("30 vectors, 5 columns, on this machine")
    assert [entry.name for entry in tmp_path.iterdir()] == ["pool"]


@pytest.mark.parametrize(
    "flags, line",
    [
        (["--slice=v5e-9"], "slice='v5e-9' has 9 chip(s)"),
        (["--slice=v5e-8", "--gpus=8"], "--slice and --gpus are two machines"),
        (["--items=-1"], "--items=-1 must be above 0"),
        (["--efficiency=2"], "--efficiency=2 must be above 0 and at most 1"),
        (["--gpus=8", "--compile=embed"], "--compile needs --slice"),
        (["--gpus=8", "--calibrate"], "--calibrate times this machine"),
        (["--gpus=8", "--gpu=x"], "gpu='x' is not one of"),
    ],
)
def test_command_refuses_in_one_line(capsys, flags, line):
    config = cli._named_config("small_2levels")
    arguments = ["plan", f"--config={config}:x.npy", "--items=1e6", "--dimensions=64", *flags]
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err.splitlines()
    assert line in error[-1]
    assert error[-1].startswith("jaxcurate: ")


def test_command_needs_a_size(capsys):
    config = cli._named_config("small_2levels")
    assert cli.main(["plan", f"--config={config}:/nowhere.npy"]) == 2
    assert "--items=N is needed" in capsys.readouterr().err


def test_plan_compiles_nothing_on_its_own(monkeypatch):
    def refuse(*arguments, **more):
        raise AssertionError("compiled")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    assert plan(ask_for(), "cluster").seconds > 0
