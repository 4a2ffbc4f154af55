"""Kernels of k-means and of the searches with the shapes of their arguments, by name."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxcurate.kmeans import predict, splitting, streaming
from jaxcurate.kmeans.assignment.pruned import PRUNING_SPECS
from jaxcurate.kmeans.kernels.scores import Top2
from jaxcurate.kmeans.lloyd import (
    LLOYD_SPECS,
    assigned,
    lloyd_like,
    more_iterations,
    unassigned,
)
from jaxcurate.kmeans.seeding.plus_plus import SEEDS_SPECS, first_seed, more_seeds, seeds_like
from jaxcurate.kmeans.sharded import RING_SPECS, ring_lloyd
from jaxcurate.neighbors.close_pairs import _reaching
from jaxcurate.neighbors.nearest_rows import _best
from jaxcurate.runtime.devices import ROWS, SAME

BLOCK = 4096
"""Number of rows in a block on a TPU."""
_BEST = Top2(ROWS, ROWS, ROWS)


class Kernel(NamedTuple):
    """Kernel, with a spec and a shape for each argument."""

    function: Callable[..., Any]
    """Function of the arguments, keywords of its own, and ``axis_name``."""
    arguments: tuple[tuple[Any, Any], ...]
    """Spec and shape of each argument, or trees of them."""
    out: Any
    """Specs of the results."""
    static: dict[str, Any]
    """Keyword arguments that are constant."""


def kernels(
    n: int, d: int, k: int, shards: int = 1, block: int = BLOCK, max_iter: int = 50
) -> dict[str, Kernel]:
    """Returns kernels by name, for rows ``[n, d]`` and ``k`` clusters.

    Args:
        n: number of rows, a multiple of ``shards * block``.
        d: number of columns.
        k: number of clusters.
        shards: number of devices.
        block: number of rows in a block.
        max_iter: largest number of iterations.

    Examples:
        >>> made = kernels(8192, 16, 100)
        >>> [shape.shape for _, shape in made["assigned"].arguments]
        [(8192, 16), (100, 16)]
    """
    shape = lambda *sizes, dtype="float32": jax.ShapeDtypeStruct(sizes, dtype)
    x, weights, numbers = shape(n, d), shape(n), shape(n, dtype="int32")
    centroids, some = shape(k, d), shape(16, d)
    key = jax.eval_shape(lambda: jax.random.key(0))
    rows, stop = ((ROWS, x), (ROWS, weights)), (SAME, shape(dtype="int32"))
    best = (_BEST, Top2(numbers, weights, weights))
    lloyd = lloyd_like(n, d, k, max_iter, block, shards)
    near = (PRUNING_SPECS, lloyd.bounds)
    clusters, counts = (SAME, centroids), (SAME, shape(k, dtype="int32"))
    tiles = shape(64 * 8, 256, d)
    of_block = dict(block=block)
    return {
        "iterations": Kernel(
            more_iterations, (*rows, (LLOYD_SPECS, lloyd), stop), LLOYD_SPECS, of_block
        ),
        "begin": Kernel(
            unassigned, ((ROWS, x), clusters), LLOYD_SPECS, of_block | dict(max_iter=max_iter)
        ),
        "assigned": Kernel(assigned, ((ROWS, x), clusters), (ROWS, ROWS), of_block),
        "ring": Kernel(
            ring_lloyd, (*rows, (ROWS, centroids)), RING_SPECS, of_block | dict(max_iter=max_iter)
        ),
        "first seed": Kernel(
            first_seed, (*rows, (SAME, key)), SEEDS_SPECS, of_block | dict(n_clusters=k)
        ),
        "seeds": Kernel(
            more_seeds,
            (*rows, (SAME, key), (SEEDS_SPECS, seeds_like(n, d, k)), stop),
            SEEDS_SPECS,
            of_block,
        ),
        "streamed": Kernel(
            streaming._assign_and_sum,
            (*rows, clusters, clusters, best, near, (SAME, shape(dtype="int32"))),
            (ROWS, PRUNING_SPECS, SAME, SAME, SAME, SAME),
            of_block | dict(precision="float32"),
        ),
        "streamed seeds": Kernel(
            streaming._improve, (*rows, (ROWS, weights), (SAME, some)), (ROWS, ROWS), of_block
        ),
        "parts": Kernel(
            predict._nearest_part,
            ((ROWS, x), clusters, counts, counts, (SAME, shape(4 * k, d))),
            (ROWS, ROWS),
            of_block | dict(most=4),
        ),
        "nearest rows": Kernel(
            _best,
            (*rows, (SAME, shape(64, d))),
            (ROWS, ROWS),
            of_block | dict(n_best=8, with_norms=True),
        ),
        "pairs": Kernel(
            _reaching,
            ((ROWS, tiles), (ROWS, tiles), (SAME, shape())),
            (ROWS, ROWS),
            {},
        ),
        "splits": Kernel(
            splitting._fit_stack,
            (
                (ROWS, shape(64 * shards, 1024, d)),
                (ROWS, shape(64 * shards, 1024)),
                (ROWS, shape(64 * shards, dtype="int32")),
                (SAME, key),
            ),
            (ROWS, ROWS),
            dict(n_splits=100, max_iter=50, unit=False),
        ),
    }
