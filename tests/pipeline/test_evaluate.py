"""Stage ``evaluate``: it keeps finished runs, its arms, budgets and refusals."""

import dataclasses
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import jaxcurate as jc
from jaxcurate.artifacts.pool import Pool
from jaxcurate.checks import InputError
from jaxcurate.config import (
    ClusterConfig,
    Config,
    EvaluateConfig,
    MixConfig,
    PretrainConfig,
    SampleConfig,
    to_config,
)
from jaxcurate.encoders import EmbedConfig
from jaxcurate.evaluation import runs
from jaxcurate.pipeline import run
from jaxcurate.runtime.progress import Progress
from jaxcurate.training import ViTConfig

STAGES = ("embed", "dedup", "cluster", "sample", "evaluate")
SPLITS = {"train": 60, "probe": 40, "test": 40}
MODEL = ViTConfig(image_size=8, patch_size=4, width=8, depth=1, n_heads=1)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def write_dataset(folder, label=lambda i: i % 3, names=("cat", "dog", "owl")):
    """Writes splits of pictures whose brightness tells their label, as `save_to_disk` does."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(SPLITS)}))
    for split, n in SPLITS.items():
        labels = [label(i) for i in range(n)]
        base = np.array([90, 120, 150, 110])[[-1 if it is None else it for it in labels]]
        pixels = base[:, None, None, None] + rng.normal(0, 60, (n, 6, 7, 3))
        pictures = [png(p) for p in np.clip(pixels, 0, 255).astype(np.uint8)]
        if split == "train":
            pictures[1] = pictures[4]  # for deduplication
        struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        columns = {
            "id": [f"{split}/{i:03}" for i in range(n)],
            "image": pa.array([{"bytes": data, "path": None} for data in pictures], struct),
            "label": pa.array([None if it is None else names[it] for it in labels], pa.string()),
        }
        table = pa.table(columns)
        (folder / split).mkdir()
        path = str(folder / split / "data-00000-of-00001.arrow")
        with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
            out.write_table(table)
        state = {"_data_files": [{"filename": os.path.basename(path)}], "_split": split}
        (folder / split / "state.json").write_text(json.dumps(state))
        (folder / split / "dataset_info.json").write_text("{}")
    return folder


def settings_of(folder, **changes):
    training = PretrainConfig(model=MODEL, n_steps=3, batch_size=8, runs_per_device=2)
    evaluate = EvaluateConfig(("curated", "random", "pool"), n_seeds=2, pretraining=training)
    return Config(
        source=f"huggingface:{folder}",
        embed=EmbedConfig("pixels", resolution=8),
        cluster=ClusterConfig((jc.Level(8, 1, 3), jc.Level(3))),
        sample=SampleConfig(20),
        evaluate=dataclasses.replace(evaluate, **changes),
        n_devices=1,
    )


class Lines(Progress):
    def __init__(self):
        super().__init__(quiet=True)
        self.lines = []

    def line(self, text):
        self.lines.append(text)


def carry_out(settings, work, stages=STAGES):
    """Runs stages; returns the files of the evaluation and the lines that were told."""
    progress = Lines()
    run.Pipeline(settings, work, progress).run(stages)
    folder = work / "evaluation"
    return {file.name: file.read_bytes() for file in folder.iterdir()}, progress.lines


def without_times(files):
    """Returns the files that must be the same at every repetition."""
    lines = [json.loads(line) for line in files["runs.jsonl"].splitlines()]
    for line in lines:
        line.pop("seconds")
    kept = {name: data for name, data in files.items() if name not in ("runs.jsonl", "card.json")}
    return kept, lines


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    return carry_out(settings_of(data), tmp_path_factory.mktemp("work") / "work")


def test_the_folder_has_every_raw_figure(whole):
    files, told = whole
    assert set(files) == {
        *("card.json", "results.json", "runs.jsonl"),
        *("losses_curated.npy", "losses_random.npy", "losses_pool.npy"),
    }
    results = json.loads(files["results.json"])
    lines = [json.loads(line) for line in files["runs.jsonl"].splitlines()]
    assert [(line["arm"], line["seed"]) for line in lines] == [
        (arm, seed) for arm in ("curated", "random", "pool", "untrained") for seed in (0, 1)
    ]
    for line in lines:
        for measure, value in line["measures"].items():
            assert results["accuracies"][line["arm"]][measure][line["seed"]] == value
    assert results["budget"] == "steps"
    assert results["arms"]["pool"] == {"rows": 60, "steps": 3, "images": 24, "epochs": 0.4}
    n_overall = results["comparisons"]["overall"]
    assert n_overall == 6 * 2  # pairs of three arms and the untrained one, by two probes
    assert any(f"Holm's correction for {n_overall} comparison(s): " in line for line in told)
    difference = results["differences"]["curated - random"]["knn"]
    assert difference["p_holm"] >= difference["p"] >= 0


def test_a_pool_in_parts_gives_the_same_figures(data, whole, tmp_path):
    embed = EmbedConfig("pixels", resolution=8, part_bytes=4 * 192 * 25)
    settings = dataclasses.replace(settings_of(data), embed=embed)
    files, _ = carry_out(settings, tmp_path / "work")
    assert Pool.load(tmp_path / "work/pool").embeddings.sizes == [25, 25, 10]
    assert without_times(files) == without_times(whole[0])


class StopError(Exception):
    pass


@pytest.mark.parametrize("n_groups", [0, 1, 3])
def test_an_interrupted_evaluation_goes_on_to_the_same_bits(
    data, whole, tmp_path, monkeypatch, n_groups
):
    work, calls, made = tmp_path / "work", [], runs.pretrain_group

    def counted(pictures, group, *arguments, **options):
        calls.append(len(group))
        if len(calls) > n_groups and not resumed:
            raise StopError
        return made(pictures, group, *arguments, **options)

    resumed = False
    monkeypatch.setattr(runs, "pretrain_group", counted)
    with pytest.raises(StopError):
        carry_out(settings_of(data), work)
    parts = work / "evaluation.parts"
    assert len(list(parts.glob("[0-9]*"))) == n_groups and not (work / "evaluation").exists()
    resumed, calls[:] = True, []
    files, told = carry_out(settings_of(data), work)
    assert without_times(files) == without_times(whole[0])
    assert len(calls) == 4 - n_groups
    assert not parts.exists() and not list(work.rglob(".*"))
    continued = f"continuing after {2 * n_groups} of 8 runs"
    assert any(continued in line for line in told) == (n_groups > 0)


def test_finished_runs_of_other_settings_are_not_used(data, whole, tmp_path, monkeypatch):
    work, calls, made = tmp_path / "work", [], runs.pretrain_group

    def stop(pictures, group, *arguments, **options):
        calls.append(len(group))
        if len(calls) == 3:
            raise StopError
        return made(pictures, group, *arguments, **options)

    monkeypatch.setattr(runs, "pretrain_group", stop)
    with pytest.raises(StopError):
        carry_out(settings_of(data, n_seeds=1), work)
    calls[:] = [0] * 9
    files, told = carry_out(settings_of(data), work)
    assert len(calls) == 9 + 4
    assert without_times(files) == without_times(whole[0])
    assert not any("continuing" in line for line in told)
    assert not (work / "evaluation.parts").exists()


def test_a_damaged_part_is_made_again_or_named(data, whole, tmp_path, monkeypatch):
    work, calls, made = tmp_path / "work", [], runs.pretrain_group

    def stop(pictures, group, *arguments, **options):
        calls.append(len(group))
        if len(calls) == 4:
            raise StopError
        return made(pictures, group, *arguments, **options)

    monkeypatch.setattr(runs, "pretrain_group", stop)
    with pytest.raises(StopError):
        carry_out(settings_of(data), work)
    file = work / "evaluation.parts/000001/runs.jsonl"
    text = file.read_text()
    file.write_text(text.replace("curated", "kurated"))
    with pytest.raises(InputError, match=r"000001/runs.jsonl is damaged"):
        carry_out(settings_of(data), work)
    file.write_text(text[:-5])
    files, _ = carry_out(settings_of(data), work)
    assert without_times(files) == without_times(whole[0])
    assert len(calls) == 4 + 3


def test_further_arms(data, tmp_path):
    pq.write_table(pa.table({"id": [f"train/{i:03}" for i in range(9)]}), tmp_path / "few.parquet")
    settings = settings_of(
        data,
        arms=("curated", "deduplicated", "flat_plain", "mixed"),
        mix=MixConfig(curated=0.5, retrieved=0.25, raw=0.25, references=f"huggingface:{data}"),
        manifests=(f"few={tmp_path}/few.parquet",),
        n_seeds=1,
        budget="epochs",
        probes=("knn", "rankme"),
        per_class=True,
        extra_tests=(f"again=huggingface:{data}",),
    )
    files, told = carry_out(settings, tmp_path / "work")
    results = json.loads(files["results.json"])
    arms = ["curated", "deduplicated", "flat_plain", "mixed", "few"]
    assert list(results["arms"]) == arms and list(results["accuracies"]) == [*arms, "untrained"]
    assert {arm: facts["rows"] for arm, facts in results["arms"].items()} == {
        **dict.fromkeys(arms, 20),
        "few": 9,
    }
    measures = {"knn", "knn/micro", "knn/class/cat", "rankme", "knn@again", "rankme@again"}
    assert measures <= set(results["accuracies"]["few"])
    assert not any(name.startswith("ridge") for name in results["accuracies"]["few"])
    assert results["arms"]["few"]["steps"] == 1 and results["arms"]["mixed"]["steps"] == 3
    assert np.load(io.BytesIO(files["losses_few.npy"])).shape == (1, 1)
    assert any("equal epochs, not steps: curated 3" in line and "few 1" in line for line in told)
    assert set(results["balance"]["label"]) == {*arms, "random", "pool"}
    assert run.Pipeline(settings, tmp_path / "work", Lines()).status()[-2].state == "done"
    pq.write_table(pa.table({"id": [f"train/{i:03}" for i in range(5)]}), tmp_path / "few.parquet")
    assert run.Pipeline(settings, tmp_path / "work", Lines()).status()[-2].state == "out of date"
    run.Pipeline(settings, tmp_path / "work", Lines()).run(["report"])
    page = (tmp_path / "work/report.html").read_text()
    assert "equal epochs" in page and f"the subset of {tmp_path}/few.parquet" in page


def test_an_arm_of_fewer_rows_than_a_batch_is_told(data, tmp_path):
    training = PretrainConfig(model=MODEL, n_steps=1, batch_size=32, runs_per_device=2)
    settings = settings_of(data, arms=("curated",), n_seeds=1, pretraining=training)
    _, told = carry_out(settings, tmp_path / "work")
    assert any("arm curated has 20 rows, so that a batch of 32 repeats" in line for line in told)


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (lambda i: None, "none of 40 to fit probes to has a label; config.label_key"),
        (lambda i: 1, "have the label 'dog', and probes need two"),
    ],
)
def test_held_out_items_without_two_labels_are_refused(tmp_path, label, words):
    folder = write_dataset(tmp_path / "set", label)
    with pytest.raises(InputError, match=words):
        carry_out(settings_of(folder), tmp_path / "work")
    assert not (tmp_path / "work/evaluation.parts").exists()
    without = settings_of(folder, arms=())
    files, _ = carry_out(without, tmp_path / "work")
    assert set(files) == {"card.json", "results.json"}


def test_held_out_items_without_a_label_are_left_out(tmp_path):
    folder = write_dataset(tmp_path / "set", lambda i: None if i % 4 == 0 else i % 3)
    files, told = carry_out(settings_of(folder, n_seeds=1), tmp_path / "work")
    assert sum("10 of 40" in line and "have no label" in line for line in told) == 2
    assert "accuracies" in json.loads(files["results.json"])


def test_missing_manifests_are_told_before_anything_is_written(data, tmp_path):
    settings = settings_of(data, manifests=("few=/nowhere/few.parquet",))
    with pytest.raises(InputError, match=r"no manifest /nowhere/few\.parquet"):
        carry_out(settings, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_batches_over_all_devices_go_on_within_a_run(data, tmp_path):
    """The run is interrupted after its checkpoint, and only the steps after that are repeated."""
    training = PretrainConfig(model=MODEL, n_steps=6, batch_size=8, checkpoint_steps=2)
    settings = settings_of(
        data, arms=("curated",), n_seeds=1, parallel="batch", pretraining=training
    )

    class Stopping(Lines):
        def __init__(self, at):
            super().__init__()
            self.at, self.steps = at, []

        def __call__(self, task, done, total):
            if task == "pretraining steps":
                self.steps.append(done)
                if done == self.at:
                    raise StopError

    uninterrupted, stopped, resumed = Stopping(None), Stopping(5), Stopping(None)
    run.Pipeline(settings, tmp_path / "whole", uninterrupted).run(STAGES)
    with pytest.raises(StopError):
        run.Pipeline(settings, tmp_path / "work", stopped).run(STAGES)
    assert uninterrupted.steps == list(range(1, 7)) and stopped.steps == list(range(1, 6))
    work = tmp_path / "work"
    (comparison,) = (work / "evaluation.training").iterdir()
    assert [place.name for place in comparison.iterdir()] == ["curated-0"]
    run.Pipeline(settings, work, resumed).run(STAGES)
    assert resumed.steps == [5, 6]
    of = lambda name: {
        str(file.relative_to(tmp_path / name)): file.read_bytes()
        for file in (tmp_path / name / "evaluation").rglob("*")
        if file.is_file() and file.name not in ("card.json", "runs.jsonl", "metrics.jsonl")
    }
    assert of("work") == of("whole")
    assert "evaluation/curated-0/encoder/last/model.safetensors" in of("work")
    assert not (work / "evaluation.training").exists()
    assert not (work / "evaluation.parts").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parallel", "n_kills", "arms", "n_seeds"),
    [("runs", 10, ("curated", "random", "pool"), 2), ("batch", 4, ("curated",), 1)],
)
def test_kills_at_random_moments_lose_one_group_at_most(
    data, tmp_path, parallel, n_kills, arms, n_seeds
):
    config, whole, work = tmp_path / "config.py", tmp_path / "whole", tmp_path / "work"
    fields = to_config(settings_of(data, parallel=parallel, arms=arms, n_seeds=n_seeds))
    fields.evaluate.pretraining.n_steps = 600
    fields.evaluate.pretraining.checkpoint_steps = 100
    config.write_text(
        "from ml_collections import ConfigDict\n"
        "import json\n"
        f"def get_config():\n    return ConfigDict(json.loads({fields.to_json()!r}))\n"
    )

    def start(command, place):
        words = ["-m", "jaxcurate", command, f"--config={config}", f"--workdir={place}"]
        with open(tmp_path / "log.txt", "w") as log:
            return subprocess.Popen([sys.executable, *words], stdout=log, stderr=log)

    def ended(process):
        assert process.wait() == 0, (tmp_path / "log.txt").read_text()

    def results(place):
        files = (place / "evaluation").iterdir()
        return without_times({file.name: file.read_bytes() for file in files if file.is_file()})

    ended(start("run", whole))
    shutil.copytree(whole, work)
    shutil.rmtree(work / "evaluation")
    begun = time.monotonic()
    ended(start("evaluate", work))
    seconds = time.monotonic() - begun
    assert results(work) == results(whole)
    shutil.rmtree(work / "evaluation")
    rng, n_killed, n_parts = random.Random(0), 0, 0
    while n_killed < n_kills:
        process = start("evaluate", work)
        try:
            process.wait(rng.uniform(0.2, 1) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            n_killed += 1
            before = n_parts
            n_parts = len(list((work / "evaluation.parts").glob("[0-9]*/card.json")))
            assert n_parts >= before or (work / "evaluation").exists()  # nothing finished is lost
        else:
            ended(process)
            assert results(work) == results(whole)
            shutil.rmtree(work / "evaluation")
            n_parts = 0
    ended(start("evaluate", work))
    assert results(work) == results(whole)
    for name in ("evaluation.parts", "evaluation.training"):
        assert not (work / name).exists()
