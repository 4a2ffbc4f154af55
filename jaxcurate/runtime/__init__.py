"""Devices, processes and progress of a run, and how the processes of a run watch each other."""

from jaxcurate.runtime.compile_cache import use_compile_cache
from jaxcurate.runtime.devices import Devices, fetch
from jaxcurate.runtime.processes import initialize
from jaxcurate.runtime.progress import Progress

__all__ = ["Devices", "Progress", "fetch", "initialize", "use_compile_cache"]
