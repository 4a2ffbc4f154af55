"""Given vectors as embeddings, unchanged and in the type in which they are stored."""

from typing import Any

import numpy as np

from jaxcurate.encoders.base import Batches, EmbedConfig, Encoder
from jaxcurate.runtime.devices import Devices


def make(settings: EmbedConfig, batches: Batches, devices: Devices) -> Encoder:
    """Returns the encoder, which computes nothing."""
    del settings, batches, devices
    return Encoder(_same, (), ("vector",), is_jax=False)


def _same(rows: np.ndarray, params: Any) -> np.ndarray:
    del params
    return np.asarray(rows)
