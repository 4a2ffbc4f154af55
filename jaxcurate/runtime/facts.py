"""Facts that processes have to share, as strings, and a line that tells where they differ."""

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
    """Describes an argument in a few words that are equal in two processes if the argument is.

    An array, or rows in a file, are told by type, shape and a digest of a few rows; a dataclass by
    its fields; any other object by its type.
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
        said: what each process says, by its number. The one with the least number is what the
            others are compared with.
    """
    first, *others = sorted(said)
    lines = []
    for name in dict.fromkeys(name for process in sorted(said) for name in said[process]):
        told = {process: said[process].get(name, "nothing") for process in said}
        apart = [process for process in others if told[process] != told[first]]
        if not apart:
            continue
        parts = [f"process {process} has {name}={told[process]}" for process in apart]
        if len(apart) > _MOST_NAMED:
            parts[_MOST_NAMED:] = [f"{len(apart) - _MOST_NAMED} more differ"]
        parts.append(f"process {first} has {name}={told[first]}")
        lines.append(f"{name} is not the same in all processes: {', '.join(parts)}")
    return "; ".join(lines) or None
