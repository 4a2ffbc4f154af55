"""Published weights against outputs of transformers, folders that are refused, and round trips."""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from jaxcurate.checks import InputError
from jaxcurate.models import PictureInput, ViT, ViTArchitecture, ViTConfig, load_vit, save_vit
from jaxcurate.models.picture_input import IMAGENET_MEAN, read_picture_input, to_published

sys.path.insert(0, str(Path(__file__).parent))
from golden_vit import EVERY, GOLDEN, SIZES, images, write_checkpoint

CASES = json.loads(str(np.load(GOLDEN)["cases"]))


@pytest.fixture
def checkpoint(tmp_path):
    """Returns a function that writes the checkpoint of a case, with changes, to a new folder."""

    def write(name: str, rename=lambda name: name, **changes) -> Path:
        case = CASES[name]
        shapes = {rename(n): shape for n, shape in case["shapes"].items()}
        write_checkpoint(tmp_path / "weights", case["config"] | changes, shapes)
        return tmp_path / "weights"

    return write


def tensors_of(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


def save(folder: Path, tensors: dict[str, np.ndarray], name: str = "model.safetensors") -> None:
    save_file(tensors, folder / name, {"format": "pt"})


def outputs(model: ViT, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    graph, state = nnx.split(model)

    @jax.jit
    def run(state, x):
        whole = nnx.merge(graph, state)
        return jnp.concatenate(whole.tokens(x), axis=1), whole(x)

    tokens, features = run(state, jnp.asarray(x))
    return np.asarray(tokens), np.asarray(features)


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_of_transformers(checkpoint, name):
    model, _ = load_vit(checkpoint(name))
    parts = []
    for height, width in SIZES:
        tokens, features = outputs(model, images(1, height, width))
        parts += [tokens[0, ::EVERY].ravel(), features[0]]
    np.testing.assert_allclose(np.concatenate(parts), np.load(GOLDEN)[name], atol=1e-5)


def test_several_files_and_bfloat16_are_read(checkpoint):
    folder = checkpoint("dinov2")
    expected = outputs(load_vit(folder)[0], images(1, 32, 32))[1]
    tensors = tensors_of(folder)
    (folder / "model.safetensors").unlink()
    names, places = sorted(tensors), {}
    for i in range(3):
        part = {name: tensors[name].astype(ml_dtypes.bfloat16) for name in names[i::3]}
        save(folder, part, f"part-{i}.safetensors")
        places |= dict.fromkeys(part, f"part-{i}.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    model, _ = load_vit(folder)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(model)))
    features = outputs(model, images(1, 32, 32))[1]
    cosine = np.sum(features * expected) / np.linalg.norm(features) / np.linalg.norm(expected)
    assert 0.999 < cosine < 1
    (folder / "part-1.safetensors").unlink()
    with pytest.raises(InputError, match=r"part-1\.safetensors is missing, which"):
        load_vit(folder)
    index.write_text(json.dumps({"weight_map": {"a": "../part-0.safetensors"}}))
    with pytest.raises(InputError, match="is no name of a file in the folder"):
        load_vit(folder)


def test_prefixes_and_what_features_do_not_need(checkpoint):
    folder = checkpoint("dinov2", rename=lambda name: f"dinov2.{name}")
    tensors = tensors_of(folder)
    save(folder, tensors | {"classifier.weight": np.zeros((2, 3), np.float32)})
    assert load_vit(folder)[1].ignored == ("classifier.weight",)


def change(folder: Path, how: str) -> None:
    """Damages a folder in one way."""
    path, tensors = folder / "model.safetensors", tensors_of(folder)
    layer = "encoder.layer.1.norm1.weight"
    config = json.loads((folder / "config.json").read_text())
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-8])
    elif how == "not safetensors":
        path.write_bytes(b"PK\x03\x04 and so on")
    elif how == "missing":
        del tensors[layer]
        save(folder, tensors)
    elif how == "left over":
        save(folder, tensors | {"encoder.layer.2.norm1.weight": tensors[layer]})
    elif how == "shape":
        save(folder, tensors | {layer: tensors[layer][:5]})
    elif how == "NaN":
        save(folder, tensors | {layer: tensors[layer] * np.nan})
    elif how == "integers":
        save(folder, tensors | {layer: tensors[layer].astype(np.int32)})
    elif how == "no tensors":
        path.unlink()
    elif how == "other model":
        save(folder, {"conv1.weight": tensors[layer]})
    elif how == "no config":
        (folder / "config.json").unlink()
    elif how == "no JSON":
        (folder / "config.json").write_text("{")
    else:
        field, value = how.split("=")
        config[field] = json.loads(value)
        (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("truncated", r"model\.safetensors: not a whole safetensors file"),
        ("not safetensors", r"model\.safetensors: not a whole safetensors file"),
        ("missing", r"tensor encoder\.layer\.1\.norm1\.weight is missing"),
        ("left over", r"tensor encoder\.layer\.2\.norm1\.weight is left over"),
        ("shape", r"norm1\.weight has shape \(5,\), but config\.json wants \(32,\)"),
        ("NaN", r"tensor encoder\.layer\.1\.norm1\.weight has a NaN"),
        ("integers", r"norm1\.weight has the type I32, not a float"),
        ("no tensors", "has no safetensors file"),
        ("other model", r"embeddings\.patch_embeddings\.projection\.weight is missing"),
        ("no config", r"config\.json cannot be read"),
        ("no JSON", r"config\.json: not JSON"),
        ('model_type="convnext"', r"config\.json: model_type='convnext'; known: 'siglip_vision"),
        ('model_type="siglip2"', "of a fixed size only"),
        ("model_type=null", "model_type=None; known"),
        ('hidden_size="32"', r"config\.json: hidden_size='32' must be a whole number"),
        ("num_attention_heads=5", r"config\.json: n_heads=5 does not divide width=32"),
        ("num_hidden_layers=3", r"tensor encoder\.layer\.2\.norm1.* is missing|layer\.2.*missing"),
        ("num_hidden_layers=1", r"tensor encoder\.layer\.1\..* is left over"),
        ('hidden_act="relu"', "hidden_act='relu'; known: 'gelu'"),
        ("num_channels=1", "num_channels=1 is not supported, 3 is"),
    ],
)
def test_what_does_not_fit_is_named(checkpoint, how, words):
    folder = checkpoint("dinov2")
    change(folder, how)
    with pytest.raises(InputError, match=words) as error:
        load_vit(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_absent_registers_are_named(checkpoint):
    folder = checkpoint("dinov3")
    save(folder, {n: t for n, t in tensors_of(folder).items() if "register" not in n})
    with pytest.raises(InputError, match=r"tensor embeddings\.register_tokens is missing"):
        load_vit(folder)


def test_a_hub_name_needs_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"hf:a/b needs another package: pip install"):
        load_vit("hf:a/b")


