"""Placement of one large run on a mesh: batches split, and its state copied or split (FSDP)."""

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcurate.runtime.devices import AXIS, SAME, Devices


def mesh_of(devices: Devices) -> Mesh:
    """Returns the mesh of the devices, of one device where nothing is mapped.

    Examples:
        >>> mesh_of(Devices.first(1)).size
        1
    """
    if devices.mesh is not None:
        return devices.mesh
    return Mesh(np.asarray(jax.local_devices()[:1]), (AXIS,), axis_types=(AxisType.Auto,))


def state_shardings(state: Any, mesh: Mesh, shard_bytes: int) -> Any:
    """Returns the sharding of every array of a state.

    From ``shard_bytes`` on, each array of two axes or more is split along its largest axis that
    the number of devices divides (fully sharded data parallelism, FSDP). Vectors, which make up
    less than a hundredth of a model, and arrays without such an axis are copied to each device.

    Args:
        state: pytree of arrays or of their shapes.
        mesh: mesh of one axis.
        shard_bytes: size of the whole state, in bytes, from which on arrays are split.

    References:
        Rajbhandari, Rasley, Ruwase, He: ZeRO: memory optimizations toward training trillion
        parameter models (2020), https://arxiv.org/abs/1910.02054.

    Examples:
        >>> state = {"kernel": np.zeros((3, 8), np.float32), "bias": np.zeros(8, np.float32)}
        >>> shardings = state_shardings(state, mesh_of(Devices.first(1)), shard_bytes=2**30)
        >>> shardings["kernel"].spec
        P()
    """
    n_bytes = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))
    is_split = mesh.size > 1 and n_bytes >= shard_bytes

    def of_array(x: Any) -> NamedSharding:
        axes = [i for i, size in enumerate(x.shape) if size and size % mesh.size == 0]
        if not is_split or x.ndim < 2 or not axes:
            return NamedSharding(mesh, SAME)
        split = max(axes, key=lambda i: x.shape[i])
        return NamedSharding(mesh, P(*(AXIS if i == split else None for i in range(x.ndim))))

    return jax.tree.map(of_array, state)


def put_same(tree: Any, mesh: Mesh) -> Any:
    """Returns arrays of the host, which are the same in each process, copied to each device."""
    sharding = NamedSharding(mesh, SAME)

    def put(x: Any) -> jax.Array:
        host = np.asarray(x)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(put, tree)


def put_batch(array: np.ndarray, mesh: Mesh) -> jax.Array:
    """Returns this process's part of a batch as an array that is split over all devices.

    Args:
        array: ``[b / n_processes, ...]``.
        mesh: mesh of the devices of all processes.

    Returns:
        ``[b, ...]``, of which each device holds its part.
    """
    return jax.make_array_from_process_local_data(NamedSharding(mesh, P(AXIS)), array)


def split_rows(tree: Any, mesh: Mesh) -> Any:
    """Splits the leading axis of arrays over the devices, within a compiled function."""
    sharding = NamedSharding(mesh, P(AXIS))
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, sharding), tree)


def split_pictures(crops: jax.Array) -> jax.Array:
    """Splits crops of pictures ``[n, b, ...]`` by pictures over the devices of the mesh in use.

    XLA cannot tell that the crops of a picture belong together after they have been one axis, and
    would give all of them to each device. Without a mesh, as where each run has a device of its
    own, nothing is done.

    Examples:
        >>> split_pictures(jax.numpy.zeros((2, 3, 4))).shape
        (2, 3, 4)
    """
    is_split = AXIS in jax.sharding.get_abstract_mesh().auto_axes
    return jax.lax.with_sharding_constraint(crops, P(None, AXIS)) if is_split else crops


def parts(array: jax.Array, n: int, mesh: Mesh) -> jax.Array:
    """Returns ``n`` parts of a batch, ``[n, b / n, ...]``, each of which all devices share.

    Part ``i`` has the rows ``i``, ``i + n`` and so on, so that no row moves to another device.
    """
    whole = array.reshape(-1, n, *array.shape[1:]).swapaxes(0, 1)
    return jax.lax.with_sharding_constraint(whole, NamedSharding(mesh, P(None, AXIS)))
