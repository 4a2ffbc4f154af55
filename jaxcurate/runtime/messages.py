"""Small values that the processes of a run tell each other through the store of the coordinator.

No device takes part. Every process makes the same calls in the same order. With one process, each
function returns at once.
"""

import collections
import itertools
import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax._src import distributed  # the store has no public name; orbax imports it in the same way

from jaxcurate.runtime import steps

T = TypeVar("T")

_ROOT = "jaxcurate/messages"
_WAIT_MILLISECONDS = 1000
_numbers = itertools.count()
_kept: collections.deque[int] = collections.deque()
"""Numbers of the messages that process 0 has not removed from the store yet."""


def count() -> int:
    """Returns the number of processes of the run, without a start of the devices.

    Examples:
        >>> from jaxcurate.runtime import messages
        >>> messages.count()
        1
    """
    return distributed.global_state.num_processes or 1


def index() -> int:
    """Returns the index of this process, without a start of the devices.

    Examples:
        >>> from jaxcurate.runtime import messages
        >>> messages.index()
        0
    """
    return distributed.global_state.process_id or 0


def is_first() -> bool:
    """Returns whether this is process 0, which decides and writes for all of them.

    Examples:
        >>> from jaxcurate.runtime import messages
        >>> messages.is_first()
        True
    """
    return index() == 0


def from_first(name: str, make: Callable[[], T]) -> T:
    """Returns in all processes the value that process 0 makes.

    An error of ``make`` is raised in process 0 alone, which then has to report it to the others
    by its end or by :func:`jaxcurate.runtime.processes.fail`.

    Args:
        name: Name of the value, which has to be the same in all processes.
        make: Function that is called in process 0 alone. JSON can store its result.

    Raises:
        RuntimeError: The processes wait for different values.

    Examples:
        >>> from jaxcurate.runtime import messages
        >>> messages.from_first("seed", lambda: 7)
        7
    """
    if count() == 1:
        return make()
    steps.begin(name)
    client: Any = distributed.global_state.client
    number = next(_numbers)
    if is_first():
        value = make()
        client.key_value_set(f"{_ROOT}/{number}/0", json.dumps([name, value]))
        _kept.append(number)
        return value
    return _read(client, f"{_ROOT}/{number}/0", name)


def from_all(name: str, value: T) -> list[T]:
    """Returns in all processes the values of all processes, in their order.

    Args:
        name: Name of the value, which has to be the same in all processes.
        value: Value of this process, which JSON can store.

    Raises:
        RuntimeError: The processes wait for different values.

    Examples:
        >>> from jaxcurate.runtime import messages
        >>> messages.from_all("rows", 12)
        [12]
    """
    if count() == 1:
        return [value]
    steps.begin(name)
    client: Any = distributed.global_state.client
    number = next(_numbers)
    client.key_value_set(f"{_ROOT}/{number}/{index()}", json.dumps([name, value]))
    values = [_read(client, f"{_ROOT}/{number}/{process}", name) for process in range(count())]
    if is_first():
        _kept.append(number)
        # All processes are here, so that they have read what was told before.
        while _kept and _kept[0] < number:
            client.key_value_delete(f"{_ROOT}/{_kept.popleft()}/")
    return values


def _read(client: Any, key: str, name: str) -> Any:
    said, value = json.loads(waited_for(client, key))
    if said != name:
        raise RuntimeError(f"this process waits for {name!r}, another one has told {said!r}")
    return value


def waited_for(client: Any, key: str) -> str:
    """Returns the value of a key of the store once another process has set it.

    Args:
        client: Client of the coordinator.
        key: Key of the value.
    """
    # In short waits, between which a signal can end the program.
    while True:
        try:
            return client.blocking_key_value_get(key, _WAIT_MILLISECONDS)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
