"""Principal components of pixels, as an encoder that is fitted to the pool itself in one pass."""

import contextlib
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.sparse.linalg

from jaxcurate.checks import InputError
from jaxcurate.encoders.base import Batches, EmbedConfig, Encoder
from jaxcurate.encoders.pixels import pixels, prepare
from jaxcurate.runtime import collectives
from jaxcurate.runtime.devices import ROWS, SAME, Devices

_HIGHEST = jax.lax.Precision.HIGHEST
MOST_COLUMNS = 8192
"""Largest number of columns; the covariance of more would take more than half a gigabyte."""


class PCA(NamedTuple):
    """Projection onto the directions in which the pool varies most."""

    mean: np.ndarray
    """Mean of the rows, float32 ``[d]``."""
    components: np.ndarray
    """Principal components, float32 ``[c, d]``, orthonormal, by descending variance."""


def make(settings: EmbedConfig, batches: Batches, devices: Devices) -> Encoder:
    """Returns the encoder, fitted in one pass over all items.

    Raises:
        InputError: there are no items, or more than :data:`MOST_COLUMNS` columns.
    """
    small = prepare(settings)
    fitted = fit_pca(batches(small), settings.n_components, devices=devices)
    return Encoder(project, fitted, ("picture", "vector"), small)


def fit_pca(
    batches: Iterable[np.ndarray],
    n_components: int,
    *,
    devices: Devices | None = None,
) -> PCA:
    """Fits principal components to all items, which are read once.

    The second moments of each batch are computed in float32 on the devices, and summed in float64
    on the host.

    Args:
        batches: uint8 ``[b, h, w, c]`` or float ``[b, d]``; every value of ``b`` compiles a
            function, so there should be at most two.
        n_components: number of components to keep, at most the number of columns and of items.
        devices: the devices to use; all by default.

    Returns:
        The mean and the components.

    Raises:
        InputError: there are no items, or more than :data:`MOST_COLUMNS` columns.

    References:
        Pearson: On lines and planes of closest fit to systems of points in space (1901).

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(40, 1)) * np.array([[3.0, 4.0]])  # varies along one line
        >>> fitted = fit_pca([x.astype(np.float32)], n_components=1)
        >>> print(fitted.components.round(3))
        [[0.6 0.8]]
    """
    devices = Devices.all() if devices is None else devices
    moments = devices.spmd(_moments, (ROWS, ROWS, SAME), (SAME, SAME))
    shift, total, products, n = None, 0.0, 0.0, 0
    for batch in batches:
        if shift is None:
            # Any point amid the data keeps the moments small; the exact mean is computed below.
            shift = np.asarray(pixels(jnp.asarray(batch))).mean(axis=0)
            if len(shift) > MOST_COLUMNS:
                raise InputError(
                    f"pca of {len(shift)} columns, at most {MOST_COLUMNS}: lower the resolution"
                )
        sums, outer = moments(*devices.put_rows(batch), shift)
        total = total + np.asarray(sums, np.float64)
        products = products + np.asarray(outer, np.float64)
        n += len(batch)
    if shift is None:
        raise InputError("pca has no items to be fitted to")
    offset = total / n
    covariance = products / n - np.outer(offset, offset)
    d = len(shift)
    kept = min(n_components, d, n)
    components = _leading_eigenvectors(covariance, kept)
    # The sign of a direction is arbitrary: make its largest entry positive.
    largest = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], axis=1)
    components = components * np.where(largest < 0, -1.0, 1.0)
    return PCA((shift + offset).astype(np.float32), components.astype(np.float32))


def project(images: jax.Array, pca: PCA) -> jax.Array:
    """Returns the coordinates of items ``[b, ...]`` along the components, float32 ``[b, c]``."""
    centered = pixels(images) - pca.mean[None, :]
    return jnp.dot(centered, pca.components.T, precision=_HIGHEST)


def _leading_eigenvectors(matrix: np.ndarray, k: int) -> np.ndarray:
    """Returns the eigenvectors ``[k, d]`` of the largest eigenvalues of a symmetric matrix."""
    d = len(matrix)
    if not matrix.any():  # all items are equal: any directions will do
        return np.eye(k, d)
    if 4 * k < d:
        # Lanczos, to machine precision, takes a seventh of the time of a full solver at d=3072.
        start = np.random.default_rng(0).normal(size=d)
        with contextlib.suppress(scipy.sparse.linalg.ArpackError):  # it may not converge
            values, vectors = scipy.sparse.linalg.eigsh(matrix, k, v0=start, which="LA")
            return vectors.T[np.argsort(-values)]
    _, vectors = scipy.linalg.eigh(matrix, subset_by_index=[d - k, d - 1])
    return vectors.T[::-1]


def _moments(
    images: jax.Array,
    weights: jax.Array,
    shift: jax.Array,
    *,
    axis_name: str | None,
) -> tuple[jax.Array, jax.Array]:
    """Returns the sum ``[d]`` and the sum of outer products ``[d, d]`` of the shifted rows."""
    rows = (pixels(images) - shift[None, :]) * weights[:, None]
    outer = jnp.dot(rows.T, rows, precision=_HIGHEST)
    return collectives.psum((jnp.sum(rows, axis=0), outer), axis_name)
