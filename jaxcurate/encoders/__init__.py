"""Encoders of items as embeddings: pixels, their principal components, pretrained networks."""

from jaxcurate.encoders import efficientnet, function, identity, pca, pixels, text, vit
from jaxcurate.encoders.base import (
    ENCODERS,
    FUNCTION,
    EmbedConfig,
    Encoder,
    embed,
    make_encoder,
    weights_fingerprint,
)
from jaxcurate.encoders.pca import PCA, fit_pca

ENCODERS |= {
    "identity": identity.make,
    "pixels": pixels.make,
    "pca": pca.make,
    "efficientnet_lite0": efficientnet.make,
    "vit": vit.make,
    "bert": text.make,
    FUNCTION: function.make,
}

__all__ = [
    "ENCODERS",
    "PCA",
    "EmbedConfig",
    "Encoder",
    "embed",
    "fit_pca",
    "make_encoder",
    "weights_fingerprint",
]
