"""Tiny checkpoints in published layouts, whose random tensors depend on their names alone."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

GOLDEN = Path(__file__).parents[1] / "data" / "vit_golden.npz"
"""Settings, names of tensors, and outputs of transformers, which scripts/parity_vit.py writes."""
SIZES = ((32, 32), (48, 48), (24, 40))
"""Heights and widths of the images of which outputs are recorded."""
EVERY = 6
"""Distance of tokens that are recorded."""


def random_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draws a tensor, with an effect of every entry on the features that is easy to see."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    x = rng.normal(size=shape)
    if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "lambda1")) or (
        len(shape) == 1 and name.endswith("weight")
    ):
        x = 1 + 0.3 * x
    elif len(shape) > 1 and "embeddings." not in name:
        x = x / np.sqrt(shape[-1])
    else:
        x = 0.3 * x
    return np.asarray(x, np.float32)  # also of a number without axes


def images(n: int, height: int, width: int) -> np.ndarray:
    """Draws images, float32 ``[n, height, width, 3]``."""
    rng = np.random.default_rng(height * 1000 + width)
    return rng.normal(size=(n, height, width, 3)).astype(np.float32)


def write_checkpoint(
    folder: Path, config: dict[str, Any], shapes: dict[str, list[int]]
) -> dict[str, np.ndarray]:
    """Writes a checkpoint of random tensors, and returns them."""
    tensors = {name: random_tensor(name, tuple(shape)) for name, shape in shapes.items()}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return tensors
