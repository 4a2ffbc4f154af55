"""Collectives of kernels, which do nothing where a kernel runs on one device, unmapped."""

from typing import Any

import jax


def psum(x: Any, axis_name: str | None) -> Any:
    """Returns sum over the devices of the named axis; ``x`` itself where nothing is mapped."""
    return x if axis_name is None else jax.lax.psum(x, axis_name)


def all_gather(x: jax.Array, axis_name: str | None) -> jax.Array:
    """Returns the devices' parts joined along their leading axis, on every device."""
    return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def axis_index(axis_name: str | None) -> jax.Array | int:
    """Returns the position of this device along the named axis."""
    return 0 if axis_name is None else jax.lax.axis_index(axis_name)


def axis_size(axis_name: str | None) -> int:
    """Returns how many devices the named axis has."""
    return 1 if axis_name is None else jax.lax.psum(1, axis_name)


def from_next(x: jax.Array, axis_name: str | None) -> jax.Array:
    """Returns what the next device along the named axis has; the last gets it from the first."""
    n = axis_size(axis_name)
    if n == 1:
        return x
    return jax.lax.ppermute(x, axis_name, [((i + 1) % n, i) for i in range(n)])
