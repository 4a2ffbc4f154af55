"""Compares Vision Transformers with those of transformers, and records golden outputs for tests.

    pip install torch transformers
    python scripts/parity_vit.py            # prints a table
    python scripts/parity_vit.py --record   # also writes tests/data/vit_golden.npz

Each case is a model of transformers with random weights, which it saves itself to a folder that
:func:`jaxcurate.models.load_vit` reads. Numbers are the largest absolute differences of tokens and
of features, in float32, at the size of the positions and at others. The last rows save models by
:func:`jaxcurate.models.save_vit` and load them with transformers.
"""

import functools
import json
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import nnx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "models"))

import golden_vit  # noqa: E402  from a folder of tests

from jaxcurate.models import (  # noqa: E402
    ViT,
    ViTArchitecture,
    ViTConfig,
    load_vit,
    save_vit,
)

RECORD = flags.DEFINE_bool("record", False, "Write tests/data/vit_golden.npz.")
LARGE = flags.DEFINE_bool("large", False, "Add models of the published widths, which is slower.")

TINY = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8)
WIDE = TINY | dict(intermediate_size=48)
BASE = dict(hidden_size=384, num_hidden_layers=12, num_attention_heads=6)
CASES = {
    "dinov2": ("Dinov2Model", "Dinov2Config", TINY),
    "dinov2 giant": ("Dinov2Model", "Dinov2Config", TINY | dict(use_swiglu_ffn=True)),
    "dinov2 no bias": ("Dinov2Model", "Dinov2Config", TINY | dict(qkv_bias=False)),
    "dinov2 registers": (
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        TINY | dict(num_register_tokens=3),
    ),
    "dinov3": ("DINOv3ViTModel", "DINOv3ViTConfig", WIDE | dict(num_register_tokens=3)),
    "dinov3 gated": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        WIDE | dict(use_gated_mlp=True, hidden_act="silu", query_bias=False, value_bias=False),
    ),
    "siglip": ("SiglipVisionModel", "SiglipVisionConfig", WIDE),
    "siglip patch 9": ("SiglipVisionModel", "SiglipVisionConfig", WIDE | dict(patch_size=9)),
    "siglip full": ("SiglipModel", "SiglipConfig", WIDE),
    "clip": ("CLIPVisionModel", "CLIPVisionConfig", WIDE),
    "clip gelu": (
        "CLIPVisionModelWithProjection",
        "CLIPVisionConfig",
        WIDE | dict(hidden_act="gelu", projection_dim=20),
    ),
    "clip full": ("CLIPModel", "CLIPConfig", WIDE),
    "vit": ("ViTModel", "ViTConfig", WIDE),
    "vit classifier": ("ViTForImageClassification", "ViTConfig", WIDE),
}
LARGER = {
    "dinov2 small 518": (
        "Dinov2Model",
        "Dinov2Config",
        BASE | dict(image_size=518, patch_size=14),
    ),
    "dinov3 small": ("DINOv3ViTModel", "DINOv3ViTConfig", BASE | dict(num_register_tokens=4)),
    "siglip base": ("SiglipVisionModel", "SiglipVisionConfig", {}),
    "clip base": ("CLIPVisionModelWithProjection", "CLIPVisionConfig", {}),
}


def oracle(name: str, case: tuple):
    """Returns a model of transformers with random weights."""
    import torch
    import transformers

    model_class, config_class, fields = case
    if config_class in ("SiglipConfig", "CLIPConfig"):
        text = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, vocab_size=30)
        text |= dict(num_attention_heads=2)
        fields = dict(vision_config=fields, text_config=text)
        if config_class == "CLIPConfig":
            fields |= dict(projection_dim=20)
    config = getattr(transformers, config_class)(**fields)
    model = getattr(transformers, model_class)(config).eval()
    tensors = {
        key: torch.tensor(golden_vit.random_tensor(key, tuple(value.shape)))
        for key, value in model.state_dict().items()
        if value.is_floating_point()
    }
    model.load_state_dict(tensors, strict=False)
    return model


