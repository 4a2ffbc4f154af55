"""Comparison of arms: order of the runs, budgets, and what an interruption leaves."""

import json
import re

import numpy as np
import pytest

from jaxcurate.checks import InputError
from jaxcurate.evaluation import compare, runs, summary
from jaxcurate.evaluation.compare import HeldOut, Probing
from jaxcurate.evaluation.runs import Record, groups_of, jobs_of
from jaxcurate.runtime.devices import ONE_DEVICE
from jaxcurate.training import PretrainConfig, Run, ViTConfig

MODEL = ViTConfig(image_size=8, patch_size=4, width=8, depth=1, n_heads=1)
SETTINGS = PretrainConfig(model=MODEL, n_steps=3, batch_size=8, runs_per_device=2)


def held_out(n, seed, labels=("dark", "bright")):
    rng = np.random.default_rng(seed)
    names = np.array(labels)[rng.integers(0, len(labels), n)]
    base = np.where(names == "dark", 118, 134)[:, None, None, None]
    images = np.clip(base + rng.normal(0, 60, (n, 8, 8, 3)), 0, 255).astype(np.uint8)
    return HeldOut(images, names, np.array(["", ""])[rng.integers(0, 2, n)])


POOL, PROBING = held_out(60, 0), Probing(held_out(40, 1), held_out(40, 2), {})
ARMS = {
    "curated": [Run(np.arange(0, 60, 2), seed) for seed in (0, 1)],
    "random": [Run(np.arange(1, 60, 2), seed) for seed in (0, 1)],
    "pool": [Run(np.arange(60), seed) for seed in (0, 1)],
}


def compared(arms=ARMS, devices=ONE_DEVICE, **options):
    return compare.compare(POOL.items, arms, PROBING, SETTINGS, devices=devices, **options)


@pytest.fixture(scope="module")
def whole():
    return compared()


def results(comparison):
    """Everything that must not depend on interruptions, as text."""
    losses = {arm: curve.tobytes().hex() for arm, curve in comparison.losses.items()}
    return json.dumps([summary.to_plain(comparison), losses])


def test_seeds_follow_each_other_and_groups_have_equal_steps():
    jobs = jobs_of(ARMS, {"curated": 3, "random": 3, "pool": 9})
    names = [f"{job.arm}{job.run.seed}" for job in jobs]
    assert names == [
        *("untrained0", "untrained1", "curated0", "random0", "pool0"),
        *("curated1", "random1", "pool1"),
    ]
    groups = groups_of(jobs, 2)
    assert [[f"{job.arm}{job.run.seed}" for job in group] for group in groups] == [
        ["untrained0", "untrained1"],
        ["curated0", "random0"],
        ["pool0", "pool1"],
        ["curated1", "random1"],
    ]


class StopError(Exception):
    pass


@pytest.mark.parametrize("n_groups", [0, 1, 2, 3])
def test_an_interrupted_comparison_goes_on_to_the_same_bits(whole, n_groups, monkeypatch):
    calls, made = [], runs.pretrain_group

    def counted(pictures, group, *arguments, **options):
        calls.append([run.seed for run in group])
        return made(pictures, group, *arguments, **options)

    monkeypatch.setattr(runs, "pretrain_group", counted)
    finished = []

    def stop(records):
        if len(calls) > n_groups:
            raise StopError
        finished.extend(Record.from_line(record.line, record.losses) for record in records)

    with pytest.raises(StopError):
        compared(on_group=stop)
    assert len(calls) == n_groups + 1
    calls.clear()
    again = compared(finished=finished)
    assert results(again) == results(whole)
    assert len(calls) == 4 - n_groups  # untrained, and three groups of two
    calls.clear()
    assert results(compared(finished=again.records)) == results(whole)
    assert calls == []


def test_the_accuracies_differ(whole):
    for arm in whole.accuracies.values():
        assert all(0.3 < value < 1 for values in arm.values() for value in values)
    assert len({value for arm in whole.accuracies.values() for value in arm["ridge"]}) > 2


def test_a_finished_seed_has_all_arms(whole):
    order = []
    compared(on_group=lambda records: order.extend(record.key for record in records))
    trained = [key for key in order if key[0] != "untrained"]
    assert [seed for _, seed in trained] == [0, 0, 0, 1, 1, 1]


def test_other_arms_do_not_show(whole):
    few = compared({"pool": ARMS["pool"], "curated": ARMS["curated"]})
    assert few.accuracies["curated"] == whole.accuracies["curated"]
    np.testing.assert_array_equal(few.losses["pool"], whole.losses["pool"])


def test_arms_may_make_other_numbers_of_steps(whole):
    steps = {"curated": 3, "random": 3, "pool": 6}
    longer = compared(n_steps=steps)
    assert {arm: curve.shape for arm, curve in longer.losses.items()} == {
        "curated": (2, 3),
        "random": (2, 3),
        "pool": (2, 6),
    }
    np.testing.assert_array_equal(longer.losses["curated"], whole.losses["curated"])
    assert longer.accuracies["random"] == whole.accuracies["random"]
    assert {record.arm: record.about["steps"] for record in longer.records} == {
        **steps,
        "untrained": 0,
    }
    # The warmup is a fraction of the steps, so that the first steps differ as well.
    assert (longer.losses["pool"][:, :3] != whole.losses["pool"]).any()


def test_a_record_comes_back_from_its_line_with_the_same_bits(whole):
    for record in whole.records:
        again = Record.from_line(record.line, record.losses)
        assert again == record and again.measures == record.measures
        assert json.loads(record.line)["objective"] == "simclr"
        assert {"batch", "seconds", "device", "versions"} <= set(record.about)


def test_a_loss_that_is_not_finite_names_arm_and_seed():
    wild = PretrainConfig(model=MODEL, n_steps=8, batch_size=8, learning_rate=1e30)
    words = r"arm 'curated', seed 0: the loss is not finite at step \d+ \(rows [\d, ]+\); try"
    with pytest.raises(InputError, match=words) as caught:
        compare.compare(POOL.items, ARMS, PROBING, wild, devices=ONE_DEVICE)
    rows = re.findall(r"\d+", str(caught.value).partition("(rows ")[2].partition(")")[0])
    assert len(rows) == 8 and {int(row) % 2 for row in rows} == {0}  # rows of this arm
