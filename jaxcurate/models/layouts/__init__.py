"""Published layouts of Vision Transformers: their settings, and the names of their tensors."""

from jaxcurate.models.layouts.base import Layout, Settings
from jaxcurate.models.layouts.clip_siglip import CLIP, SIGLIP
from jaxcurate.models.layouts.dinov3 import DINOV3
from jaxcurate.models.layouts.vit_dinov2 import DINOV2, DINOV2_REGISTERS, VIT

LAYOUTS: dict[str, Layout] = {
    "siglip_vision_model": SIGLIP,
    "siglip": SIGLIP,
    "dinov2": DINOV2,
    "dinov2_with_registers": DINOV2_REGISTERS,
    "dinov3_vit": DINOV3,
    "vit": VIT,
    "clip_vision_model": CLIP,
    "clip": CLIP,
}
"""Layouts by the ``model_type`` in ``config.json``. Models are saved in the first that fits."""
TOWERS = ("siglip", "clip")
"""Types with a text tower, whose settings for pictures are in ``vision_config``."""

__all__ = ["LAYOUTS", "TOWERS", "Layout", "Settings"]
