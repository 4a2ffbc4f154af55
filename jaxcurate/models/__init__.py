"""Networks and their weights."""

from jaxcurate.models.bert import Bert, BertConfig
from jaxcurate.models.bert_checkpoint import load_bert
from jaxcurate.models.efficientnet import EfficientNetLite0
from jaxcurate.models.picture_input import PictureInput
from jaxcurate.models.pretrained import PretrainedInfo, load_vit, save_vit
from jaxcurate.models.vit import Tokens, ViT, ViTArchitecture, ViTConfig

__all__ = [
    "Bert",
    "BertConfig",
    "EfficientNetLite0",
    "PictureInput",
    "PretrainedInfo",
    "Tokens",
    "ViT",
    "ViTArchitecture",
    "ViTConfig",
    "load_bert",
    "load_vit",
    "save_vit",
]
