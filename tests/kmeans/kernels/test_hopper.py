"""The kernel for Hopper GPUs: interpreted against XLA's blocks, and lowered. No GPU is needed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.pallas.mosaic_gpu.interpret import params  # public from jax 0.11 on, in plgpu

from jaxcurate.kmeans.kernels import dispatch, hopper
from jaxcurate.kmeans.kernels.dispatch import top2_of_all
from jaxcurate.kmeans.kernels.hopper import top2_on_hopper
from jaxcurate.kmeans.kernels.scores import best_two, tiles_of
from jaxcurate.kmeans.lloyd import assigned
from jaxcurate.runtime.devices import ROWS, SAME

N, K, D = 100, 600, 100
"""Three tiles of centroids, two stages to a tile, none of them full; stages are used again."""
KERNEL = "mosaic_gpu"


def data_of(n=N, k=K, d=D):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(m, d)), jnp.float32) for m in (n, k)]


def interpreted(x, tiles):
    """On the CPU, with warpgroups, copies and barriers, and an error where they race."""
    with params.force_gpu_interpret_mode(params.InterpretGPUParams(detect_races=True)):
        return jax.jit(top2_on_hopper)(x, tiles)


def assert_as_in_blocks(x, tiles):
    fused = interpreted(x, tiles)
    blocks = jax.jit(best_two, static_argnums=2)(x, tiles, "bfloat16")
    np.testing.assert_array_equal(fused.labels, blocks.labels)
    np.testing.assert_allclose(fused.scores, blocks.scores, atol=2e-5)
    np.testing.assert_allclose(fused.second_scores, blocks.second_scores, atol=2e-5)
    return fused


def test_as_in_blocks():
    x, centroids = data_of()
    assert_as_in_blocks(x, tiles_of(centroids, 256))


def test_the_first_of_equal_ones_wins_among_the_chosen():
    centroids = jnp.asarray(np.repeat(np.eye(8, D, dtype=np.float32), K // 8, axis=0))
    x = centroids[:: K // N]
    best = assert_as_in_blocks(x, tiles_of(centroids, 256, jnp.arange(K) % 3 > 0))
    assert set(np.asarray(best.labels)) == set(range(1, K, K // 8))  # 0, 75, ... are not
    np.testing.assert_array_equal(best.second_scores, best.scores)


def test_one_centroid_has_no_other():
    x, centroids = data_of(n=150, d=1)  # two blocks of rows
    best = assert_as_in_blocks(x, tiles_of(centroids, 256, jnp.arange(K) == 77))
    assert np.isinf(best.second_scores).all()


def test_no_centroid_at_all():
    x, centroids = data_of()
    best = interpreted(x, tiles_of(centroids, 256, jnp.zeros(K, bool)))
    assert np.isinf(best.scores).all() and np.isinf(best.second_scores).all()


def test_rows_in_pieces(monkeypatch):
    monkeypatch.setattr(hopper, "_ROUNDED_AT_ONCE", 128)
    x, centroids = data_of(n=150, k=3, d=1)
    assert_as_in_blocks(x, tiles_of(centroids, 3))


def lowered(function, *arguments):
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("size", [(8_000_000, 1024, 128), (3_000_000, 100_000, 1024), (5, 3, 1)])
def test_lowers(size):
    n, k, d = size
    shapes = [jax.ShapeDtypeStruct((m, d), jnp.float32) for m in (n, k)]
    fused = lambda x, centroids: top2_on_hopper(x, tiles_of(centroids, 8192))
    assert KERNEL in lowered(fused, *shapes)


def test_chosen_by_rule(monkeypatch):
    def text(precision):
        function = lambda x, tiles: top2_of_all(x, tiles, block=1024, precision=precision)
        return lowered(function, np.ones((2048, 8), np.float32), tiles_of(jnp.ones((300, 8)), 256))

    monkeypatch.setattr(dispatch, "_on_hopper", lambda: True)
    assert KERNEL not in text("bfloat16")  # not the default
    monkeypatch.setattr(dispatch, "gpu_kernel", "fused")
    assert KERNEL in text("bfloat16") and KERNEL not in text("float32")
    monkeypatch.undo()
    monkeypatch.setattr(dispatch, "gpu_kernel", "fused")
    assert KERNEL not in text("bfloat16")  # these are CPUs
    monkeypatch.setattr(dispatch, "gpu_kernel", "other")
    with pytest.raises(ValueError, match="gpu_kernel='other'"):
        text("bfloat16")


def test_another_choice_compiles_anew(monkeypatch, devices):
    def text():
        kernel = devices.spmd(assigned, (ROWS, SAME), (ROWS, ROWS), block=256, precision="bfloat16")
        shapes = [jax.ShapeDtypeStruct((m, 8), jnp.float32) for m in (4096, 300)]
        return kernel.trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()

    monkeypatch.setattr(dispatch, "_on_hopper", lambda: True)
    assert KERNEL not in text()
    monkeypatch.setattr(dispatch, "gpu_kernel", "fused")
    assert KERNEL in text()  # on each of several devices
