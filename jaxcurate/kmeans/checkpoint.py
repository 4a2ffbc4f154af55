"""States of an unfinished k-means on the host, from which it resumes bit for bit."""

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
    """State of an unfinished k-means; ``numpy.savez(file, phase=..., **arrays)`` saves it.

    A state belongs to the rows and the arguments that it was made with. With another number of
    devices, the result may differ in the last bits.

    Examples:
        >>> import numpy as np
        >>> import jaxcurate as jc
        >>> x = np.array([[0.0, 0], [0, 1], [9, 9], [9, 8]])
        >>> states = []
        >>> result = jc.kmeans(x, 2, on_state=states.append)
        >>> states[0].phase, sorted(states[0].arrays)
        ('seeding', ['centroids', 'closest', 'n_chosen', 'owner'])
    """

    phase: Phase
    """``"seeding"`` while centroids are chosen, ``"iterating"`` while rows are assigned."""
    arrays: Mapping[str, np.ndarray]
    """Arrays by name. Arrays with a value for each row have the rows ``[n]`` of ``x``, without
    padding."""


class Stops(NamedTuple):
    """State to resume from, and when to report states."""

    state: KMeansState | None = None
    """State to resume from; None for a new run."""
    on_state: Callable[[KMeansState], None] | None = None
    """Function that is called with states; None for no reports."""
    iterations: int = 1
    """Number of iterations, or as much other work, between two stops."""
    due: Callable[[], bool] = lambda: True
    """Function that returns whether to report at a stop, for a state takes time to fetch."""

    @property
    def phase(self) -> Phase | None:
        """Phase of the state to resume from; None for a new run."""
        return None if self.state is None else self.state.phase

    def every(self, steps: int, most: int, devices: Devices = ONE_DEVICE) -> int:
        """Returns the number of steps in one call of a kernel.

        Without reports one call takes all steps, unless several CPU devices work together: their
        memory grows during a loop and is freed when the call ends (40 MB a second, jax 0.10.2).

        Args:
            steps: Number of steps that cost as much as an iteration.
            most: Number of all steps.
            devices: Devices that the kernel runs on.
        """
        if self.on_state is not None:
            return steps * self.iterations
        return steps if devices.count > 1 and jax.default_backend() == "cpu" else most

    def tell(self, make: Callable[[], KMeansState]) -> None:
        """Reports the state that ``make`` returns, if a report is wanted and due."""
        if self.on_state is not None and self.due():
            self.on_state(make())


NO_STOPS = Stops()


def from_devices(phase: Phase, state: NamedTuple, specs: NamedTuple, n: int) -> KMeansState:
    """Returns the state of a kernel, without padding, on the host.

    Args:
        phase: Phase of the state.
        state: Arrays of the kernel.
        specs: Specs of the arrays.
        n: Number of rows without padding.
    """
    arrays = {}
    for (name, leaf), spec in zip(_named(state), _leaves(specs), strict=True):
        whole = fetch(leaf)
        arrays[name] = whole[:n] if spec == ROWS else whole
    return KMeansState(phase, arrays)


def to_devices(
    state: KMeansState, like: Tuple, specs: NamedTuple, n: int, devices: Devices
) -> Tuple:
    """Returns the arrays of a state on the devices, padded to given shapes.

    Args:
        state: State from :func:`from_devices`.
        like: Arrays, or abstract ones, of the shapes and types to return.
        specs: Specs of the arrays.
        n: Number of rows without padding.
        devices: Devices to use.

    Raises:
        InputError: The state is that of another k-means.
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
        rows = split and wanted.shape[0] >= n  # otherwise its first axis is that of devices
        if split and not rows and given.shape != wanted.shape:
            given = np.zeros(wanted.shape, wanted.dtype)  # computed anew
        shape = (n, *wanted.shape[1:]) if rows else wanted.shape
        if (given.dtype, given.shape) != (wanted.dtype, shape):
            raise InputError(
                f"state is of another k-means: {name} is {given.dtype} {given.shape}, not "
                f"{wanted.dtype} {shape}"
            )
        leaves.append(devices.put_rows(given, at_least=wanted.shape[0])[0] if split else given)
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _named(state: NamedTuple) -> list[tuple[str, Any]]:
    """Returns the fields and their names, those of inner tuples after a dot."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return [(".".join(str(key.name) for key in path), leaf) for path, leaf in leaves]


def _leaves(specs: NamedTuple) -> list[Any]:
    return jax.tree.leaves(specs, is_leaf=lambda leaf: isinstance(leaf, jax.sharding.PartitionSpec))
