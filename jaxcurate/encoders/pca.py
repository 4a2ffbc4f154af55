"""Principal components of pixels, as an encoder that is fitted to the pool itself in one pass."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

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
from jaxcurate.runtime.sharing import share

_HIGHEST = jax.lax.Precision.HIGHEST
MOST_COLUMNS = 8192
"""Largest number of columns; the covariance of more would take more than half a gigabyte."""
_BYTES_AT_ONCE = 2**27
"""Number of bytes of the products of all processes that are exchanged at a time."""


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

    The second moments of each batch are computed in float32 on the devices of this process, and
    summed in float64 on the host, where sums of float32 are mostly exact. If the processes have the
    batches of one process among them, in order, each with as many devices as that one, the result
    has the same bits wherever the sums are exact, and otherwise differs by rounding of float64.

    Args:
        batches: uint8 ``[b, h, w, c]`` or float ``[b, d]``; every value of ``b`` compiles a
            function, so there should be at most two. Of several processes, each gives its own
            items, and there may be none.
        n_components: number of components to keep, at most the number of columns and of items.
        devices: the devices to use; all by default. Their processes have to call together.

    Returns:
        The mean and the components of the items of all processes.

    Raises:
        InputError: there are no items, or more than :data:`MOST_COLUMNS` columns; or reading the
            batches raised it, in any process.

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
    every, own = range(max(1, len(devices.owners))), iter(batches)
    first: list[np.ndarray] = []

    def mean_of_first(_: Any) -> tuple[np.ndarray, np.ndarray]:
        first.extend(itertools.islice(own, 1))
        means = [np.asarray(pixels(jnp.asarray(batch))).mean(axis=0) for batch in first]
        mean = np.concatenate([np.zeros(0, np.float32), *means])
        return mean, np.array([len(mean)])

    # Any point amid the data keeps the moments small; the exact mean is computed below.
    means, sizes = share(every, mean_of_first, devices)
    d = int(sizes.max())
    if not d:
        raise InputError("pca has no items to be fitted to")
    if d > MOST_COLUMNS:
        raise InputError(f"pca of {d} columns, at most {MOST_COLUMNS}: lower the resolution")
    shift, products = means[:d], np.zeros((d, d))

    def moments(_: Any) -> tuple[np.ndarray, np.ndarray]:
        n, total = _add_moments(itertools.chain(first, own), shift, products, devices.local)
        return np.array([n]), total[None]

    counts, totals = share(every, moments, devices)
    n, total = int(counts.sum()), totals.sum(axis=0)
    step = max(1, _BYTES_AT_ONCE // (8 * d * len(every)))
    for begin in range(0, d, step):
        rows = products[begin : begin + step]
        (parts,) = share(every, lambda _, rows=rows: (rows[None],), devices)
        rows[:] = parts.sum(axis=0)
    offset = total / n
    covariance = products / n - np.outer(offset, offset)
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


def _add_moments(
    batches: Iterator[np.ndarray], shift: np.ndarray, products: np.ndarray, devices: Devices
) -> tuple[int, np.ndarray]:
    """Adds the products of the columns of shifted rows to ``products``, float64 ``[d, d]``.

    Returns:
        The number of rows, and their sum, float64 ``[d]``.
    """
    moments = devices.spmd(_moments, (ROWS, ROWS, SAME), (SAME, SAME))
    n, total = 0, np.zeros(len(shift))
    for batch in batches:
        sums, outer = moments(*devices.put_rows(batch), shift)
        total += np.asarray(sums)
        products += np.asarray(outer)
        n += len(batch)
    return n, total


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
