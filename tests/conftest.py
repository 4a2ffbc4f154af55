"""Strict settings for every test: four CPU devices, no silent rank promotion."""

import os

import xla_flags

# Before jax is imported anywhere. What is compiled is shared by all processes of the tests.
os.environ["JAXCURATE_COMPILE_CACHE"] = os.path.abspath(f"{__file__}/../../.pytest_cache/compiled")
os.environ["JAX_NUM_CPU_DEVICES"] = "4"
os.environ["JAX_PLATFORMS"] = "cpu"
# scripts/test --slow compiles as users do.
os.environ.setdefault("XLA_FLAGS", xla_flags.with_effort(1))

import jax
import pytest
from hypothesis import settings

from jaxcurate.runtime import compiler_options
from jaxcurate.runtime import devices as devices_module
from jaxcurate.runtime.compile_cache import use_compile_cache
from jaxcurate.runtime.devices import Devices

use_compile_cache()
# Small operations as well, which every file compiles again: reading takes a third of the time.
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

jax.config.update("jax_numpy_rank_promotion", "raise")

# On a busy machine an example may take longer than the 200 ms that Hypothesis allows by default.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

LONGEST = [
    *("test_hierarchy.py", "test_notebook.py", "test_processes.py", "test_several_processes.py"),
    *("test_dedup.py", "test_kmeans.py", "test_disturbed_runs.py", "test_weblike_curation.py"),
    *("test_memory.py", "test_lejepa.py", "test_growth.py", "test_dinov2.py"),
]


def pytest_collection_modifyitems(items):
    """The longest files first: at the end no process is left alone with one of them."""
    last = len(LONGEST)
    items.sort(
        key=lambda item: LONGEST.index(name) if (name := item.path.name) in LONGEST else last
    )


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_code():
    """Compiled code of finished files took gigabytes; what another file needs is on disk."""
    yield
    jax.clear_caches()


def _small_kmeans_compiled(level):
    """Compiles small k-means with so much optimization, whatever was compiled before."""
    with pytest.MonkeyPatch.context() as patch:
        if os.environ["XLA_FLAGS"]:
            patch.setitem(compiler_options._CPU, "xla_backend_optimization_level", level)
        devices_module._mapped.cache_clear()
        yield
    devices_module._mapped.cache_clear()


@pytest.fixture(scope="module")
def unoptimized():
    """Compiles small k-means in half the time, for files in which these are most of it.

    They round otherwise than optimized ones, which `pmap` and other processes have.
    """
    yield from _small_kmeans_compiled(0)


@pytest.fixture
def optimized():
    """Compiles small k-means as usual, for a test of a file that does not."""
    yield from _small_kmeans_compiled(1)


@pytest.fixture
def devices():
    """Four devices."""
    return Devices.first(4)


@pytest.fixture
def data_dir():
    """Where scripts/fetch puts raw images; a test that needs them is skipped without them."""
    path = os.environ.get("JAXCURATE_DATA") or os.path.join(os.path.dirname(__file__), "../data")
    if not os.path.isdir(os.path.join(path, "raw")):
        pytest.skip("no raw images: run scripts/fetch")
    return path