def test_a_hub_name_is_downloaded_without_pickles(checkpoint, monkeypatch):
    asked = {}

    class Hub:
        @staticmethod
        def snapshot_download(name, **options):
            asked.update(options, name=name)
            if name == "a/none":
                raise OSError("404 Client Error\n\nRepository Not Found")
            return str(folder)

    folder = checkpoint("vit")
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    assert load_vit("hf:a/b@main")[1].model_type == "vit"
    assert asked["name"] == "a/b" and asked["revision"] == "main"
    assert asked["allow_patterns"] == ["*.json", "*.safetensors"]
    with pytest.raises(InputError, match="hf:a/none cannot be downloaded: 404 Client Error"):
        load_vit("hf:a/none")


SMALL = dict(image_size=8, patch_size=4, width=16, depth=1, n_heads=2)
DINO = dict(class_token=True, positions="learned", activation="gelu", layer_scale=1.0, **SMALL)


@pytest.mark.parametrize(
    ("config", "model_type"),
    [
        (ViTConfig(**SMALL), "siglip_vision_model"),
        (ViTArchitecture(**SMALL, pooling="attention"), "siglip_vision_model"),
        (ViTArchitecture(**DINO, pooling="class_mean", mask_token=True), "dinov2"),
        (ViTArchitecture(**DINO, n_registers=2, pooling="class"), "dinov2_with_registers"),
        (ViTArchitecture(**DINO, gated=True), "jaxcurate_vit"),
        (ViTArchitecture(**DINO | dict(positions="rotary")), "dinov3_vit"),
        (ViTArchitecture(**DINO | dict(layer_scale=None)), "vit"),
        (ViTArchitecture(**DINO, qkv_bias="no_key", projection=3), "jaxcurate_vit"),
        (ViTArchitecture(**SMALL, n_registers=2), "jaxcurate_vit"),
    ],
)
def test_saved_models_come_back(tmp_path, config, model_type):
    model = ViT(config, rngs=nnx.Rngs(0))
    picture = PictureInput(8, 10, "bilinear", True, IMAGENET_MEAN)
    save_vit(model, tmp_path / "weights", picture=picture)
    loaded, info = load_vit(tmp_path / "weights")
    assert info.model_type == model_type and info.picture == picture and not info.ignored
    x = images(2, 8, 8)
    for ours, theirs in zip(outputs(model, x), outputs(loaded, x), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-5)
    save_vit(loaded, tmp_path / "weights")  # replaces what it wrote itself


