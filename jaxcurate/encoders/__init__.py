"""Encoders, from items to embeddings: pixels, their principal components, pretrained networks."""

from jaxcurate.encoders.base import ENCODERS, EmbedConfig, Encoder, embed, make_encoder

__all__ = ["ENCODERS", "EmbedConfig", "Encoder", "embed", "make_encoder"]
