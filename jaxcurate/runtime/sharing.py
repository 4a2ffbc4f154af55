"""Division of work on the host among the processes of a run."""

import io
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.sharding import NamedSharding

from jaxcurate.checks import InputError
from jaxcurate.runtime import steps
from jaxcurate.runtime.devices import ROWS, Devices, fetch

S = TypeVar("S", bound=Sequence[Any])


def share(
    items: Sequence[Any],
    work: Callable[[Sequence[Any]], tuple[np.ndarray, ...]],
    devices: Devices,
) -> tuple[np.ndarray, ...]:
    """Divides work of the host among the processes, and returns all results to each of them.

    Args:
        items: Items to work on. Each process takes a contiguous part of them.
        work: Function of some of the items, or of none, that returns arrays. The arrays of all
            processes are joined along the leading axis, bit for bit, in the order of the items.
        devices: Devices whose processes take part; all of these have to call. With one process,
            the result is ``work(items)``.

    Raises:
        InputError: ``work`` raised it in a process; all processes raise the first such error.
        RuntimeError: ``work`` raised another error in a process.

    Examples:
        >>> import numpy as np
        >>> import jaxcurate as jc
        >>> from jaxcurate.runtime.sharing import share
        >>> share(range(4), lambda items: (np.array(items) ** 2,), jc.Devices.first(1))
        (array([0, 1, 4, 9]),)
    """
    if not devices.span_processes:
        return work(items)
    steps.begin("share")
    failure = None
    try:
        packed = _packed(*work(own_items(items, devices)))
    except Exception as error:
        failure, packed = error, _packed(error=np.array([_kind(error), str(error)]))
    results = [
        dict(np.load(io.BytesIO(data), allow_pickle=False)) for data in _gather(packed, devices)
    ]
    for process, result in zip(devices.owners, results, strict=True):
        if "error" in result:
            kind, message = result["error"].tolist()
            if kind == InputError.__name__:
                raise InputError(message) from failure
            raise RuntimeError(f"process {process} failed: {kind}: {message}") from failure
    return tuple(np.concatenate(runs) for runs in zip(*map(dict.values, results), strict=True))


def own_items(items: S, devices: Devices) -> S:
    """Returns the contiguous part of the items that :func:`share` gives to this process.

    Args:
        items: Items of all processes.
        devices: Devices whose processes take part.

    Examples:
        >>> import jaxcurate as jc
        >>> from jaxcurate.runtime.sharing import own_items
        >>> own_items(range(4), jc.Devices.first(1))
        range(0, 4)
    """
    if not devices.span_processes:
        return items
    processes = list(devices.owners)
    place, n = processes.index(jax.process_index()), len(processes)
    return cast(S, items[len(items) * place // n : len(items) * (place + 1) // n])


def _kind(error: Exception) -> str:
    return (InputError if isinstance(error, InputError) else type(error)).__name__


def _packed(*arrays: np.ndarray, **named: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, *arrays, **cast(Any, named))
    return buffer.getvalue()


def _gather(data: bytes, devices: Devices) -> list[bytes]:
    """Returns the data of all processes, in the order of the processes.

    Arrays travel as bytes, since devices do not hold float64.
    """
    assert devices.mesh is not None
    places_of, mesh = devices.owners, devices.mesh
    mine = places_of[jax.process_index()]

    def exchanged(parts: np.ndarray) -> np.ndarray:
        """Returns the bytes of all devices, from bytes ``[devices of this process, w]``."""
        shape = devices.count, parts.shape[1]
        sharding = NamedSharding(mesh, ROWS)
        part_of = lambda index: parts[[mine.index(index[0].start)]]
        return fetch(jax.make_array_from_callback(shape, sharding, part_of))

    size = np.frombuffer(np.int64(len(data)).tobytes(), np.uint8)
    sizes = exchanged(np.tile(size, (len(mine), 1))).view(np.int64)[:, 0]
    # Each device of a process carries an equal part of its data.
    width = max(-(-int(sizes[places[0]]) // len(places)) for places in places_of.values())
    parts = np.zeros((len(mine), width), np.uint8)
    parts.reshape(-1)[: len(data)] = np.frombuffer(data, np.uint8)
    whole = exchanged(parts)
    return [whole[places].tobytes()[: int(sizes[places[0]])] for places in places_of.values()]
