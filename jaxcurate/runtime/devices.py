"""Device mesh, mapping an SPMD kernel over it, and rows split over devices.

A kernel is written once, as ``f(x_local, ..., *, axis_name)``, with the collectives of this
module. :func:`spmd` maps it over a one-dimensional mesh with ``jit(shard_map)`` or, on request,
with ``pmap``; without a mesh the same kernel runs on one device, unmapped. No other file names
either mapper.

Over several processes, which :mod:`jaxcurate.runtime.processes` brings together, each runs the same
program on the same arguments. The mesh has the devices of all; a process reads the rows of its
own (:func:`put_rows`), does its part of what the host does (:func:`share`), and gets whole
results (:func:`fetch`).
"""

import functools
import io
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcurate.checks import InputError
from jaxcurate.runtime import steps

Mapper = Literal["shard_map", "pmap"]

AXIS = "rows"
ROWS = P(AXIS)
"""Spec of an argument or a result whose leading axis is split over the devices."""
SAME = P()
"""Spec of an argument or a result that is the same on every device."""

mapper: Mapper = "shard_map"
"""The mapper that :func:`spmd` uses unless told otherwise."""
compiled_for: list[Callable[[], Hashable]] = []
"""What kernels read while they are traced, other than their arguments, as functions that tell it.
:func:`spmd` compiles anew when any of it has changed."""

_PIECE_BYTES = 2**18
_ALIGNED_BYTES = 64


class RowsLike(Protocol):
    """Rows ``[n, ...]`` on the host or in a file: an array, or what can be sliced like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array."""

    @property
    def dtype(self) -> np.dtype:
        """As of an array."""

    def __len__(self) -> int:
        """How many rows."""

    def __getitem__(self, rows: Any) -> np.ndarray:
        """The rows of a slice, or of an array of numbers."""


def make_mesh(n_devices: int | None = None) -> Mesh | None:
    """The one-dimensional mesh over the first devices; None where there is but one.

    Args:
        n_devices: how many devices to use; all of them by default, those of other processes
            included. With 1, every process works by itself.

    Raises:
        ValueError: fewer devices than that are present, or a process would have none.
    """
    present = jax.device_count()
    n_devices = present if n_devices is None else n_devices
    if not 1 <= n_devices <= present:
        raise InputError(f"n_devices={n_devices}, but {present} device(s) are present")
    if n_devices == 1:
        return None
    devices = np.asarray(jax.devices()[:n_devices])
    mesh = Mesh(devices, (AXIS,), axis_types=(AxisType.Auto,))
    if len(owners(mesh)) < jax.process_count():
        raise InputError(
            f"n_devices={n_devices} leaves some of the {jax.process_count()} processes without a "
            f"device; {present} are present"
        )
    return mesh


def spans_processes(mesh: Mesh | None) -> bool:
    """Whether the devices are those of several processes."""
    return mesh is not None and len(owners(mesh)) > 1


def owners(mesh: Mesh) -> dict[int, list[int]]:
    """Returns the processes of a mesh, in order, and where in it their devices are."""
    places: dict[int, list[int]] = {}
    for place, device in enumerate(mesh.devices.flat):
        places.setdefault(device.process_index, []).append(place)
    return dict(sorted(places.items()))


def n_shards(mesh: Mesh | None) -> int:
    """In how many parts the rows are split."""
    return 1 if mesh is None else mesh.size


def spmd(
    kernel: Callable[..., Any],
    mesh: Mesh | None,
    in_specs: tuple[Any, ...],
    out_specs: Any,
    *,
    mapper: Mapper | None = None,
    **static: Hashable,
) -> Callable[..., Any]:
    """Compiles ``kernel`` and maps it over ``mesh``.

    Calls with equal arguments share one compiled function, as long as :data:`compiled_for` tells
    the same.

    Args:
        kernel: ``f(*arrays, axis_name, **static)``; ``axis_name`` is None without a mesh.
        mesh: from :func:`make_mesh`.
        in_specs: :data:`ROWS` or :data:`SAME`, one for each array, or a tree of them for a tree
            of arrays. The leading axis of a ``ROWS`` array is a multiple of the number of devices.
        out_specs: the same for the results, as a tree that is a prefix of theirs.
        mapper: ``"shard_map"`` or ``"pmap"``; by default the module's :data:`mapper`.
        **static: hashable keyword arguments, constant under jit.

    Raises:
        ValueError: the mapper is unknown, or cannot reach the devices of other processes.
    """
    chosen = globals()["mapper"] if mapper is None else mapper
    if chosen not in ("shard_map", "pmap"):
        raise InputError(f"mapper={chosen!r}; known: 'shard_map', 'pmap'")
    if chosen == "pmap" and spans_processes(mesh):
        raise InputError("mapper='pmap' works in one process; use 'shard_map' over several")
    read = tuple(tell() for tell in compiled_for)
    return _mapped(kernel, mesh, in_specs, out_specs, chosen, read, **static)


