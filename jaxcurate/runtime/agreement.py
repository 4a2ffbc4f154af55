"""Comparison of facts between processes, through the key-value store of jax's coordinator.

No device takes part: if processes are about to run different programs on their devices, a
collective operation would not return, but this comparison does, and refuses the call.
"""

import collections
import itertools
import json
from collections.abc import Sequence
from typing import Any

import jax
from jax._src import distributed  # the store has no public name; orbax imports it in the same way

from jaxcurate.checks import InputError
from jaxcurate.runtime.facts import Facts, code_facts, config_facts, differences
from jaxcurate.runtime.messages import waited_for

_numbers: dict[tuple[int, ...], "itertools.count[int]"] = collections.defaultdict(itertools.count)


def compare(call: str, facts: Facts, processes: Sequence[int]) -> None:
    """Compares the facts of this call with those of the same call in the other processes.

    Args:
        call: Name of the called function.
        facts: Facts that have to be the same in all processes.
        processes: Indices of all processes that make the call, ascending.

    Raises:
        InputError: A fact differs. All processes raise the same error, which gives the values and
            names the processes.
    """
    client: Any = distributed.global_state.client
    group = tuple(processes)
    number = next(_numbers[group])
    facts = {"call": call} | facts | config_facts() | (code_facts() if number == 0 else {})
    root = f"jaxcurate/agreement/{'-'.join(map(str, group))}"
    place = lambda number, who: f"{root}/{number}/{who}"
    first, *others = group
    if jax.process_index() != first:
        client.key_value_set(place(number, jax.process_index()), json.dumps(facts))
        line = waited_for(client, place(number, "verdict"))
    else:
        said = {p: json.loads(waited_for(client, place(number, p))) for p in others}
        line = _line({first: facts} | said)
        client.key_value_set(place(number, "verdict"), line)
        if number:  # all processes have read the verdict on the previous call
            client.key_value_delete(f"{root}/{number - 1}/")
    if line:
        raise InputError(line)


def _line(said: dict[int, Facts]) -> str:
    """Returns a message on the facts that differ, or an empty text.

    If the processes call different functions, the message names only these.
    """
    calls = {process: {"call": facts["call"]} for process, facts in said.items()}
    return differences(calls) or differences(said) or ""
