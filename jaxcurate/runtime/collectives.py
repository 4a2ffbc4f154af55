"""Collectives of kernels, which do nothing in a kernel that runs unmapped on one device."""

from typing import Any

import jax


def psum(x: Any, axis_name: str | None) -> Any:
    """Returns the sum over the devices of the named axis; ``x`` itself if nothing is mapped.

    Examples:
        >>> from jaxcurate.runtime.collectives import psum
        >>> psum(3, axis_name=None)
        3
    """
    return x if axis_name is None else jax.lax.psum(x, axis_name)


def all_gather(x: jax.Array, axis_name: str | None) -> jax.Array:
    """Returns the parts of all devices joined along the leading axis, on each device."""
    return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def axis_index(axis_name: str | None) -> jax.Array | int:
    """Returns the position of this device along the named axis."""
    return 0 if axis_name is None else jax.lax.axis_index(axis_name)


def axis_size(axis_name: str | None) -> int:
    """Returns the number of devices of the named axis."""
    return 1 if axis_name is None else jax.lax.psum(1, axis_name)


def from_next(x: jax.Array, axis_name: str | None) -> jax.Array:
    """Returns the array of the next device along the named axis; the last gets the first's."""
    n = axis_size(axis_name)
    if n == 1:
        return x
    return jax.lax.ppermute(x, axis_name, [((i + 1) % n, i) for i in range(n)])
