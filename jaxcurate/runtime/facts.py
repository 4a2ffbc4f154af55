"""Facts that must be the same in all processes, as strings, and a line on their differences."""

import dataclasses
import functools
import hashlib
import math
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

_ROOT = Path(__file__).parents[1]
_ROWS_READ = 8
_MOST_NAMED = 4
_LONGEST = 400

Facts = dict[str, str]


@functools.cache
def code_facts() -> Facts:
    """Returns the versions of the code that this process runs, and a digest of its source files."""
    import jaxcurate

    digest = hashlib.sha256()
    for path in sorted(_ROOT.rglob("*.py")):
        digest.update(str(path.relative_to(_ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return {
        "jaxcurate": jaxcurate.__version__,
        "digest of jaxcurate's source files": digest.hexdigest()[:12],
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": metadata.version("jaxlib"),
        "numpy": np.__version__,
    }


def config_facts() -> Facts:
    """Returns the options of jax that change what a kernel computes."""
    names = (
        "jax_enable_x64",
        "jax_default_matmul_precision",
        "jax_default_prng_impl",
        "jax_threefry_partitionable",
    )
    return {name: repr(getattr(jax.config, name)) for name in names}


def described(value: Any) -> str:
    """Returns a short description of an argument, which is equal for equal arguments.

    Arrays and rows in files are described by type, shape and a digest of a few rows, dataclasses
    by their fields, mappings by their entries in any order, and other objects by their type.

    Examples:
        >>> from jaxcurate.runtime.facts import described
        >>> described(0.5), described((1, 2)), described(print)
        ('0.5', '[1, 2]', 'a function')
        >>> described({"b": 2, "a": [1]})
        "{'a': [1], 'b': 2}"
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, Mesh):
        owners = [device.process_index for device in value.devices.flat]
        return f"{value.size} devices, of processes {owners}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} {list(value.shape)}, rows {_digest_of_rows(value)}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        inside = (f"{field.name}={described(getattr(value, field.name))}" for field in fields)
        return f"{type(value).__name__}({', '.join(inside)})"
    if isinstance(value, Mapping):
        entries = (f"{described(key)}: {described(entry)}" for key, entry in value.items())
        return _shortened(f"{{{', '.join(sorted(entries))}}}")
    if isinstance(value, Sequence):
        return _shortened(f"[{', '.join(map(described, value))}]")
    if callable(value):
        return "a function"
    return type(value).__name__


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]} ... (digest {hashlib.sha256(text.encode()).hexdigest()[:8]})"


def _digest_of_rows(x: Any) -> str:
    digest = hashlib.sha256()
    if not x.shape:
        digest.update(np.asarray(x).tobytes())
    elif math.prod(x.shape):
        for row in np.unique(np.linspace(0, len(x) - 1, _ROWS_READ).astype(int)):
            digest.update(np.ascontiguousarray(x[row]).tobytes())
    return digest.hexdigest()[:8]


def differences(said: Mapping[int, Facts]) -> str | None:
    """Returns a line on the facts that are not the same in all processes, or None.

    Args:
        said: Facts of each process, by its number. The others are compared with the process of the
            least number.

    Examples:
        >>> from jaxcurate.runtime.facts import differences
        >>> differences({0: {"jax": "0.10.2"}, 1: {"jax": "0.10.1"}})
        'jax is not the same in all processes: process 1 has jax=0.10.1, process 0 has jax=0.10.2'
    """
    first, *others = sorted(said)
    lines = []
    for name in dict.fromkeys(name for process in sorted(said) for name in said[process]):
        values = {process: said[process].get(name, "nothing") for process in said}
        deviating = [process for process in others if values[process] != values[first]]
        if not deviating:
            continue
        parts = [f"process {process} has {name}={values[process]}" for process in deviating]
        if len(deviating) > _MOST_NAMED:
            parts[_MOST_NAMED:] = [f"{len(deviating) - _MOST_NAMED} more differ"]
        parts.append(f"process {first} has {name}={values[first]}")
        lines.append(f"{name} is not the same in all processes: {', '.join(parts)}")
    return "; ".join(lines) or None