@functools.cache
def _mapped(
    kernel: Callable[..., Any],
    mesh: Mesh | None,
    in_specs: tuple[Any, ...],
    out_specs: Any,
    mapper: Mapper,
    read: tuple[Hashable, ...],
    **static: Hashable,
) -> Callable[..., Any]:
    del read  # it tells calls apart
    if mesh is None:
        return jax.jit(functools.partial(kernel, axis_name=None, **static))
    local = functools.partial(kernel, axis_name=AXIS, **static)
    if mapper == "pmap":
        return _pmapped(local, mesh, in_specs, out_specs)
    # The replication check is off since pmap, which runs the same kernels, has none either; the
    # tests hold the two against each other and against one device.
    mapped = jax.jit(
        jax.shard_map(local, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    )
    return (
        _Counted(mapped, getattr(kernel, "__name__", "kernel")) if spans_processes(mesh) else mapped
    )


class _Counted:
    """A mapped kernel whose calls count as steps that every process takes."""

    def __init__(self, mapped: Callable[..., Any], name: str) -> None:
        self._mapped, self._name = mapped, name

    def __call__(self, *arrays: Any) -> Any:
        steps.begin(self._name)
        return self._mapped(*arrays)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mapped, name)


def _pmapped(
    local: Callable[..., Any], mesh: Mesh, in_specs: tuple[Any, ...], out_specs: Any
) -> Callable[..., Any]:
    """As :func:`spmd`, with pmap, which wants the device axis apart from the rows."""

    is_spec = lambda leaf: isinstance(leaf, P)

    def axes(specs: Any) -> Any:
        return jax.tree.map(lambda s: 0 if s == ROWS else None, specs, is_leaf=is_spec)

    mapped = jax.pmap(
        local,
        AXIS,
        in_axes=axes(in_specs),
        out_axes=axes(out_specs),
        devices=list(mesh.devices.flat),
    )

    def split(spec: P, whole: Any) -> Any:
        if spec != ROWS:
            return whole
        return jax.tree.map(lambda a: np.reshape(a, (mesh.size, -1, *np.shape(a)[1:])), whole)

    def join(spec: P, part: Any) -> Any:
        if spec != ROWS:
            return part
        return jax.tree.map(lambda a: np.asarray(a).reshape(-1, *a.shape[2:]), part)

    def call(*arrays: Any) -> Any:
        out = mapped(*jax.tree.map(split, in_specs, arrays, is_leaf=is_spec))
        return jax.tree.map(join, out_specs, out, is_leaf=is_spec)

    return call


def put_rows(
    x: RowsLike, mesh: Mesh | None, multiple: int = 1, at_least: int = 0
) -> tuple[jax.Array, jax.Array]:
    """Pads the rows with zeros, splits them over the devices, and marks the real ones.

    Over several processes each reads only the rows that its devices hold.

    Args:
        x: ``[n, ...]`` on the host or in a file, the same in every process.
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

    def padded(begin: int, end: int) -> np.ndarray:
        # A piece at a time: rows that are made when they are read are not held twice.
        out = _aligned((end - begin, *x.shape[1:]), x.dtype)
        out[max(0, n - begin) :] = 0
        step = max(1, _PIECE_BYTES // max(1, out[:1].nbytes))
        for first in range(begin, min(end, n), step):
            last = min(first + step, end, n)
            out[first - begin : last - begin] = x[first:last]
        return out

    if mesh is None:
        return jax.device_put(padded(0, m)), jax.device_put(weights)
    if spans_processes(mesh):
        steps.begin("put_rows")
    sharding = NamedSharding(mesh, ROWS)
    return (
        jax.make_array_from_callback(
            (m, *x.shape[1:]), sharding, lambda index: padded(*index[0].indices(m)[:2])
        ),
        jax.make_array_from_callback((m,), sharding, lambda index: weights[index]),
    )


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array, not filled, that begins where a CPU device takes it as it is, without a copy."""
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(n_bytes + _ALIGNED_BYTES, np.uint8)
    begin = -room.ctypes.data % _ALIGNED_BYTES
    return room[begin : begin + n_bytes].view(dtype).reshape(shape)


