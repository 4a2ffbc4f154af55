"""Networks and their weights."""

from jaxcurate.models.bert import Bert, BertConfig
from jaxcurate.models.bert_checkpoint import load_bert
from jaxcurate.models.efficientnet import EfficientNetLite0
from jaxcurate.models.vit import ViT, ViTConfig

__all__ = ["Bert", "BertConfig", "EfficientNetLite0", "ViT", "ViTConfig", "load_bert"]
