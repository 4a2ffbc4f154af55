"""Networks and their weights."""

from jaxcurate.models.efficientnet import EfficientNetLite0
from jaxcurate.models.vit import ViT, ViTConfig

__all__ = ["EfficientNetLite0", "ViT", "ViTConfig"]
