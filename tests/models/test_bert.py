"""BERT against outputs of transformers, and strict loading from the published layout."""

import json
from pathlib import Path

import bert_files
import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from jaxcurate.checks import InputError
from jaxcurate.models import BertConfig, load_bert
from jaxcurate.models.bert import abstract_bert, pool
from jaxcurate.models.bert_checkpoint import expected_shapes, published_name, save_bert

GOLDEN = Path(__file__).parents[1] / "data" / "bert.npz"


@pytest.fixture
def folder(tmp_path):
    bert_files.write_folder(tmp_path / "model")
    return tmp_path / "model"


def states(folder: Path, ids: np.ndarray, precision="float32") -> np.ndarray:
    graph, params = nnx.split(load_bert(folder, precision))
    return np.asarray(jax.jit(lambda p, x: nnx.merge(graph, p)(x))(params, ids))


def rewrite(folder: Path, change) -> None:
    """Writes the tensors of the folder anew as ``change`` returns them."""
    save_file(change(bert_files.tensors(bert_files.PUBLISHED)), folder / "model.safetensors")


@pytest.mark.parametrize("name", bert_files.VARIANTS)
def test_tokens_are_those_of_transformers(name, tmp_path):
    # Recorded by scripts/parity_bert.py in float64, for the weights that the same seed draws here.
    changes = bert_files.VARIANTS[name]
    bert_files.write_folder(tmp_path / "model", **changes)
    ids = bert_files.ids(bert_files.PUBLISHED | changes)
    used = np.arange(ids.shape[1])[None] < np.array(bert_files.LENGTHS)[:, None]
    expected = np.load(GOLDEN)[name]
    actual = states(tmp_path / "model", ids)[used]
    assert actual.dtype == np.float32 and expected.std() > 0.5
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_tokens_do_not_depend_on_padding_or_on_other_texts(folder):
    ids = bert_files.ids(bert_files.PUBLISHED)
    together = states(folder, np.pad(ids, ((0, 1), (0, 5))))
    assert np.isfinite(together).all()  # also those of the text that is all padding
    for row, length in enumerate(bert_files.LENGTHS):
        alone = states(folder, ids[row : row + 1, :length])
        np.testing.assert_allclose(together[row, :length], alone[0], atol=1e-5)


def test_bfloat16_is_near_float32(folder):
    ids = bert_files.ids(bert_files.PUBLISHED)
    exact, rough = states(folder, ids), states(folder, ids, "bfloat16")
    assert rough.dtype == np.float32 and not np.array_equal(exact, rough)
    cosine = (exact * rough).sum(-1) / np.linalg.norm(exact, axis=-1)
    assert (cosine / np.linalg.norm(rough, axis=-1))[0].min() > 0.999


def test_every_product_names_full_precision(folder):
    # A CPU cannot show what is lost where float32 products default to TF32 or bfloat16.
    graph, params = nnx.split(load_bert(folder))
    run = jax.jit(lambda p, x: nnx.merge(graph, p)(x))
    program = run.lower(params, bert_files.ids(bert_files.PUBLISHED)).as_text()
    products = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
    assert len(products) == 6 * 2
    assert all(line.count("HIGHEST") == 2 for line in products)


def test_a_saved_model_is_the_one_that_was_published(folder, tmp_path):
    save_bert(load_bert(folder), tmp_path / "saved")
    again = load_bert(tmp_path / "saved")
    assert again.config == load_bert(folder).config
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    published = load_file(folder / "model.safetensors")
    assert sorted(saved) == sorted(map(published_name, published))
    for name, tensor in published.items():
        np.testing.assert_array_equal(saved[published_name(name)], tensor)


def test_too_many_tokens_are_refused():
    model = abstract_bert(BertConfig(n_positions=4))
    with pytest.raises(InputError, match="5 tokens in a text, but n_positions=4"):
        nnx.eval_shape(lambda m, x: m(x), model, jax.ShapeDtypeStruct((1, 5), np.int32))


def test_pooling_leaves_padding_out():
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(3, 4, 2)).astype(np.float32)
    used = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], bool)
    mean = pool(tokens, used, "mean")
    expected = [tokens[0].mean(0), tokens[1, :2].mean(0), [0, 0]]
    np.testing.assert_allclose(mean, np.stack(expected), atol=1e-6)
    np.testing.assert_array_equal(pool(tokens, used, "cls"), tokens[:, 0])


def test_the_loader_expects_the_tensors_that_are_published(folder):
    config = load_bert(folder).config
    drawn = bert_files.tensors(bert_files.PUBLISHED)
    assert expected_shapes(config) == {name: x.shape for name, x in drawn.items()}