def outputs(model, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns tokens ``[b, n, w]`` and features ``[b, d]`` (None where the model has none)."""
    import torch

    pixels = torch.tensor(images.transpose(0, 3, 1, 2))
    kind = type(model).__name__
    more = {} if kind.startswith(("Dinov2", "DINOv3")) else dict(interpolate_pos_encoding=True)
    with torch.no_grad():
        if kind in ("SiglipModel", "CLIPModel"):
            result = model.vision_model(pixels, **more)
            features = result.pooler_output
            if kind == "CLIPModel":
                features = model.visual_projection(features)
        elif kind == "ViTForImageClassification":
            result = model.vit(pixels, **more)
            features = result.last_hidden_state[:, 0]
        else:
            result = model(pixels, **more)
            features = getattr(result, "image_embeds", None)
            if kind == "ViTModel":
                features = result.last_hidden_state[:, 0]
            elif features is None:
                features = result.pooler_output
    tokens = result.last_hidden_state
    return tokens.numpy(), None if features is None else features.numpy()


def ours(model: ViT, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns tokens and features of our model."""
    graph, state = nnx.split(model)
    tokens, features = _ours(graph, state, jnp.asarray(images))
    return np.concatenate(tokens, axis=1), np.asarray(features)


@functools.partial(jax.jit, static_argnums=0)
def _ours(graph: nnx.GraphDef, state: nnx.State, images: jax.Array):
    model = nnx.merge(graph, state)
    return model.tokens(images), model(images)


def compare(name: str, case: tuple, record: dict[str, np.ndarray] | None, cases: dict) -> None:
    """Prints the differences of a case, and records what transformers gives."""
    model = oracle(name, case)
    with tempfile.TemporaryDirectory() as work:
        model.save_pretrained(work)
        loaded, _ = load_vit(work)
        if record is not None:
            from safetensors import safe_open

            with safe_open(f"{work}/model.safetensors", "numpy") as file:
                # Tensors of text towers say nothing here.
                names = [n for n in file.keys() if not n.startswith("text_model.")]  # noqa: SIM118
                shapes = {n: file.get_slice(n).get_shape() for n in names}
                values = {n: file.get_tensor(n) for n in names}
            state = {n: golden_vit.random_tensor(n, tuple(s)) for n, s in shapes.items()}
            config = json.loads(Path(work, "config.json").read_text())
            if not all(np.array_equal(state[n], values[n]) for n in names):
                # Names in the file differ from those in the model: take the values of the file's.
                golden_vit.write_checkpoint(Path(work), config, shapes)
                model, _ = type(model).from_pretrained(work, output_loading_info=True)
                model = model.eval()
                loaded, _ = load_vit(work)
            cases[name] = {"config": config, "shapes": shapes}
    cells, numbers = [], []
    sizes = golden_vit.SIZES if case[2].get("image_size") == 32 else ((224, 224), (112, 112))
    for height, width in sizes:
        images = golden_vit.images(1, height, width)
        expected, got = outputs(model, images), ours(loaded, images)
        gaps = [np.abs(a - b).max() for a, b in zip(expected, got, strict=True) if a is not None]
        cells.append("/".join(f"{gap:.1e}" for gap in gaps))
        if record is not None:
            numbers += [expected[0][0, :: golden_vit.EVERY].ravel(), expected[1][0]]
    if record is not None:
        record[name] = np.concatenate(numbers)
    print(f"{name:20} {' '.join(f'{cell:>17}' for cell in cells)}", flush=True)


SAVED = {
    "training": ViTConfig(image_size=32, patch_size=8, width=32, depth=2, n_heads=2),
    "dinov2 like": ViTArchitecture(
        32, 8, 32, 2, 2, class_token=True, positions="learned", activation="gelu", layer_scale=1.0,
        pooling="class",
    ),
}  # fmt: skip


def compare_saved(name: str, config: ViTConfig) -> None:
    """Prints the differences of a model that transformers loads."""
    import transformers

    model = ViT(config, rngs=nnx.Rngs(0))
    with tempfile.TemporaryDirectory() as work:
        save_vit(model, f"{work}/weights")
        theirs, info = transformers.AutoModel.from_pretrained(
            f"{work}/weights", output_loading_info=True
        )
    lost = {key: sorted(value) for key, value in info.items() if value}
    images = golden_vit.images(1, 32, 32)
    tokens, _ = outputs(theirs.eval(), images)
    gap = np.abs(tokens - ours(model, images)[0]).max()
    print(f"saved, {name:13} {gap:17.1e} {type(theirs).__name__} {lost or ''}", flush=True)


def main(argv: list[str]) -> None:
    del argv
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print(f"transformers {transformers.__version__}: tokens/features")
    header = [f"{h} x {w}" for h, w in golden_vit.SIZES]
    print(f"{'model':20} {' '.join(f'{cell:>17}' for cell in header)}")
    record: dict[str, np.ndarray] = {}
    cases: dict[str, dict] = {}
    for name, case in CASES.items():
        compare(name, case, record, cases)
    for name, case in LARGER.items() if LARGE.value else ():
        compare(name, case, None, cases)
    for name, config in SAVED.items():
        compare_saved(name, config)
    if RECORD.value:
        np.savez_compressed(golden_vit.GOLDEN, cases=np.array(json.dumps(cases)), **record)
        print(f"{golden_vit.GOLDEN.stat().st_size} bytes written")


if __name__ == "__main__":
    app.run(main)
