"""Flags of the command line: of several processes, and of a plan."""

import typing
from collections.abc import Callable
from typing import Any


def define_launch(values: Any) -> Callable[[], Any]:
    """Defines the flags of several processes, and returns the function that reads them."""
    from absl import flags

    from jaxcurate.dataclass_fields import explained
    from jaxcurate.runtime.startup import Launch

    define = {str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float}
    default, kinds, defined = Launch(), typing.get_type_hints(Launch), {}
    for field in explained(Launch):
        name = field.path
        kind = next(kind for kind in define if kinds[name] in (kind, kind | None))
        defined[name] = define[kind](
            name, getattr(default, name), field.meaning, flag_values=values
        )
    return lambda: Launch(**{name: flag.value for name, flag in defined.items()})


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


def flag_lines(command: str) -> list[str]:
    """Returns lines that explain the flags of a command."""
    from absl import flags

    lines, define = [], {"several processes": define_launch}
    if command == "plan":
        define = {"`plan`": define_plan}
    elif command == "status":
        define = {}
    for title, define_flags in define.items():
        values = flags.FlagValues()
        define_flags(values)
        lines += ["", f"Flags of {title}:"]
        for name in values:
            flag = values[name]
            default = "" if flag.default in (None, False) else f" = {flag.default}"
            lines.append(f"  --{name}{default}: {flag.help}")
    return lines