def old_name(name: str) -> str:
    for new, old in (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")):
        name = name.replace(new, old)
    return f"bert.{name}"


def with_task(tensors):
    extra = {"cls.predictions.bias": np.zeros(40, np.float32)}
    extra["bert.pooler.dense.bias"] = np.zeros(32, np.float32)
    extra["bert.embeddings.position_ids"] = np.arange(16)[None]
    return {f"bert.{name}": x for name, x in tensors.items()} | extra


@pytest.mark.parametrize(
    "change",
    [with_task, lambda tensors: {old_name(name): x for name, x in tensors.items()}],
    ids=["task", "oldest"],
)
def test_other_published_names_load_the_same(folder, change):
    ids = bert_files.ids(bert_files.PUBLISHED)
    before = states(folder, ids)
    rewrite(folder, change)
    np.testing.assert_array_equal(states(folder, ids), before)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_load_as_float32(folder, dtype):
    rewrite(folder, lambda tensors: {name: x.astype(dtype) for name, x in tensors.items()})
    model = load_bert(folder)
    drawn = bert_files.tensors(bert_files.PUBLISHED)["embeddings.word_embeddings.weight"]
    assert model.words.embedding.dtype == np.float32
    np.testing.assert_array_equal(model.words.embedding, drawn.astype(dtype).astype(np.float32))


def without(name):
    return lambda tensors: {key: x for key, x in tensors.items() if not key.startswith(name)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without("encoder.layer.1.output.dense.bias"),
            r"1 tensor\(s\) missing: encoder.layer.1.ou",
        ),
        (
            without("encoder.layer.1."),
            r"16 tensor\(s\) missing: encoder.layer.1.attention.self.que",
        ),
        (without("embeddings.token_type"), "missing: embeddings.token_type_embeddings.weight"),
        (
            lambda x: x | {"encoder.layer.2.output.dense.bias": np.zeros(32, np.float32)},
            r"1 tensor\(s\) unknown: encoder.layer.2.output.dense.bias",
        ),
        (
            lambda x: x | {"embeddings.LayerNorm.bias": np.zeros(31, np.float32)},
            r"embeddings.LayerNorm.bias has shape \(31,\), but config.json asks for \(32,\)",
        ),
        (
            lambda x: x | {"embeddings.LayerNorm.bias": np.zeros(32, np.int32)},
            "embeddings.LayerNorm.bias is I32; known: F64, F32, F16, BF16",
        ),
        (
            lambda x: x | {"embeddings.LayerNorm.beta": np.zeros(32, np.float32)},
            "two tensors are 'embeddings.LayerNorm.bias'",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(InputError, match=message) as error:
        load_bert(folder)
    assert str(error.value).startswith(str(folder / "model.safetensors"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("keep", [0, 4, 100, 3000, -1])
def test_a_truncated_file_is_refused(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"model\.safetensors: is truncated or no") as error:
        load_bert(folder)
    assert "\n" not in str(error.value)


def test_other_bytes_are_refused(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 5000)
    with pytest.raises(InputError, match=r"model\.safetensors: is truncated or no"):
        load_bert(folder)


def test_weights_that_may_run_code_are_not_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no such file; pytorch_model\.bin is not read"):
        load_bert(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "roberta"}, "model_type='roberta'; known: 'bert'"),
        ({"model_type": None}, "model_type=None; known: 'bert'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ({"is_decoder": True}, "is_decoder=true; only encoders"),
        ({"hidden_size": "32"}, "width='32' must be a whole number"),
        ({"num_attention_heads": 5}, "n_heads=5 does not divide width=32"),
        ({"num_hidden_layers": 0}, "depth=0 must be at least 1"),
        ({"hidden_act": "silu"}, "activation='silu'; known: 'gelu'"),
        ({"layer_norm_eps": "0"}, r"layer_norm_eps='0' must be within \(0, 1\)"),
        ({"pad_token_id": 40}, r"pad_id=40 must be within \[0, 40\)"),
    ],
)
def test_other_models_are_refused(folder, changes, message):
    bert_files.write_json(folder / "config.json", bert_files.PUBLISHED | changes)
    with pytest.raises(InputError, match=message) as error:
        load_bert(folder)
    assert str(error.value).startswith(str(folder / "config.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is no JSON file"),
        (b"\xff", "is no JSON file"),
        (b"[]", "must hold a dict, not a list"),
        (b"[" * 100_000, "is no JSON file"),
        (json.dumps({"model_type": "bert"}).encode(), "vocab_size is missing"),
        (None, "there is no such file"),
    ],
)
def test_a_config_that_cannot_be_read_is_refused(folder, content, message):
    path = folder / "config.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        load_bert(folder)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_published_names_of_today_stay():
    names = expected_shapes(BertConfig())
    assert [published_name(name) for name in names] == list(names)
