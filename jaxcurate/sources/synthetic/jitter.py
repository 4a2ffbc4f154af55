"""Weak random changes of small images, for near-duplicates, vectorized over the images."""

import numpy as np

from jaxcurate.sources.synthetic.recipe import Jitter

_BLOCK = 1024  # images in floating point at once


def jitter(images: np.ndarray, strength: Jitter, rng: np.random.Generator) -> np.ndarray:
    """Returns images with a random shift, contrast, brightness and noise, independent for each.

    Pixels that a shift uncovers repeat the edge. Noise is the same in the three channels, so that
    a gray image stays gray.

    Args:
        images: uint8 ``[n, h, w, 3]``.
        strength: strength of the changes.
        rng: random generator, used in an order that depends on the shape of `images` alone.

    Examples:
        >>> images = np.full((2, 4, 4, 3), 100, np.uint8)
        >>> jittered = jitter(images, Jitter(brightness=0.1), np.random.default_rng(0))
        >>> bool((np.abs(jittered.astype(int) - 100) <= 10).all())
        True
    """
    jittered = np.empty_like(images)
    for start in range(0, len(images), _BLOCK):
        block = slice(start, start + _BLOCK)
        jittered[block] = _jitter_block(images[block], strength, rng)
    return jittered


def _jitter_block(images: np.ndarray, strength: Jitter, rng: np.random.Generator) -> np.ndarray:
    n, height, width, _ = images.shape
    dy, dx = rng.integers(-strength.shift, strength.shift + 1, (2, n, 1))
    rows = np.clip(np.arange(height) + dy, 0, height - 1)
    columns = np.clip(np.arange(width) + dx, 0, width - 1)
    each = np.arange(n)[:, None, None]
    x = images[each, rows[:, :, None], columns[:, None, :]].astype(np.float32)

    spread = rng.uniform(-1.0, 1.0, (2, n, 1, 1, 1)).astype(np.float32)
    mean = x.mean((1, 2, 3), keepdims=True)
    x = (x - mean) * (1 + strength.contrast * spread[0]) + mean
    x *= 1 + strength.brightness * spread[1]
    if strength.noise:
        noise = rng.standard_normal((n, height, width, 1), np.float32)
        x += 255 * strength.noise * noise
    return np.clip(x + 0.5, 0, 255).astype(np.uint8)
