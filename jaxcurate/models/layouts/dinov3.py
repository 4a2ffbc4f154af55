"""Layouts of DINOv3."""

from collections.abc import Collection, Mapping
from typing import Any

from jaxcurate.checks import InputError, short_repr
from jaxcurate.models.layouts.base import (
    Layout,
    Settings,
    Shapes,
    common_fields,
    common_settings,
    pooling_of,
    stretched,
)
from jaxcurate.models.picture_input import IMAGENET_MEAN, IMAGENET_STD
from jaxcurate.models.vit_config import QKVBias, ViTArchitecture


def _dinov3(s: Settings, names: Collection[str], shapes: Shapes) -> ViTArchitecture:
    del shapes
    for name in ("proj_bias", "mlp_bias"):
        s.only(name, True, True)
    biases = tuple(s.flag(f"{name}_bias", name != "key") for name in ("query", "key", "value"))
    kinds: dict[tuple[bool, ...], QKVBias] = {
        (True, True, True): "all",
        (True, False, True): "no_key",
        (False,) * 3: "none",
    }
    if biases not in kinds:
        raise InputError(f"query_bias, key_bias, value_bias={biases} is not supported")
    return ViTArchitecture(
        **common_fields(s, width=384, n_heads=6, patch=16, epsilon=1e-5, activation="gelu"),
        class_token=True,
        n_registers=s.whole("num_register_tokens", 0, 0),
        mask_token="embeddings.mask_token" in names,
        positions="rotary",
        rotary_base=_rotary_base(s),
        qkv_bias=kinds[biases],
        mlp_width=s.whole("intermediate_size", 1536),
        gated=s.flag("use_gated_mlp", False),
        layer_scale=s.number("layerscale_value", 1.0),
        pooling=pooling_of(s, "class"),
    )


def _rotary_base(s: Settings) -> float:
    """Returns the base of the rotations, which newer files nest in an entry for all of them."""
    nested = s.get("rope_parameters", {})
    if not isinstance(nested, Mapping):
        raise InputError(f"rope_parameters={short_repr(nested)} must be an object")
    return Settings({"rope_theta": nested.get("rope_theta"), **s.entries}).number(
        "rope_theta", 100.0
    )


def _dinov3_settings(c: ViTArchitecture) -> dict[str, Any]:
    return common_settings(c, "class") | {
        "intermediate_size": c.n_hidden,
        "num_register_tokens": c.n_registers,
        "rope_theta": c.rotary_base,
        "query_bias": c.qkv_bias != "none",
        "key_bias": c.qkv_bias == "all",
        "value_bias": c.qkv_bias != "none",
        "proj_bias": True,
        "mlp_bias": True,
        "use_gated_mlp": c.gated,
        "layerscale_value": c.layer_scale,
    }


DINOV3 = Layout(
    prefixes=("", "dinov3_vit.", "model."),
    names={
        "class_token": "embeddings.cls_token",
        "mask_token": "embeddings.mask_token",
        "registers": "embeddings.register_tokens",
        "embed": "embeddings.patch_embeddings",
        "norm": "norm",
    },
    block="layer.{}.",
    block_names={
        "norm_1": "norm1",
        "qkv": tuple(f"attention.{name}_proj" for name in "qkv"),
        "qv_bias": ("attention.q_proj.bias", "attention.v_proj.bias"),
        "out": "attention.o_proj",
        "norm_2": "norm2",
        "up": "mlp.up_proj",
        "gated_up": ("mlp.gate_proj", "mlp.up_proj"),
        "down": "mlp.down_proj",
        "scale_1": "layer_scale1.lambda1",
        "scale_2": "layer_scale2.lambda1",
    },
    n_axes={"class_token": 3, "registers": 3, "mask_token": 3},
    ignored=("classifier.",),
    architecture=_dinov3,
    settings=_dinov3_settings,
    picture=stretched("bilinear", IMAGENET_MEAN, IMAGENET_STD),
)
