"""Calibration of the machine at hand: products, nearest centroids, memory, and the compiler."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcurate.kmeans.kernels.scores import HIGHEST
from jaxcurate.kmeans.lloyd import assigned
from jaxcurate.kmeans.normalize import fit_normalizer
from jaxcurate.kmeans.rows import block_rows
from jaxcurate.runtime.devices import ROWS, SAME, Devices, padded_size

_SECONDS = 1.5
"""Time for which each kernel is repeated."""


class Rates(NamedTuple):
    """Rates of all devices of the machine together."""

    products: float
    """Products of float32 numbers, FLOP/s."""
    assignments: float
    """Searches of nearest centroids, FLOP/s."""
    memory: float
    """Bytes a second that are read and written."""
    host: float
    """Bytes of rows a second that a process normalizes."""
    compilation: float
    """Time in which the kernel of an assignment is compiled, in seconds."""


def calibrate(
    devices: Devices, d: int = 128, k: int = 512, clock: Callable[[], float] = time.perf_counter
) -> Rates:
    """Times the kernels of k-means on the devices at hand, for some ten seconds.

    Args:
        devices: the devices.
        d: number of columns of the rows.
        k: number of centroids.
        clock: function that returns a time in seconds; one of the processor's time over the number
            of devices gives rates that other programs do not disturb.

    Examples:
        >>> import jaxcurate as jc
        >>> rates = calibrate(jc.Devices.first(1), d=16, k=32)
        >>> min(rates) > 0
        True
    """
    block = block_rows()
    # Rows beyond the caches, and few enough that a run takes a fraction of a second.
    n = padded_size(min(2**18, max(2**13, 2**25 // d)), devices.count * block)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d)).astype(np.float32)
    centroids = x[:k].copy()
    rows, _ = devices.put_rows(x, block)

    search = devices.spmd(assigned, (ROWS, SAME), (ROWS, ROWS), block=block)
    # A number of rows that was never compiled for, or the compilation cache would be timed.
    n_new = block * devices.count * int(np.random.default_rng().integers(10_000, 100_000))
    shapes = [jax.ShapeDtypeStruct((n_new, d), np.float32), centroids]
    begun = clock()
    search.lower(*shapes).compile()
    compilation = clock() - begun

    assignments = _rate(lambda: search(rows, centroids), clock) * 2.0 * n * d * k
    product = devices.spmd(_product, (ROWS, SAME), ROWS, block=block)
    products = _rate(lambda: product(rows, centroids), clock) * 2.0 * n * d * k
    passing = devices.spmd(_passing, (ROWS,), ROWS)
    memory = _rate(lambda: passing(rows), clock) * 2.0 * 4 * n * d

    def normalize() -> np.ndarray:
        return fit_normalizer(x).transform(x)

    host = _rate(normalize, clock) * 2.0 * 4 * n * d
    return Rates(products, assignments, memory, host, compilation)


def _rate(run: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Returns the number of times that a function runs in a second."""
    jax.block_until_ready(run())
    times, begun = 0, clock()
    while times < 2 or (clock() - begun < _SECONDS and times < 50):
        jax.block_until_ready(run())
        times += 1
    return times / (clock() - begun)


def _product(x: jax.Array, centroids: jax.Array, *, block: int, axis_name: str | None) -> jax.Array:
    """Returns the sum over the centroids of each product of a row, ``[n]``."""
    del axis_name
    one = functools.partial(jnp.dot, precision=HIGHEST)
    sums = jax.lax.map(
        lambda rows: jnp.sum(one(rows, centroids.T), axis=1), x.reshape(-1, block, x.shape[1])
    )
    return sums.reshape(-1)


def _passing(x: jax.Array, *, axis_name: str | None) -> jax.Array:
    """Returns the rows with each number increased, which reads and writes all of them."""
    del axis_name
    return x + 1
