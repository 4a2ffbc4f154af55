"""From items to embeddings: pixels, their principal components, pretrained networks."""

from jaxcurate.embed.encoders import ENCODERS, Embedding, Encoder, embed, make_encoder

__all__ = ["ENCODERS", "Embedding", "Encoder", "embed", "make_encoder"]
