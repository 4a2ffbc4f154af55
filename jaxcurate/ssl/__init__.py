"""Built-in self-supervised learning: a small ViT, SimCLR, and probes of what it learned."""

from jaxcurate.ssl.augment import Augmentation
from jaxcurate.ssl.pretrain import Pretrained, Pretraining, Run, encode, encoder, pretrain
from jaxcurate.ssl.vit import ViT, ViTConfig

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
