"""Options of XLA for kernels that are small enough to take longer to compile than to run."""

import functools
from typing import Any

import jax

_CPU: dict[str, Any] = {
    "xla_cpu_use_fusion_emitters": False,  # XLA's older way of making loops
    "xla_backend_optimization_level": 1,
}
"""A small k-means compiles in 0.6 of the time and gives the same bits. A large one would run up to
1.4 times as long (``scripts/bench/compilation.py``)."""


def quick_options(platform: str) -> dict[str, Any] | None:
    """Returns options of XLA that make a kernel compile sooner and run longer.

    Args:
        platform: name of the devices' platform, as ``jax.Device.platform`` has it.

    Returns:
        The options, as ``jax.jit`` takes them; None where there are none, or this release of XLA
        does not know them.

    Examples:
        >>> from jaxcurate.runtime.compiler_options import quick_options
        >>> print(quick_options("tpu"))
        None
    """
    return dict(_CPU) if platform == "cpu" and _are_known() else None


@functools.cache
def _are_known() -> bool:
    """Tells whether XLA takes the options: it refuses those that a release has dropped."""
    try:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            jax.jit(lambda: 0, compiler_options=_CPU)()
    except jax.errors.JaxRuntimeError:
        return False
    return True
