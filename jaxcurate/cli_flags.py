"""Flags of the command line: of several processes, and of a plan."""

from collections.abc import Callable
from typing import Any


def define_launch(values: Any) -> Callable[[], Any]:
    """Defines the flags of several processes, and returns the function that reads them."""
    from absl import flags

    from jaxcurate.runtime.startup import Launch

    define = {str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float}
    default = Launch()
    defined = {
        name: define[kind](name, getattr(default, name), "see README.md", flag_values=values)
        for name, kind in _LAUNCH.items()
    }
    return lambda: Launch(**{name: flag.value for name, flag in defined.items()})


_LAUNCH = {
    "coordinator": str,
    "n_processes": int,
    "process_id": int,
    "start_seconds": float,
    "heartbeat_seconds": float,
    "stall_seconds": float,
}
"""Flags of several processes, fields of ``Launch``, with their types."""


def define_plan(values: Any) -> None:
    """Defines the flags of ``plan``, which describe the pool and the machine."""
    from absl import flags

    number, text = flags.DEFINE_float, flags.DEFINE_string
    of = dict[str, Any](flag_values=values)
    number("items", None, "number of items; by default counted in the pool or the source", **of)
    flags.DEFINE_integer("dimensions", None, "columns of the embeddings", **of)
    number("item_bytes", None, "bytes of an item as it is stored", **of)
    text("slice", None, "slice of TPUs, such as v5e-64 or v5p:4x4x4", **of)
    flags.DEFINE_integer("gpus", None, "number of GPUs", **of)
    text("gpu", "h100", "kind of GPU: h100, h200, a100 or l4", **of)
    number("price", None, "price of a chip for an hour", **of)
    number("efficiency", 0.4, "fraction of the peak rate of products that is reached", **of)
    number("memory_efficiency", 0.7, "fraction of the bandwidth that is reached", **of)
    number("embed_rate", None, "measured items a second that the whole machine embeds", **of)
    number("step_seconds", None, "measured time of a step of pretraining", **of)
    number("decode_rate", 180.0, "pictures of 500 x 400 that a core decodes in a second", **of)
    number("disk_rate", 1e9, "bytes a second that a host reads and writes", **of)
    flags.DEFINE_bool("calibrate", False, "time the kernels on this machine first", **of)
    flags.DEFINE_list("compile", None, "stages to compile for TPUs, or none", **of)
    flags.DEFINE_bool("json", False, "print JSON instead of a table", **of)


def plan_lines(command: str) -> list[str]:
    """Returns lines that explain the flags of ``plan``, none for other commands."""
    if command != "plan":
        return []
    from absl import flags

    values = flags.FlagValues()
    define_plan(values)
    lines = ["", "Flags of `plan`:"]
    for name in values:
        flag = values[name]
        default = "" if flag.default in (None, False) else f" = {flag.default}"
        lines.append(f"  --{name}{default}: {flag.help}")
    return lines
