"""A tiny real run of the evidence, its measures before training, and the parts."""

import io
import json
import shutil

import numpy as np
import parts
import pools
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import run
from PIL import Image

import jaxcurate as jc
from jaxcurate.config import (
    ClusterConfig,
    Config,
    DedupConfig,
    EmbedConfig,
    EvaluateConfig,
    PretrainConfig,
    SampleConfig,
)
from jaxcurate.models.vit_config import ViTConfig
from jaxcurate.runtime.progress import Progress

N = {"pool": 60, "probe": 40, "test": 40}
ABOUT = run.Labels("tiny", "primary", "scripts/evidence/run.py", False, "small")


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Settings of 60 pictures, of which the first twenty are copies of one."""
    folder, rng = tmp_path_factory.mktemp("inputs"), np.random.default_rng(0)
    for split, n in N.items():
        labels = np.arange(n) % 3
        pixels = 60 + 70 * labels[:, None, None, None] + rng.integers(0, 60, (n, 8, 8, 3))
        if split == "pool":
            labels[:20], pixels[:20] = 0, pixels[0]
            pixels[:20, 0, 0, 0] = np.arange(20)  # near-duplicates, not equal
        table = {
            "id": [f"{split}/{i}" for i in range(n)],
            "image": pa.array([png(p) for p in pixels.astype(np.uint8)], pa.binary()),
            "label": labels.astype(str),
            "domain": np.where(labels == 2, "b", "a"),
        }
        pq.write_table(pa.table(table), folder / f"{split}.parquet")
    model = ViTConfig(image_size=8, patch_size=4, width=8, depth=1, n_heads=1)
    training = PretrainConfig(model=model, n_steps=3, batch_size=8)
    probe, test = (f"parquet:{folder}/{split}.parquet" for split in ("probe", "test"))
    return Config(
        source=f"parquet:{folder}/pool.parquet",
        embed=EmbedConfig("pixels", resolution=8),
        dedup=DedupConfig(enabled=False),
        cluster=ClusterConfig((jc.Level(20), jc.Level(4))),
        sample=SampleConfig(1),
        evaluate=EvaluateConfig(probe_split=probe, test_split=test, pretraining=training),
        n_devices=1,
    )


@pytest.fixture(scope="module")
def done(settings, tmp_path_factory):
    """Work folder, file of lines, and the function that runs the part once more."""
    path = tmp_path_factory.mktemp("evidence")
    plan = pools.Plan(lambda place: settings, lambda its: 60, near=0.99)
    place = pools.Place(path, path / "inputs")
    job = {"work": path / "work", "out": path / "tiny.jsonl", "progress": Progress(quiet=True)}
    arms = "curated", "random", "deduplicated"

    def carry_out(**more):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parts, "BLOCK", 2)
            patch.setattr(run, "KEEP_RATE", 0.5)
            few = lambda job, first: parts.compared(job, first, *arms)
            patch.setitem(parts.PARTS, "primary", few)
            run.run_part(plan, ABOUT, place, **job, **more)

    carry_out()
    return path, job["out"], carry_out


def lines_by_key(file):
    return {
        (line["variant"], line["arm"], line["seed"]): line
        for line in map(json.loads, file.read_text().splitlines())
    }


def test_a_tiny_run_writes_a_line_for_every_run(done):
    _, file, again = done
    lines = lines_by_key(file)
    expected = {
        (variant, arm, seed)
        for variant, arms in (
            ("main-200", ("curated", "random", "untrained")),
            ("main-deduplicated-200", ("deduplicated", "untrained")),
        )
        for arm in arms
        for seed in (200, 201)
    }
    assert set(lines) == expected
    curated = lines["main-200", "curated", 200]
    assert (curated["size"], curated["n_pool"], curated["steps"]) == (30, 60, 3)
    assert 0 <= curated["probes"]["knn"] <= 1 and "knn/tail" in curated["probes"]
    assert curated["protocol"] == run.protocol_digest()
    assert set(curated["versions"]) == {"jaxcurate", "jax", "flax", "optax", "numpy", "python"}
    # Trained alike, so that untrained encoders of both variants have the same figures.
    untrained = [lines[name, "untrained", 201] for name in ("main-200", "main-deduplicated-200")]
    assert untrained[0]["probes"] == untrained[1]["probes"]
    before = file.read_bytes()
    again()  # nothing is done twice
    assert file.read_bytes() == before


def test_finished_runs_of_an_unfinished_evaluation_are_written(done):
    path, file, again = done
    before, work = lines_by_key(file), path / "work" / "primary" / "main-200"
    records = (work / "evaluation" / "runs.jsonl").read_text().splitlines()
    hidden = work / "hidden"
    (work / "evaluation").rename(hidden)
    part = work / "evaluation.parts" / "000000"
    part.mkdir(parents=True)
    first = [text for text in records if json.loads(text)["seed"] == 200]
    (part / "runs.jsonl").write_text("".join(f"{text}\n" for text in first))
    try:
        again(finished=True)
    finally:
        shutil.rmtree(part.parent)
        hidden.rename(work / "evaluation")
    found = lines_by_key(file)
    wanted = {key for key in before if key[0] != "main-200" or key[2] == 200}
    assert found == {key: before[key] for key in wanted}
    again()
    assert lines_by_key(file) == before


def test_variants_whose_lines_are_whole_are_not_trained_again(done):
    path, file, again = done
    before = file.read_text().splitlines()
    apart = [text for text in before if json.loads(text)["arm"] == "deduplicated"]
    work = path / "work"
    hidden = work.rename(path / "hidden")  # as on another machine
    try:
        file.write_text("".join(f"{text}\n" for text in before if text not in apart))
        again(missing=True)
        main = work / "primary" / "main-200"
        assert (main / "tree").exists() and not (main / "evaluation").exists()
    finally:
        shutil.rmtree(work)
        hidden.rename(work)
    made = lines_by_key(file)
    for text in before:
        line = json.loads(text)
        of = made[line["variant"], line["arm"], line["seed"]]
        assert of | {"seconds": 0} == line | {"seconds": 0}


def test_measures_before_training_are_those_of_brute_force(done, settings):
    path, file, _ = done
    lines = lines_by_key(file)
    work = path / "work" / "primary" / "main-200"
    x = np.load(work / "pool" / "embeddings.npy").astype(np.float64)
    rows = np.load(work / "subsets" / "curated" / "indices.npy")
    with np.load(next((path / "work").glob("pool-*")) / "probe.npz") as saved:
        held_out, labels, domains = (saved[name] for name in ("embeddings", "labels", "domains"))
    nearest = np.linalg.norm(held_out[:, None] - x[rows][None], axis=2).min(1)
    means = {label: nearest[labels == label].mean() for label in "012"}
    macro = ((means["0"] + means["1"]) / 2 + means["2"]) / 2
    assert set(domains[labels == "2"]) == {"b"}
    before = lines["main-200", "curated", 200]["before"]
    np.testing.assert_allclose(before["held_out_distance"], macro, rtol=1e-4)
    unit = x[rows] / np.linalg.norm(x[rows], axis=1, keepdims=True)
    cosine = unit @ unit.T - 2 * np.eye(len(rows))
    np.testing.assert_allclose(before["near_duplicates"], np.mean(cosine.max(1) >= 0.99), atol=1e-5)
    shares = np.bincount(np.arange(60)[rows] % 3 * (rows >= 20), minlength=3) / len(rows)
    entropy = -sum(p * np.log(p) for p in shares if p) / np.log(3)
    np.testing.assert_allclose(before["label_entropy"], entropy, atol=1e-5)
    # Twenty near-duplicates are one row where they are removed.
    of = {arm: lines[key]["before"] for key in lines for arm in [key[1]] if lines[key]["before"]}
    assert of["deduplicated"]["near_duplicates"] < of["random"]["near_duplicates"]
    assert of["deduplicated"]["domain_entropy"] > of["random"]["domain_entropy"]


def test_lines_replace_those_of_the_same_variant_alone(tmp_path):
    file = tmp_path / "results" / "tiny.jsonl"
    line = {**ABOUT._asdict(), "variant": "main-200", "arm": "curated", "seed": 200, "probes": {}}
    other = line | {"variant": "main-204", "seed": 204}
    explored = line | {"exploratory": True}
    run.replace_lines(file, [other, line, line | {"seed": 201}])
    run.replace_lines(file, [explored])
    run.replace_lines(file, [line | {"probes": {"knn": 0.5}}])
    found = run.read_lines(file)
    assert found == [line | {"probes": {"knn": 0.5}}, other, explored]
    assert [path.name for path in file.parent.iterdir()] == ["tiny.jsonl"]


@pytest.mark.slow
def test_rounds_curate_by_what_was_trained_before(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "BLOCK", 1)
    monkeypatch.setattr(run, "KEEP_RATE", 0.5)
    plan = pools.Plan(lambda place: settings, lambda its: 60)
    place = pools.Place(tmp_path, tmp_path / "inputs")
    about = ABOUT._replace(part="rounds")
    job = {"work": tmp_path / "work", "out": tmp_path / "tiny.jsonl"}
    run.run_part(plan, about, place, **job, progress=Progress(quiet=True))
    lines = lines_by_key(job["out"])
    arms = {variant: [key[1] for key in lines if key[0] == variant] for variant, *_ in lines}
    assert arms == {
        "round0-200": ["curated by pixels", "pool", "random", "untrained"],
        "round1-200": ["curated by round 1", "untrained"],
        "round2-200": ["curated by round 2", "untrained"],
    }
    x = [
        np.load(tmp_path / "work" / "rounds" / f"round{i}-200" / "pool" / "embeddings.npy")
        for i in range(3)
    ]
    assert x[0].shape[1] == 192 and x[1].shape == x[2].shape == (60, 8)
    assert not np.allclose(x[1], x[2])


@pytest.mark.parametrize("part", parts.PARTS)
@pytest.mark.parametrize("near", [None, 0.99])
def test_every_part_has_runs_whose_settings_are_valid(settings, part, near):
    settings = parts.changed(
        settings, dedup__enabled=near is None, cluster__levels=(jc.Level(20), jc.Level(4))
    )
    variants = parts.PARTS[part](parts.Job(settings, 1000, near, 0.03), 200)
    names = [variant.name for variant in variants]
    assert len(set(names)) == len(names)
    arms = {name for variant in variants for name in variant.arms.values()}
    assert any(arm.startswith(("curated", "1 level")) for arm in arms)
    for place, variant in enumerate(variants):
        assert set(variant.arms) == set(variant.settings.evaluate.arms)
        assert variant.measured_on in names[: place + 1]
        assert variant.settings.sample.size == round(variant.keep * 1000)
    if part == "primary":
        assert arms == {"curated", "random", "flat", "pool", "deduplicated"}
        seeds = {variant.settings.seed + i for variant in variants for i in range(parts.BLOCK)}
        assert seeds == set(range(200, 208))


def test_texts_of_a_group_are_on_one_side():
    texts = [f"tool {i // 3} - {'data' if i % 3 else 'program'}" for i in range(3000)]
    sections = ["net" if i // 3 % 2 else "games" for i in range(3000)]
    sides = []
    for exploratory in (False, True):
        made = pools.split_texts(texts, sections, exploratory=exploratory, n_pool=200)
        groups = [{pools.group_of(texts[row]) for row in rows} for rows in made]
        assert len(made[0]) == 200 and len(made[1]) == len(made[2]) == 80
        assert not any(groups[a] & groups[b] for a, b in ((0, 1), (0, 2), (1, 2)))
        sides.append(set().union(*groups))
    assert not sides[0] & sides[1]


def test_held_out_characters_are_the_same_on_both_sides_and_differ_in_development():
    labels = np.array([f"U+{i % 200:04X}" for i in range(1000)])
    halves = [pools.half_of_labels([labels, labels[:150]], second=second) for second in (0, 1)]
    assert halves[0] | halves[1] == set(labels[:150].tolist()) and not halves[0] & halves[1]
    rows = pools.few(labels, halves[1], 100)
    assert len(rows) <= 100 and set(labels[rows]) <= halves[1]
    counts = {label: np.sum(labels == label) for label in set(labels[rows])}
    assert sum(counts.values()) == len(rows)  # all rows of a label
