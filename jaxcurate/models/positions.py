"""Positions of patches: fixed sines and cosines, tables resized to other grids, and rotations."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np


@cache
def sine_cosine(height: int, width: int, n_features: int) -> np.ndarray:
    """Returns fixed sine-cosine embeddings of the positions in a grid.

    Args:
        height: number of patches from top to bottom.
        width: number of patches from left to right.
        n_features: number of features, a multiple of 4.

    Returns:
        float32 ``[height * width, n_features]``, row by row.

    References:
        Chen, Xie, He: An empirical study of training self-supervised vision transformers (2021),
        https://arxiv.org/abs/2104.02057, section 5.

    Examples:
        >>> print(sine_cosine(2, 2, 4)[0])  # sine and cosine of row 0, then of column 0
        [0. 1. 0. 1.]
    """
    frequency = 100.0 ** -(np.arange(n_features // 4) / (n_features // 4))

    def wave(n: int) -> np.ndarray:
        angle = np.arange(n)[:, None] * frequency[None, :]
        return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)

    rows = np.repeat(wave(height), width, axis=0)
    columns = np.tile(wave(width), (height, 1))
    return np.concatenate([rows, columns], axis=1).astype(np.float32)


@cache
def bicubic(n_in: int, n_out: int, *, antialias: bool) -> np.ndarray:
    """Returns the matrix that resizes one axis by bicubic interpolation, as PyTorch does it.

    Pixels have their centers at half-integers. Without antialiasing, the kernel has the parameter
    -0.75, and beyond the border the last pixel is repeated. With it, the parameter is -0.5, the
    kernel is widened when the axis shrinks, and pixels beyond the border are left out.
    ``jax.image.resize`` equals the second only.

    Args:
        n_in: number of pixels before.
        n_out: number of pixels after.
        antialias: whether to low-pass filter an axis that shrinks.

    Returns:
        float32 ``[n_out, n_in]``; each row sums to 1.

    References:
        Keys: Cubic convolution interpolation for digital image processing (1981).
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.interpolate.html

    Examples:
        >>> print(bicubic(2, 4, antialias=False)[0].round(4))
        [ 1.1055 -0.1055]
    """
    step = n_in / n_out
    center = (np.arange(n_out) + 0.5) * step - 0.5
    matrix = np.zeros((n_out, n_in))
    if antialias:
        stretch = max(step, 1.0)
        matrix = _cubic((np.arange(n_in)[None, :] - center[:, None]) / stretch, -0.5)
        return (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)
    first = np.floor(center).astype(int) - 1
    rows = np.arange(n_out)
    for tap in range(4):
        place = first + tap
        np.add.at(matrix, (rows, np.clip(place, 0, n_in - 1)), _cubic(center - place, -0.75))
    return matrix.astype(np.float32)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Returns the cubic convolution kernel with parameter ``a``."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def resize_table(
    table: jax.Array, grid: tuple[int, int], new_grid: tuple[int, int], *, antialias: bool
) -> jax.Array:
    """Resizes a table of positions to another grid by bicubic interpolation.

    Args:
        table: float32 ``[height * width, n_features]``, row by row.
        grid: height and width of the grid of the table.
        new_grid: height and width of the grid of the result.
        antialias: as for :func:`bicubic`.

    Returns:
        float32 ``[new_height * new_width, n_features]``; the table itself for the same grid.

    Examples:
        >>> table = jnp.arange(8.0).reshape(4, 2)
        >>> resize_table(table, (2, 2), (3, 5), antialias=True).shape
        (15, 2)
    """
    if grid == new_grid:
        return table
    down, across = (
        jnp.asarray(bicubic(n_in, n_out, antialias=antialias))
        for n_in, n_out in zip(grid, new_grid, strict=True)
    )
    x = table.reshape(*grid, -1)
    x = jnp.einsum("ij,jkc->ikc", down, x, precision="highest")
    x = jnp.einsum("lk,ikc->ilc", across, x, precision="highest")
    return x.reshape(new_grid[0] * new_grid[1], -1)


@cache
def rotations(
    height: int, width: int, n_features: int, base: float, n_prefix: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns cosines and sines of the rotations of queries and keys, as in DINOv3.

    The first half of the angles of a patch are its row times each frequency, the others its
    column. Both count from -1 to 1, whatever the size of the image. Tokens before the patches
    are not rotated.

    Args:
        height: number of patches from top to bottom.
        width: number of patches from left to right.
        n_features: number of features of a head, a multiple of 4.
        base: ratio of the highest frequency to the lowest one, nearly.
        n_prefix: number of tokens before the patches.

    Returns:
        Two float32 arrays ``[n_prefix + height * width, n_features / 2]``.

    References:
        Siméoni et al.: DINOv3 (2025), https://arxiv.org/abs/2508.10104, section 3.2.

    Examples:
        >>> cosine, sine = rotations(1, 2, 4, base=100.0, n_prefix=1)
        >>> cosine[0].tolist(), sine[0].tolist()  # the class token is not rotated
        ([1.0, 1.0], [0.0, 0.0])
    """
    frequency = base ** -(np.arange(n_features // 4) / (n_features // 4))
    row, column = ((np.arange(n) + 0.5) / n * 2 - 1 for n in (height, width))
    angle = np.stack(
        [
            np.repeat(row, width)[:, None] * frequency[None, :],
            np.tile(column, height)[:, None] * frequency[None, :],
        ],
        axis=1,
    ).reshape(height * width, -1)
    angle = np.concatenate([np.zeros((n_prefix, n_features // 2)), 2 * np.pi * angle])
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


Rotation = tuple[jax.Array, jax.Array]
"""Cosines and sines on the device, with an axis of one entry in the place of images and heads."""


def rotate(x: jax.Array, rotation: Rotation) -> jax.Array:
    """Rotates queries or keys: feature ``i`` together with feature ``i + head / 2``.

    Args:
        x: ``[b, n_heads, n_tokens, head]`` or ``[b, n_tokens, n_heads, head]``.
        rotation: cosines and sines ``[1, 1, n_tokens, head / 2]`` or ``[1, n_tokens, 1, head / 2]``
            from :func:`rotations`.

    Returns:
        The rotated array, of the dtype of ``x``.

    Examples:
        >>> cosine, sine = jnp.zeros((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1))  # of 90 degrees
        >>> print(rotate(jnp.array([[[[1.0, 0.0]]]]), (cosine, sine))[0, 0])
        [[0. 1.]]
    """
    cosine, sine = rotation
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
