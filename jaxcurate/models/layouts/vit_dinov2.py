"""Layouts of the first ViT and of DINOv2, which share most of their names."""

import dataclasses
from collections.abc import Collection
from typing import Any

from jaxcurate.models.layouts.base import (
    HALF,
    Layout,
    Names,
    Settings,
    Shapes,
    common_fields,
    common_settings,
    pooling_of,
    stretched,
)
from jaxcurate.models.picture_input import IMAGENET_MEAN, IMAGENET_STD, PictureInput
from jaxcurate.models.vit_config import ViTArchitecture


def _vit(s: Settings, names: Collection[str], shapes: Shapes) -> ViTArchitecture:
    del names, shapes
    return ViTArchitecture(
        **common_fields(s, width=768, n_heads=12, patch=16, epsilon=1e-12, activation="gelu"),
        class_token=True,
        positions="learned",
        qkv_bias="all" if s.flag("qkv_bias", True) else "none",
        mlp_width=s.whole("intermediate_size", 3072),
        pooling=pooling_of(s, "class"),
    )


def _vit_settings(c: ViTArchitecture) -> dict[str, Any]:
    more = {"intermediate_size": c.n_hidden, "qkv_bias": c.qkv_bias == "all"}
    return common_settings(c, "class") | more


def _dinov2(s: Settings, names: Collection[str], shapes: Shapes) -> ViTArchitecture:
    del shapes
    common = common_fields(s, width=768, n_heads=12, patch=14, epsilon=1e-6, activation="gelu")
    gated = s.flag("use_swiglu_ffn", False)
    n_hidden = int(common["width"] * s.number("mlp_ratio", 4))
    if gated:
        common["activation"] = "silu"
        n_hidden = (n_hidden * 2 // 3 + 7) // 8 * 8
    return ViTArchitecture(
        **common,
        class_token=True,
        mask_token="embeddings.mask_token" in names,
        positions="learned",
        qkv_bias="all" if s.flag("qkv_bias", True) else "none",
        mlp_width=n_hidden,
        gated=gated,
        layer_scale=s.number("layerscale_value", 1.0),
        pooling=pooling_of(s, "class"),
    )


def _dinov2_settings(c: ViTArchitecture) -> dict[str, Any]:
    n_hidden = c.n_hidden * 3 / 2 if c.gated else c.n_hidden
    return common_settings(c, "class") | {
        **({"hidden_act": "gelu"} if c.gated else {}),
        "mlp_ratio": round(n_hidden / c.width),  # transformers 5 refuses 4.0
        "use_swiglu_ffn": c.gated,
        "qkv_bias": c.qkv_bias == "all",
        "layerscale_value": c.layer_scale,
        "use_mask_token": c.mask_token,
    }


def _dinov2_registers(s: Settings, names: Collection[str], shapes: Shapes) -> ViTArchitecture:
    patch = s.whole("patch_size", 16)  # the default of this family alone
    plain = _dinov2(Settings({**s.entries, "patch_size": patch}), names, shapes)
    n_registers = s.whole("num_register_tokens", 4, 0)
    return dataclasses.replace(plain, n_registers=n_registers, interpolation="bicubic_antialias")


def _dinov2_registers_settings(c: ViTArchitecture) -> dict[str, Any]:
    return _dinov2_settings(c) | {"num_register_tokens": c.n_registers}


def _dinov2_picture(c: ViTArchitecture) -> PictureInput:
    del c  # 224 pixels, although most were trained at 518 in the end
    return PictureInput(224, 256, "bicubic", True, IMAGENET_MEAN, IMAGENET_STD)


_VIT_EMBEDDINGS: dict[str, Names] = {
    "class_token": "embeddings.cls_token",
    "places": "embeddings.position_embeddings",
    "embed": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
_VIT_ATTENTION: dict[str, Names] = {
    "qkv": tuple(f"attention.attention.{name}" for name in ("query", "key", "value")),
    "out": "attention.output.dense",
}
_VIT_AXES = {"class_token": 3, "places": 3, "registers": 3}

VIT = Layout(
    prefixes=("", "vit."),
    names=_VIT_EMBEDDINGS,
    block="encoder.layer.{}.",
    block_names={
        **_VIT_ATTENTION,
        "norm_1": "layernorm_before",
        "norm_2": "layernorm_after",
        "up": "intermediate.dense",
        "down": "output.dense",
    },
    n_axes=_VIT_AXES,
    ignored=("pooler.", "vit.pooler.", "classifier."),
    architecture=_vit,
    settings=_vit_settings,
    picture=stretched("bilinear", HALF, HALF),
)

DINOV2 = Layout(
    prefixes=("", "dinov2."),
    names={
        **_VIT_EMBEDDINGS,
        "mask_token": "embeddings.mask_token",
        "registers": "embeddings.register_tokens",
    },
    block="encoder.layer.{}.",
    block_names={
        **_VIT_ATTENTION,
        "norm_1": "norm1",
        "norm_2": "norm2",
        "up": "mlp.fc1",
        "down": "mlp.fc2",
        "gated_up": "mlp.weights_in",
        "gated_down": "mlp.weights_out",
        "scale_1": "layer_scale1.lambda1",
        "scale_2": "layer_scale2.lambda1",
    },
    n_axes={**_VIT_AXES, "mask_token": 2},
    ignored=("classifier.",),
    architecture=_dinov2,
    settings=_dinov2_settings,
    picture=_dinov2_picture,
)

DINOV2_REGISTERS = DINOV2._replace(
    prefixes=("", "dinov2_with_registers."),
    architecture=_dinov2_registers,
    settings=_dinov2_registers_settings,
)
