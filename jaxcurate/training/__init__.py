"""Self-supervised pretraining of small encoders, to compare subsets: a ViT and SimCLR."""

from jaxcurate.models.vit import ViT, ViTConfig
from jaxcurate.training.augment import Augmentation
from jaxcurate.training.config import PretrainConfig
from jaxcurate.training.features import encode, encoder
from jaxcurate.training.pretrain import Pretrained, pretrain
from jaxcurate.training.runs import Run

__all__ = [
    "Augmentation",
    "PretrainConfig",
    "Pretrained",
    "Run",
    "ViT",
    "ViTConfig",
    "encode",
    "encoder",
    "pretrain",
]
