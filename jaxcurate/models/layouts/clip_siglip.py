"""Layouts of the vision towers of CLIP and SigLIP, which share most of their names."""

from collections.abc import Collection
from typing import Any

from jaxcurate.checks import InputError
from jaxcurate.models.layouts.base import (
    HALF,
    POOLING,
    Layout,
    Names,
    Settings,
    Shapes,
    common_fields,
    common_settings,
    pooling_of,
    stretched,
)
from jaxcurate.models.picture_input import CLIP_MEAN, CLIP_STD, PictureInput
from jaxcurate.models.vit_config import ViTArchitecture

_PROJECTION = "visual_projection"


def _siglip(s: Settings, names: Collection[str], shapes: Shapes) -> ViTArchitecture:
    del names, shapes
    has_head = s.flag("vision_use_head", True)
    pooling = pooling_of(s, "attention" if has_head else "mean")
    if has_head != (pooling == "attention"):
        raise InputError(f"{POOLING}={pooling!r} does not go with vision_use_head={has_head}")
    return ViTArchitecture(
        **common_fields(
            s, width=768, n_heads=12, patch=16, epsilon=1e-6, activation="gelu_pytorch_tanh"
        ),
        positions="learned",
        mlp_width=s.whole("intermediate_size", 3072),
        pooling=pooling,
    )


def _siglip_settings(c: ViTArchitecture) -> dict[str, Any]:
    has_head = c.pooling == "attention"
    return common_settings(c, "attention" if has_head else "mean") | {
        "intermediate_size": c.n_hidden,
        "vision_use_head": has_head,
    }


def _clip(s: Settings, names: Collection[str], shapes: Shapes) -> ViTArchitecture:
    del names
    # The number of rows is taken from the tensor, as config.json may have two that contradict.
    projection = shapes.get(f"{_PROJECTION}.weight")
    return ViTArchitecture(
        **common_fields(s, width=768, n_heads=12, patch=32, epsilon=1e-5, activation="quick_gelu"),
        class_token=True,
        positions="learned",
        pre_norm=True,
        final_norm="pooled",
        embed_bias=False,
        mlp_width=s.whole("intermediate_size", 3072),
        pooling=pooling_of(s, "class"),
        projection=projection[0] if projection else None,
    )


def _clip_settings(c: ViTArchitecture) -> dict[str, Any]:
    projected = {} if c.projection is None else {"projection_dim": c.projection}
    return common_settings(c, "class") | {"intermediate_size": c.n_hidden} | projected


def _clip_picture(c: ViTArchitecture) -> PictureInput:
    return PictureInput(c.image_size, c.image_size, "bicubic", True, CLIP_MEAN, CLIP_STD)


_NAMES: dict[str, Names] = {
    "embed": "embeddings.patch_embedding",
    "places": "embeddings.position_embedding.weight",
    "norm": "post_layernorm",
}
_TEXT = ("text_model.", "text_projection.", "logit_scale", "logit_bias")

SIGLIP = Layout(
    prefixes=("vision_model.", ""),
    names={
        **_NAMES,
        "pool.query": "head.probe",
        "pool.qkv.kernel": "head.attention.in_proj_weight",
        "pool.qkv.bias": "head.attention.in_proj_bias",
        "pool.out": "head.attention.out_proj",
        "pool.norm": "head.layernorm",
        "pool.up": "head.mlp.fc1",
        "pool.down": "head.mlp.fc2",
    },
    block="encoder.layers.{}.",
    block_names={
        "norm_1": "layer_norm1",
        "qkv": tuple(f"self_attn.{name}_proj" for name in "qkv"),
        "out": "self_attn.out_proj",
        "norm_2": "layer_norm2",
        "up": "mlp.fc1",
        "down": "mlp.fc2",
    },
    n_axes={"pool.query": 3},
    ignored=(*_TEXT, "vision_model.embeddings.position_ids", "embeddings.position_ids"),
    architecture=_siglip,
    settings=_siglip_settings,
    picture=stretched("bicubic", HALF, HALF),
)

CLIP = SIGLIP._replace(
    names={
        **_NAMES,
        "class_token": "embeddings.class_embedding",
        "pre_norm": "pre_layrnorm",
        "projection": f"/{_PROJECTION}",
    },
    n_axes={"class_token": 1},
    architecture=_clip,
    settings=_clip_settings,
    picture=_clip_picture,
)