def fetch(array: jax.Array | np.ndarray) -> np.ndarray:
    """The whole array on the host. Where other processes hold parts of it, all have to call."""
    if not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    steps.begin("fetch")
    return multihost_utils.process_allgather(array, tiled=True)


def share(
    items: Sequence[Any],
    work: Callable[[Sequence[Any]], tuple[np.ndarray, ...]],
    mesh: Mesh | None,
) -> tuple[np.ndarray, ...]:
    """Divides work of the host among the processes; all of them get all that it gives.

    Args:
        items: what is to be worked on. Each process takes a run of them.
        work: gets some of the items, or none, and returns arrays; for each of them, what the
            runs gave is joined along the leading axis, bit for bit, in the order of the items.
        mesh: whose processes take part, all of them calling. Within one process this is
            ``work(items)``.

    Raises:
        InputError: ``work`` raised it in some process; every process raises the first.
        RuntimeError: the same for any other error.
    """
    if not spans_processes(mesh):
        return work(items)
    steps.begin("share")
    processes = list(owners(mesh))
    place, n = processes.index(jax.process_index()), len(processes)
    failure = None
    try:
        own = work(items[len(items) * place // n : len(items) * (place + 1) // n])
        packed = _packed(*own)
    except Exception as error:
        failure, packed = error, _packed(error=np.array([_kind(error), str(error)]))
    given = [dict(np.load(io.BytesIO(one), allow_pickle=False)) for one in _gather(packed, mesh)]
    for process, one in zip(processes, given, strict=True):
        if "error" in one:
            kind, message = one["error"].tolist()
            if kind == InputError.__name__:
                raise InputError(message) from failure
            raise RuntimeError(f"process {process} failed: {kind}: {message}") from failure
    return tuple(np.concatenate(runs) for runs in zip(*map(dict.values, given), strict=True))


def _kind(error: Exception) -> str:
    return (InputError if isinstance(error, InputError) else type(error)).__name__


def _packed(*arrays: np.ndarray, **named: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, *arrays, **named)
    return buffer.getvalue()


def _gather(own: bytes, mesh: Mesh) -> list[bytes]:
    """What each process gives, in their order. Bytes, for devices know no float64."""
    places_of = owners(mesh)
    mine = places_of[jax.process_index()]

    def exchanged(pieces: np.ndarray) -> np.ndarray:
        """From bytes ``[devices of this process, w]`` to those of all devices."""
        shape, sharding = (mesh.size, pieces.shape[1]), NamedSharding(mesh, ROWS)
        piece_of = lambda index: pieces[[mine.index(index[0].start)]]
        return fetch(jax.make_array_from_callback(shape, sharding, piece_of))

    size = np.frombuffer(np.int64(len(own)).tobytes(), np.uint8)
    sizes = exchanged(np.tile(size, (len(mine), 1))).view(np.int64)[:, 0]
    # The devices of a process carry a piece each.
    width = max(-(-int(sizes[places[0]]) // len(places)) for places in places_of.values())
    pieces = np.zeros((len(mine), width), np.uint8)
    pieces.reshape(-1)[: len(own)] = np.frombuffer(own, np.uint8)
    whole = exchanged(pieces)
    return [whole[places].tobytes()[: int(sizes[places[0]])] for places in places_of.values()]


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


def axis_size(axis_name: str | None) -> int:
    """How many devices the named axis has."""
    return 1 if axis_name is None else jax.lax.psum(1, axis_name)


def from_next(x: jax.Array, axis_name: str | None) -> jax.Array:
    """What the next device along the named axis has; the last gets it from the first."""
    n = axis_size(axis_name)
    if n == 1:
        return x
    return jax.lax.ppermute(x, axis_name, [((i + 1) % n, i) for i in range(n)])
