"""Memory is kept from call to call while a block runs, and given back after it."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import jax, jax.numpy as jnp
from jaxcurate.runtime.host_memory import compile_in_blocks, freed_memory_kept

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt * resource.getpagesize()

def residual(w):
    x = jnp.ones((2**12, 8))
    for i in range(8):
        x = x + jnp.tanh(x @ w[i]) @ w[i].T
    return jnp.sum(x)

w = jnp.ones((8, 8, 2**10))
lowered = jax.jit(jax.grad(residual)).lower(w)
is_kept = sys.argv[1] == "kept"
f = compile_in_blocks(lowered) if is_kept else lowered.compile()
with freed_memory_kept(2**27 if is_kept else 2**60):
    found = []
    for _ in range(24):
        before = faults()
        f(w).block_until_ready()
        found.append(faults() - before)
    print(sorted(found[8:])[6], resident())
print(resident())
"""


def measured(kind):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind], capture_output=True, text=True, check=True
    )
    return [int(word) for word in done.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is of glibc")
def test_working_memory_of_a_call_is_that_of_the_calls_before():
    faulted, resident, resident_after = measured("kept")
    usual, _, _ = measured("too large to keep")  # 8 arrays of 16 MB, and a little more
    assert usual > 2**26
    assert faulted < usual / 10
    # Tens of megabytes of a thread may stay.
    assert resident_after < resident - usual / 2
