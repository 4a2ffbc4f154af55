"""Strict settings for every test: four CPU devices, no silent rank promotion."""

import os

import xla_flags

# Before jax is imported anywhere. What is compiled is shared by all processes of the tests.
os.environ["JAXCURATE_COMPILE_CACHE"] = os.path.abspath(f"{__file__}/../../.pytest_cache/compiled")
os.environ["JAX_NUM_CPU_DEVICES"] = "4"
os.environ["JAX_PLATFORMS"] = "cpu"
# scripts/test --slow compiles as users do.
os.environ.setdefault("XLA_FLAGS", xla_flags.QUICK)

import jax
import pytest
from hypothesis import settings

from jaxcurate.runtime import compiler_options
from jaxcurate.runtime.compile_cache import use_compile_cache
from jaxcurate.runtime.devices import Devices

use_compile_cache()
if os.environ["XLA_FLAGS"]:
    # Small k-means round like all others then, and like those of pmap, which take no options.
    compiler_options._CPU.update(xla_backend_optimization_level=0)
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
