"""Encoders, from items to embeddings: pixels, their principal components, pretrained networks."""

from jaxcurate.encoders import efficientnet, pca, pixels
from jaxcurate.encoders.base import ENCODERS, EmbedConfig, Encoder, embed, make_encoder

ENCODERS |= {
    "pixels": pixels.make,
    "pca": pca.make,
    "efficientnet_lite0": efficientnet.make,
}

__all__ = ["ENCODERS", "EmbedConfig", "Encoder", "embed", "make_encoder"]
