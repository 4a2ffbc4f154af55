"""Device mesh, mapping an SPMD kernel over it, and rows split over devices.

A kernel is written once, as ``f(x_local, ..., *, axis_name)``, with the collectives of this
module. :func:`spmd` maps it over a one-dimensional mesh with ``jit(shard_map)`` or, on request,
with ``pmap``; without a mesh the same kernel runs on one device, unmapped. No other file names
either mapper.
"""

import functools
import math
from collections.abc import Callable, Hashable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

Mapper = Literal["shard_map", "pmap"]

AXIS = "rows"
ROWS = P(AXIS)
"""Spec of an argument or a result whose leading axis is split over the devices."""
SAME = P()
"""Spec of an argument or a result that is the same on every device."""

mapper: Mapper = "shard_map"
"""The mapper that :func:`spmd` uses unless told otherwise."""


def make_mesh(n_devices: int | None = None) -> Mesh | None:
    """The one-dimensional mesh over the first devices; None where there is but one.

    Args:
        n_devices: how many devices to use; all of them by default.

    Raises:
        ValueError: fewer devices than that are present.
    """
    present = jax.device_count()
    n_devices = present if n_devices is None else n_devices
    if not 1 <= n_devices <= present:
        raise ValueError(f"n_devices={n_devices}, but {present} device(s) are present")
    if n_devices == 1:
        return None
    devices = np.asarray(jax.devices()[:n_devices])
    return Mesh(devices, (AXIS,), axis_types=(AxisType.Auto,))


def n_shards(mesh: Mesh | None) -> int:
    """In how many parts the rows are split."""
    return 1 if mesh is None else mesh.size


def spmd(
    kernel: Callable[..., Any],
    mesh: Mesh | None,
    in_specs: tuple[P, ...],
    out_specs: Any,
    *,
    mapper: Mapper | None = None,
    **static: Hashable,
) -> Callable[..., Any]:
    """Compiles ``kernel`` and maps it over ``mesh``.

    Calls with equal arguments share one compiled function.

    Args:
        kernel: ``f(*arrays, axis_name, **static)``; ``axis_name`` is None without a mesh.
        mesh: from :func:`make_mesh`.
        in_specs: :data:`ROWS` or :data:`SAME`, one for each array. The leading axis of a
            ``ROWS`` array is a multiple of the number of devices.
        out_specs: the same for the results, as a tree that is a prefix of theirs.
        mapper: ``"shard_map"`` or ``"pmap"``; by default the module's :data:`mapper`.
        **static: hashable keyword arguments, constant under jit.

    Raises:
        ValueError: the mapper is unknown.
    """
    chosen = globals()["mapper"] if mapper is None else mapper
    if chosen not in ("shard_map", "pmap"):
        raise ValueError(f"mapper={chosen!r}; known: 'shard_map', 'pmap'")
    return _mapped(kernel, mesh, in_specs, out_specs, chosen, **static)


@functools.cache
def _mapped(
    kernel: Callable[..., Any],
    mesh: Mesh | None,
    in_specs: tuple[P, ...],
    out_specs: Any,
    mapper: Mapper,
    **static: Hashable,
) -> Callable[..., Any]:
    if mesh is None:
        return jax.jit(functools.partial(kernel, axis_name=None, **static))
    local = functools.partial(kernel, axis_name=AXIS, **static)
    if mapper == "pmap":
        return _pmapped(local, mesh, in_specs, out_specs)
    # The replication check is off since pmap, which runs the same kernels, has none either; the
    # tests hold the two against each other and against one device.
    return jax.jit(
        jax.shard_map(local, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    )


def _pmapped(
    local: Callable[..., Any], mesh: Mesh, in_specs: tuple[P, ...], out_specs: Any
) -> Callable[..., Any]:
    """As :func:`spmd`, with pmap, which wants the device axis apart from the rows."""

    def axes(specs: Any) -> Any:
        is_spec = lambda leaf: isinstance(leaf, P)
        return jax.tree.map(lambda s: 0 if s == ROWS else None, specs, is_leaf=is_spec)

    mapped = jax.pmap(
        local,
        AXIS,
        in_axes=axes(in_specs),
        out_axes=axes(out_specs),
        devices=list(mesh.devices.flat),
    )

    def join(spec: P, part: Any) -> Any:
        if spec != ROWS:
            return part
        return jax.tree.map(lambda a: np.asarray(a).reshape(-1, *a.shape[2:]), part)

    def call(*arrays: Any) -> Any:
        split = [
            np.reshape(a, (mesh.size, -1, *np.shape(a)[1:])) if spec == ROWS else a
            for a, spec in zip(arrays, in_specs, strict=True)
        ]
        out = mapped(*split)
        return jax.tree.map(join, out_specs, out, is_leaf=lambda leaf: isinstance(leaf, P))

    return call


def put_rows(
    x: np.ndarray, mesh: Mesh | None, multiple: int = 1, at_least: int = 0
) -> tuple[jax.Array, jax.Array]:
    """Pads the rows with zeros, splits them over the devices, and marks the real ones.

    Args:
        x: ``[n, ...]`` on the host.
        mesh: from :func:`make_mesh`.
        multiple: each device gets a multiple of so many rows.
        at_least: pad to so many rows or more, so that calls of varying ``n`` share a shape.

    Returns:
        The rows ``[m, ...]`` and their weights, float32 ``[m]``: 1 for a row of ``x``, 0 for
        padding.
    """
    n = len(x)
    m = padded_size(max(n, at_least), n_shards(mesh) * multiple)
    weights = np.zeros(m, np.float32)
    weights[:n] = 1
    if m > n:
        x = np.concatenate([x, np.zeros((m - n, *x.shape[1:]), x.dtype)])
    if mesh is None:
        return jnp.asarray(x), jnp.asarray(weights)
    sharding = NamedSharding(mesh, ROWS)
    return jax.device_put(x, sharding), jax.device_put(weights, sharding)


def padded_size(n: int, multiple: int) -> int:
    """The least multiple of ``multiple`` that is at least ``n``, and at least one of it."""
    return multiple * max(1, math.ceil(n / multiple))


def psum(x: Any, axis_name: str | None) -> Any:
    """Sum over the devices of the named axis; ``x`` itself where nothing is mapped."""
    return x if axis_name is None else jax.lax.psum(x, axis_name)


def all_gather(x: jax.Array, axis_name: str | None) -> jax.Array:
    """The devices' parts joined along their leading axis, on every device."""
    return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def axis_index(axis_name: str | None) -> jax.Array | int:
    """The position of this device along the named axis."""
    return 0 if axis_name is None else jax.lax.axis_index(axis_name)
