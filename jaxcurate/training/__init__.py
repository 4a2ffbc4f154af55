"""Self-supervised pretraining of small encoders, to compare subsets: a ViT and SimCLR."""

from jaxcurate.models.vit import ViT, ViTConfig
from jaxcurate.training.augment import Augmentation
from jaxcurate.training.config import PretrainConfig
from jaxcurate.training.features import encode, encoder
from jaxcurate.training.input import ResidentInput, TokenInput
from jaxcurate.training.loop import Trained, train
from jaxcurate.training.pretrain import Pretrained, pretrain
from jaxcurate.training.runs import Run

__all__ = [
    "Augmentation",
    "PretrainConfig",
    "Pretrained",
    "ResidentInput",
    "Run",
    "TokenInput",
    "Trained",
    "ViT",
    "ViTConfig",
    "encode",
    "encoder",
    "pretrain",
    "train",
]
