"""Where a k-means stands, on the host: what has to be kept to go on from there bit for bit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import numpy as np

from jaxcurate.checks import InputError
from jaxcurate.runtime.devices import ONE_DEVICE, ROWS, Devices, fetch

Phase = Literal["seeding", "iterating"]
Tuple = TypeVar("Tuple", bound=NamedTuple)


@dataclass(frozen=True)
class KMeansState:
    """A k-means that is not finished. ``numpy.savez(file, phase=..., **arrays)`` keeps all of it.

    It belongs to the rows and the arguments that it was made with, other numbers of devices
    included where the last bit does not matter.
    """

    phase: Phase
    """Whether centroids are being chosen or rows assigned."""
    arrays: Mapping[str, np.ndarray]
    """Arrays by name. Those with a number for each row have the rows ``[n]`` of ``x``, no
    padding."""


class Stops(NamedTuple):
    """Where a k-means begins, and where it stops to tell how it stands."""

    state: KMeansState | None = None
    """Where to go on; None to begin."""
    on_state: Callable[[KMeansState], None] | None = None
    """Told now and then; None never to stop."""
    iterations: int = 1
    """Iterations, or as much other work, between two stops."""
    due: Callable[[], bool] = lambda: True
    """Whether to tell at a stop: a state takes time to fetch."""

    @property
    def phase(self) -> Phase | None:
        """Phase of the state to go on from; None to begin."""
        return None if self.state is None else self.state.phase

    def every(self, steps: int, most: int, devices: Devices = ONE_DEVICE) -> int:
        """Steps to a call, where so many ``steps`` are the work of an iteration.

        All of them where nobody wants to know, unless several CPU devices work together: these
        free what the steps of a loop took when the call ends (40 MB a second, with jax 0.10.2).
        """
        if self.on_state is not None:
            return steps * self.iterations
        return steps if devices.count > 1 and jax.default_backend() == "cpu" else most

    def tell(self, make: Callable[[], KMeansState]) -> None:
        """Tells the state that ``make`` makes, if anybody wants to know."""
        if self.on_state is not None and self.due():
            self.on_state(make())


NO_STOPS = Stops()


def from_devices(phase: Phase, state: NamedTuple, specs: NamedTuple, n: int) -> KMeansState:
    """Returns the state of a kernel, ``n`` being the rows that are no padding."""
    arrays = {}
    for (name, leaf), spec in zip(_named(state), _leaves(specs), strict=True):
        whole = fetch(leaf)
        arrays[name] = whole[:n] if spec == ROWS else whole
    return KMeansState(phase, arrays)


def to_devices(
    state: KMeansState, like: Tuple, specs: NamedTuple, n: int, devices: Devices
) -> Tuple:
    """Returns the way back, to the shapes of ``like``, which may be abstract, and to the devices.

    Raises:
        ValueError: the state is that of another k-means.
    """
    leaves = []
    names = [name for name, _ in _named(like)]
    if set(names) != set(state.arrays):
        raise InputError(
            f"state has {sorted(state.arrays)}, but this k-means needs {sorted(names)}"
        )
    for (name, wanted), spec in zip(_named(like), _leaves(specs), strict=True):
        given = np.asarray(state.arrays[name])
        split = spec == ROWS
        rows = split and wanted.shape[0] >= n  # or else an axis of devices
        if split and not rows and given.shape != wanted.shape:
            given = np.zeros(wanted.shape, wanted.dtype)  # other devices find it out anew
        shape = (n, *wanted.shape[1:]) if rows else wanted.shape
        if (given.dtype, given.shape) != (wanted.dtype, shape):
            raise InputError(
                f"state is of another k-means: {name} is {given.dtype} {given.shape}, not "
                f"{wanted.dtype} {shape}"
            )
        leaves.append(devices.put_rows(given, at_least=wanted.shape[0])[0] if split else given)
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _named(state: NamedTuple) -> list[tuple[str, Any]]:
    """Fields with their names, those of inner tuples after a dot."""
    found = jax.tree_util.tree_flatten_with_path(state)[0]
    return [(".".join(str(key.name) for key in path), leaf) for path, leaf in found]


def _leaves(specs: NamedTuple) -> list[Any]:
    return jax.tree.leaves(specs, is_leaf=lambda leaf: isinstance(leaf, jax.sharding.PartitionSpec))
