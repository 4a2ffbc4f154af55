"""Devices of a computation: kernels are mapped over them, and rows are split over them.

A kernel is written once, as ``f(x_local, ..., *, axis_name)``, with the collectives of
:mod:`jaxcurate.runtime.collectives`. :meth:`Devices.spmd` maps it over a one-dimensional mesh with
``jit(shard_map)`` or, on request, with ``pmap``; on one device the same kernel runs unmapped. No
other file names either mapper.

Several processes, which :mod:`jaxcurate.runtime.processes` brings together, each run the same
program on the same arguments. The mesh has the devices of all processes. A process reads the rows
of its devices (:meth:`Devices.put_rows`), does its part of the work of the host
(:func:`jaxcurate.runtime.sharing.share`), and gets whole results (:func:`fetch`).
"""

import functools
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, get_args

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcurate.checks import InputError, check_choice
from jaxcurate.runtime import steps
from jaxcurate.runtime.compile_cache import use_compile_cache
from jaxcurate.runtime.compiler_options import quick_options

Mapper = Literal["shard_map", "pmap"]

AXIS = "rows"
ROWS = P(AXIS)
"""Spec of an argument or a result whose leading axis is split over the devices."""
SAME = P()
"""Spec of an argument or a result that is the same on every device."""


def specs(kind: Callable[..., Any], *leaves: Any) -> Any:
    """Returns a tree of specs, such as a NamedTuple of arrays with specs in their places."""
    return kind(*leaves)


compiled_for: list[Callable[[], Hashable]] = []
"""Functions without arguments that return values which kernels read while they are traced.
:meth:`Devices.spmd` compiles anew when a value has changed."""

_BLOCK_BYTES = 2**18
_ALIGNED_BYTES = 64


class RowsLike(Protocol):
    """Rows ``[n, ...]`` on the host or in a file, which are indexed as an array is."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes, rows first."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers."""
        ...

    def __len__(self) -> int:
        """Returns the number of rows."""
        ...

    def __getitem__(self, rows: Any, /) -> Any:
        """Returns the rows of a slice, or of an array of numbers, as an array."""
        ...


