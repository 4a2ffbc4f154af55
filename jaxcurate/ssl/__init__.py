"""Built-in self-supervised learning: a small ViT, SimCLR, and probes of what it learned."""

from jaxcurate.models.vit import ViT, ViTConfig
from jaxcurate.ssl.augment import Augmentation
from jaxcurate.ssl.features import encode, encoder
from jaxcurate.ssl.pretrain import Pretrained, Pretraining, pretrain
from jaxcurate.ssl.runs import Run

__all__ = [
    "Augmentation",
    "Pretrained",
    "Pretraining",
    "Run",
    "ViT",
    "ViTConfig",
    "encode",
    "encoder",
    "pretrain",
]