def test_foreign_folders_are_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="was not written by jaxcurate"):
        save_vit(ViT(ViTConfig(**SMALL), rngs=nnx.Rngs(0)), tmp_path)


def test_a_batch_split_over_devices_gives_the_same(checkpoint):
    model, _ = load_vit(checkpoint("dinov2 registers"))
    graph, state = nnx.split(model)
    run = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    x = images(8, 32, 32)
    features = run(jax.device_put(state, whole), jax.device_put(x, split))
    assert features.sharding.is_equivalent_to(split, features.ndim)
    np.testing.assert_allclose(features, run(state, x), atol=1e-5)


STRETCH = PictureInput(224, 224, "bicubic", False)
CROP = PictureInput(224, 256, "bicubic", True)


@pytest.mark.parametrize(
    ("file", "default", "expected"),
    [
        ({}, CROP, CROP),
        ({"size": {"shortest_edge": 300}, "crop_size": 280}, CROP, PictureInput(280, 300)),
        ({"size": 224, "crop_size": {"height": 224, "width": 224}}, CROP, PictureInput(224, 224)),
        ({"size": 384, "resample": 2}, STRETCH, PictureInput(384, 384, "bilinear", False)),
        (
            {"size": {"height": 96, "width": 96}, "do_center_crop": None, "do_normalize": False},
            STRETCH,
            PictureInput(96, 96, "bicubic", False, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        ),
        (to_published(CROP), STRETCH, CROP),
        (to_published(STRETCH), CROP, STRETCH),
    ],
)
def test_preprocessing_is_read(tmp_path, file, default, expected):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(file))
    assert read_picture_input(tmp_path, default) == expected


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ({"resample": 9}, "resample=9"),
        ({"do_resize": False}, "do_resize=false"),
        ({"rescale_factor": 1.0}, "rescale_factor=1.0"),
        ({"size": {"height": 4, "width": 8}}, "is no square"),
        ({"size": {"shortest_edge": 100}}, "resize=100 must be at least size=224"),
        ({"size": {"shortest_edge": 256}, "do_center_crop": False}, "there is no crop"),
        ({"image_std": [0, 1, 1]}, "must be positive"),
        ({"image_mean": [0.5]}, "must be three numbers"),
        ({"size": "224"}, "size='224' must be a whole number"),
    ],
)
def test_preprocessing_that_is_not_supported_is_named(tmp_path, file, words):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(file))
    with pytest.raises(InputError, match=words) as error:
        read_picture_input(tmp_path, CROP)
    assert str(error.value).startswith(str(path))


def test_another_size_keeps_the_fraction_of_the_picture():
    assert CROP.at(112) == dataclasses.replace(CROP, size=112, resize=128)
