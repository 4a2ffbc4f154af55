"""Choice of the implementation that finds the best two centroids of each row on a backend."""

import functools
from typing import Any, Literal, get_args

import jax

from jaxcurate.checks import InputError
from jaxcurate.kmeans.kernels.scores import Precision, Tiles, Top2, top2_in_blocks
from jaxcurate.kmeans.kernels.tpu import top2_fused
from jaxcurate.runtime import devices

GpuKernel = Literal["blocks", "fused"]

gpu_kernel: GpuKernel = "blocks"
"""Kernel that GPUs run. "blocks" is XLA's; "fused" is :mod:`jaxcurate.kmeans.kernels.hopper` if
:func:`runs_fused` holds, and XLA's otherwise. The fused kernel has been compiled and interpreted,
but never run on a GPU. It becomes the default if ``scripts/bench/gpu.py``, which runs both, shows
that it is faster."""

devices.compiled_for.append(lambda: gpu_kernel)


def runs_fused(precision: Precision) -> bool:
    """Returns whether GPUs run the fused kernel, which has to be selected and available.

    It exists for bfloat16 only and needs compute capability 9.

    Raises:
        InputError: :data:`gpu_kernel` is unknown.
    """
    if gpu_kernel not in get_args(GpuKernel):
        raise InputError(f"gpu_kernel={gpu_kernel!r}; known: {get_args(GpuKernel)}")
    return gpu_kernel == "fused" and precision == "bfloat16" and _on_hopper()


def _on_hopper() -> bool:
    if jax.default_backend() != "gpu":
        return False
    return all(str(device.compute_capability).startswith("9.") for device in jax.local_devices())


def top2_of_all(
    x: jax.Array, tiles: Tiles, *, block: int, precision: Precision = "float32"
) -> Top2:
    """Returns the best centroid of each row and the score of the second best.

    Args:
        x: float32 ``[n, d]``, ``n`` a multiple of ``block``.
        tiles: Centroids in tiles.
        block: Number of rows in a block for XLA; the other kernels choose blocks themselves.
        precision: Precision of the factors of products.
    """
    fused: dict[str, Any] = {"tpu": functools.partial(top2_fused, precision=precision)}
    if runs_fused(precision):
        # Imported only if needed, since the interface that it uses changes between releases of jax.
        from jaxcurate.kmeans.kernels.hopper import top2_on_hopper

        fused["cuda"] = top2_on_hopper
    blocks = functools.partial(top2_in_blocks, block=block, precision=precision)
    return jax.lax.platform_dependent(x, tiles, **fused, default=blocks)
