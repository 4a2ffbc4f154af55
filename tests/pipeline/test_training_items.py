"""Items as models are trained on them: texts through the whole stage, and pictures read anew."""

import io
import json
from types import MappingProxyType

import numpy as np
import pytest
from PIL import Image

from jaxcurate.checks import InputError
from jaxcurate.config import ClusterConfig, Config, DedupConfig, EvaluateConfig, Level, SampleConfig
from jaxcurate.encoders import EmbedConfig
from jaxcurate.models import ViTConfig
from jaxcurate.models.bert import BertConfig
from jaxcurate.models.tokenizer import load_tokenizer
from jaxcurate.pipeline.items import Items
from jaxcurate.pipeline.run import Pipeline
from jaxcurate.pipeline.training_items import TrainingItems
from jaxcurate.runtime.progress import Progress
from jaxcurate.training import PretrainConfig
from jaxcurate.training.objectives import ObjectiveConfig

WORDS = {"food": ["bread", "apple", "soup", "salt"], "sky": ["moon", "cloud", "star", "sun"]}


def lengths(texts):
    """Embeds texts by their lengths and first letters, for tests."""
    return np.array([[len(text), ord(text[0])] for text in texts], np.float32)


def write_texts(path, n, seed):
    rng = np.random.default_rng(seed)
    with open(path, "w") as file:
        for i in range(n):
            topic = rng.choice(list(WORDS))
            text = " ".join([*rng.choice(WORDS[topic], rng.integers(3, 9)), str(i)])
            file.write(json.dumps({"id": f"{seed}-{i}", "text": text, "label": topic}) + "\n")


def config(source, held_out=MappingProxyType({}), **pretraining):
    return Config(
        source=source,
        embed=EmbedConfig(f"{__name__}:lengths"),
        dedup=DedupConfig(enabled=False),
        cluster=ClusterConfig((Level(6),)),
        sample=SampleConfig(20),
        evaluate=EvaluateConfig(
            arms=("curated", "random"),
            n_seeds=2,
            **held_out,
            pretraining=PretrainConfig(
                bert=BertConfig(vocab_size=160, n_positions=16, width=16, depth=1, n_heads=2),
                n_tokens=12,
                n_steps=4,
                batch_size=8,
                runs_per_device=1,
                **pretraining,
            ),
        ),
        n_devices=1,
    )


def test_texts_are_compared_by_masked_language_modeling(tmp_path):
    pytest.importorskip("tokenizers")
    texts = tmp_path / "texts"
    texts.mkdir()
    for seed, (split, n) in enumerate((("train", 60), ("probe", 30), ("test", 30))):
        write_texts(texts / f"{split}.jsonl", n, seed)
    held_out = {f"{split}_split": f"text:{texts}/{split}.jsonl" for split in ("probe", "test")}
    settings = config(f"text:{texts}/train.jsonl", held_out, objective=ObjectiveConfig("mlm"))
    Pipeline(settings, tmp_path / "work", Progress(quiet=True)).run(None)
    evaluation = tmp_path / "work" / "evaluation"
    results = json.loads((evaluation / "results.json").read_text())
    assert len(results["accuracies"]["curated"]["knn"]) == 2
    assert "knn" in results["differences"]["curated - random"]
    tokenize = load_tokenizer(
        evaluation / "tokenizer.json", max_length=12, pad_id=0, vocab_size=160
    )
    assert tokenize("moon soup")[0] == 101


def test_items_of_another_kind_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((9, 2), np.float32))
    write_texts(tmp_path / "x.jsonl", 9, 0)
    for source, words in (
        (f"npy:{tmp_path}/x.npy", r"has vectors, and .* config\.evaluate\.arms=\(\)"),
        (f"text:{tmp_path}/x.jsonl", r"has texts, and .*objective\.name=mlm takes these"),
    ):
        settings = config(source)
        items = TrainingItems(settings, Items(settings, Progress(quiet=True)), np.arange(9))
        with pytest.raises(InputError, match=words):
            items.pool()


def test_pictures_that_do_not_fit_into_memory_are_read_at_every_step(tmp_path):
    pytest.importorskip("grain")
    rng = np.random.default_rng(0)
    for split, n in (("pool", 24), ("probe", 12), ("test", 12)):
        for i in range(n):
            folder = tmp_path / split / f"{i % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            size = int(rng.integers(20, 60)), int(rng.integers(20, 60))
            pixels = rng.integers(0, 80, (*size, 3), np.uint8) + np.uint8(80 * (i % 3))
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "jpeg")
            (folder / f"{i}.jpg").write_bytes(buffer.getvalue())
    settings = Config(
        source=f"folder:{tmp_path}/pool",
        embed=EmbedConfig("pixels", resolution=8),
        dedup=DedupConfig(enabled=False),
        cluster=ClusterConfig((Level(4),)),
        sample=SampleConfig(12),
        evaluate=EvaluateConfig(
            arms=("curated",),
            n_seeds=2,
            probe_split=f"folder:{tmp_path}/probe",
            test_split=f"folder:{tmp_path}/test",
            parallel="batch",
            read_files=True,
            pretraining=PretrainConfig(
                ViTConfig(16, 8, 16, 1, 2), n_steps=3, batch_size=4, log_every=3
            ),
        ),
        n_devices=1,
    )
    results = []
    for work in ("one", "two"):
        Pipeline(settings, tmp_path / work, Progress(quiet=True)).run(None)
        results.append((tmp_path / work / "evaluation" / "results.json").read_text())
        losses = np.load(tmp_path / work / "evaluation" / "losses_curated.npy")
        assert losses.shape == (2, 3) and np.isfinite(losses).all()
        run = next((tmp_path / work / "evaluation").glob("curated-*"))
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert 0 <= lines[-1]["knn"] <= 1 and lines[-1]["rankme"] > 0
    found = [json.loads(text)["accuracies"] for text in results]
    assert found[0] == found[1]


def test_reading_files_needs_one_run_at_a_time():
    with pytest.raises(InputError, match="parallel='batch'"):
        EvaluateConfig(read_files=True)