@dataclass(frozen=True)
class Devices:
    """Devices that a computation runs on, and the mapper that spreads kernels over them.

    Examples:
        >>> import jaxcurate as jc
        >>> jc.Devices.first(1).count
        1
    """

    mesh: Mesh | None = None
    """One-dimensional mesh over the devices; None for one device, on which nothing is mapped."""
    mapper: Mapper = "shard_map"
    """``"shard_map"``, or ``"pmap"``, which works in one process."""

    def __post_init__(self) -> None:
        check_choice("mapper", self.mapper, get_args(Mapper))

    @classmethod
    def first(cls, n_devices: int | None = None, mapper: Mapper = "shard_map") -> "Devices":
        """Returns the first ``n_devices`` devices.

        Args:
            n_devices: Number of devices; by default all, including those of other processes. With
                1, each process works by itself.
            mapper: Mapper to use.

        Raises:
            InputError: Fewer devices are present, or a process would have none.
        """
        use_compile_cache()
        present = jax.device_count()
        n_devices = present if n_devices is None else n_devices
        if not 1 <= n_devices <= present:
            raise InputError(f"n_devices={n_devices}, but {present} device(s) are present")
        if n_devices == 1:
            return cls(None, mapper)
        chosen = np.asarray(jax.devices()[:n_devices])
        devices = cls(Mesh(chosen, (AXIS,), axis_types=(AxisType.Auto,)), mapper)
        if len(devices.owners) < jax.process_count():
            raise InputError(
                f"n_devices={n_devices} leaves some of the {jax.process_count()} processes "
                f"without a device; {present} are present"
            )
        return devices

    @classmethod
    def all(cls) -> "Devices":
        """Returns all devices, including those of other processes."""
        return cls.first()

    @property
    def local(self) -> "Devices":
        """Devices of this process, out of all devices of the computation."""
        if self.mesh is None or not self.span_processes:
            return self
        mine = [device for device in self.mesh.devices.flat if device in jax.local_devices()]
        if len(mine) == 1:
            return Devices(None, self.mapper)
        mesh = Mesh(np.asarray(mine), (AXIS,), axis_types=(AxisType.Auto,))
        return Devices(mesh, self.mapper)

    @property
    def count(self) -> int:
        """Number of devices that rows are split over."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def platform(self) -> str:
        """Name of the platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``."""
        return jax.default_backend() if self.mesh is None else self.mesh.devices.flat[0].platform

    @property
    def owners(self) -> dict[int, list[int]]:
        """Positions in the mesh of the devices of each process, by the process index."""
        places: dict[int, list[int]] = {}
        if self.mesh is not None:
            for place, device in enumerate(self.mesh.devices.flat):
                places.setdefault(device.process_index, []).append(place)
        return dict(sorted(places.items()))

    @property
    def span_processes(self) -> bool:
        """True if the devices belong to several processes."""
        return len(self.owners) > 1

    def spmd(
        self,
        kernel: Callable[..., Any],
        in_specs: tuple[Any, ...],
        out_specs: Any,
        *,
        quick: bool = False,
        **static: Hashable,
    ) -> Callable[..., Any]:
        """Returns ``kernel`` compiled and mapped over the devices.

        Calls with equal arguments share a compiled function, while the values of
        :data:`compiled_for` stay the same.

        Args:
            kernel: Function ``f(*arrays, axis_name, **static)``; ``axis_name`` is None on one
                device.
            in_specs: :data:`ROWS` or :data:`SAME` for each array, or a tree of them for a tree of
                arrays. The leading axis of a ``ROWS`` array is a multiple of the number of
                devices.
            out_specs: Specs of the results, as a tree that is a prefix of theirs.
            quick: True for arrays so small that compiling takes longer than running: on a CPU, the
                kernel is compiled with less effort. The results are the same.
            **static: Hashable keyword arguments, constant under jit.

        Raises:
            InputError: The mapper cannot reach the devices of other processes.
        """
        if self.mapper == "pmap" and self.span_processes:
            raise InputError("mapper='pmap' works in one process; use 'shard_map' over several")
        read = tuple(tell() for tell in compiled_for)
        return _mapped(kernel, self, in_specs, out_specs, quick, read, **static)

    def put_rows(
        self, x: RowsLike, multiple: int = 1, at_least: int = 0
    ) -> tuple[jax.Array, jax.Array]:
        """Pads rows with zeros and splits them over the devices.

        Each of several processes reads only the rows that its devices hold.

        Args:
            x: Rows ``[n, ...]`` on the host or in a file, the same in each process.
            multiple: Number that the number of rows on each device is a multiple of.
            at_least: Number of rows to pad to, so that calls of different ``n`` share a shape.

        Returns:
            The rows ``[m, ...]`` and their weights, float32 ``[m]``: 1 for a row of ``x``, 0 for
            padding.

        Examples:
            >>> import numpy as np
            >>> import jaxcurate as jc
            >>> rows, weights = jc.Devices.first(1).put_rows(np.ones((3, 2)), multiple=4)
            >>> rows.shape, weights.tolist()
            ((4, 2), [1.0, 1.0, 1.0, 0.0])
        """
        n = len(x)
        m = padded_size(max(n, at_least), self.count * multiple)
        weights = np.zeros(m, np.float32)
        weights[:n] = 1

        def padded(begin: int, end: int) -> np.ndarray:
            # Block by block, so that rows which are made when they are read are not held twice.
            out = _aligned((end - begin, *x.shape[1:]), x.dtype)
            out[max(0, n - begin) :] = 0
            step = max(1, _BLOCK_BYTES // max(1, out[:1].nbytes))
            for first in range(begin, min(end, n), step):
                last = min(first + step, end, n)
                out[first - begin : last - begin] = x[first:last]
            return out

        if self.mesh is None:
            return jax.device_put(padded(0, m)), jax.device_put(weights)
        if self.span_processes:
            steps.begin("put_rows")
        sharding = NamedSharding(self.mesh, ROWS)

        def part(index: Any) -> np.ndarray:
            begin, end, _ = index[0].indices(m)
            return padded(begin, end)

        return (
            jax.make_array_from_callback((m, *x.shape[1:]), sharding, part),
            jax.make_array_from_callback((m,), sharding, lambda index: weights[cast(Any, index)]),
        )


ONE_DEVICE = Devices()
"""The default device of this process."""


@functools.cache
def _mapped(
    kernel: Callable[..., Any],
    devices: Devices,
    in_specs: tuple[Any, ...],
    out_specs: Any,
    quick: bool,
    read: tuple[Hashable, ...],
    **static: Hashable,
) -> Callable[..., Any]:
    del read  # part of the cache key only
    mesh = devices.mesh
    options = quick_options(devices.platform) if quick else None
    if mesh is None:
        alone = functools.partial(kernel, axis_name=None, **static)
        return jax.jit(alone, compiler_options=options)
    local = functools.partial(kernel, axis_name=AXIS, **static)
    if devices.mapper == "pmap":
        return _pmapped(local, mesh, in_specs, out_specs)
    # The replication check is off since pmap, which runs the same kernels, has none either; the
    # tests compare the two with each other and with one device.
    mapped = jax.jit(
        jax.shard_map(local, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False),
        compiler_options=options,
    )
    if not devices.span_processes:
        return mapped
    return _Counted(mapped, getattr(kernel, "__name__", "kernel"))


class _Counted:
    """Mapped kernel whose calls count as steps that all processes take."""

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
    """Returns a kernel mapped by pmap, which needs a device axis apart from the rows."""

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


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Returns an empty array whose alignment lets a CPU device use it without a copy."""
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(n_bytes + _ALIGNED_BYTES, np.uint8)
    begin = -room.ctypes.data % _ALIGNED_BYTES
    return room[begin : begin + n_bytes].view(dtype).reshape(shape)


def fetch(array: jax.Array | np.ndarray) -> np.ndarray:
    """Returns a whole array on the host.

    If other processes hold parts of the array, all processes have to call this function.

    Args:
        array: Array of jax or numpy.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jaxcurate.runtime import fetch
        >>> fetch(jnp.arange(3))
        array([0, 1, 2], dtype=int32)
    """
    if not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    steps.begin("fetch")
    return multihost_utils.process_allgather(array, tiled=True)


def padded_size(n: int, multiple: int) -> int:
    """Returns the smallest positive multiple of ``multiple`` that is at least ``n``.

    Examples:
        >>> from jaxcurate.runtime.devices import padded_size
        >>> padded_size(5, 4), padded_size(0, 4)
        (8, 4)
    """
    return multiple * max(1, math.ceil(n / multiple))
