"""Every k-means kernel is lowered for GPUs; none is needed. What runs there is XLA's own blocks."""

import functools

import jax
import numpy as np
import pytest

from jaxcurate.kmeans.kernels import cluster_sums
from jaxcurate.kmeans.kernels.dispatch import top2_of_all
from jaxcurate.kmeans.kernels.scores import tiles_of, top2_in_blocks
from jaxcurate.planning.kernels import kernels

KERNELS = kernels(8192, 32, 512)


def lowered(function, *arguments):
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("name", KERNELS)
def test_lowers(name):
    kernel = KERNELS[name]
    one_device = functools.partial(kernel.function, axis_name=None, **kernel.static)
    text = lowered(one_device, *(shapes for _, shapes in kernel.arguments))
    assert "tpu_custom_call" not in text


@pytest.mark.parametrize("k", [50, 5000])
def test_sums_scatter_on_cpus_alone(k):
    """In some releases a float32 scatter is a compare-and-swap loop on GPUs."""
    shape = lambda *sizes, dtype="float32": jax.ShapeDtypeStruct(sizes, dtype)
    arguments = shape(4096, 8), shape(4096), shape(4096, dtype="int32"), shape(k, 8)
    assert "stablehlo.scatter" not in lowered(cluster_sums.sums_of_differences, *arguments)
    on_cpu = jax.jit(cluster_sums.sums_of_differences).trace(*arguments)
    assert "stablehlo.scatter" in on_cpu.lower(lowering_platforms=("cpu",)).as_text()


def test_what_a_gpu_runs_is_what_the_cpu_runs():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2048, 8)).astype(np.float32)
    tiles = tiles_of(x[:300], 256)
    here = top2_of_all(x, tiles, block=1024)
    there = top2_in_blocks(x, tiles, block=2048)  # larger blocks, as on a GPU
    np.testing.assert_array_equal(here.labels, there.labels)
    np.testing.assert_allclose(here.second_scores, there.second_scores, atol=1e-6)
