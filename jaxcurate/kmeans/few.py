"""The few nearest centroids of each row, in blocks: ``n x k`` numbers are never held."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcurate.checks import InputError
from jaxcurate.kmeans.assignment.exact import by_differences
from jaxcurate.kmeans.kernels.scores import HIGHEST, tiles_of
from jaxcurate.kmeans.rows import place
from jaxcurate.runtime import devices
from jaxcurate.runtime.devices import ROWS, SAME


def nearest_few(
    x: np.ndarray, centroids: np.ndarray, m: int, *, mesh: Mesh | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The ``m`` nearest centroids of each row, nearest first, in squared Euclidean distance.

    Args:
        x: float32 ``[n, d]``, best in a :class:`~jaxcurate.kmeans.normalize.Frame`.
        centroids: float32 ``[k, d]``, in the same.
        m: how many, at most ``k``.
        mesh: devices over which the rows are split.

    Returns:
        Labels int32 ``[n, m]`` and squared distances float32 ``[n, m]``. They are chosen up to
        the rounding of float32 scores, measured by differences, and put in order by these.

    Raises:
        ValueError: ``m`` is not between 1 and ``k``.
    """
    if not 1 <= m <= len(centroids):
        raise InputError(f"m={m}, but there are {len(centroids)} centroid(s)")
    rows = place(np.asarray(x, np.float32), mesh)
    kernel = devices.spmd(_few, mesh, (ROWS, SAME), (ROWS, ROWS), m=m, block=rows.block)
    labels, squared = kernel(rows.x, np.asarray(centroids, np.float32))
    return devices.fetch(labels)[: rows.n], devices.fetch(squared)[: rows.n]


def _few(
    x: jax.Array, centroids: jax.Array, *, m: int, block: int, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    """As :func:`nearest_few` for the rows of one device, ``n`` a multiple of ``block``."""
    del axis_name  # every row is on its own
    tiles = tiles_of(centroids, block)
    width = tiles.half_norms.shape[1]

    def one_block(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        def one_tile(
            best: tuple[jax.Array, jax.Array], tile: tuple[jax.Array, ...]
        ) -> tuple[tuple[jax.Array, jax.Array], None]:
            members, half_norms, positions = tile
            scores = half_norms[None, :] - jnp.dot(rows, members.T, precision=HIGHEST)
            scores = jnp.concatenate([best[0], scores], axis=1)
            here = jnp.broadcast_to(positions[None, :], (len(rows), width))
            labels = jnp.concatenate([best[1], here], axis=1)
            least, at = jax.lax.top_k(-scores, m)  # of equal ones the first, as everywhere
            return (-least, jnp.take_along_axis(labels, at, axis=1)), None

        nothing = jnp.broadcast_to(rows[:, :1] * 0, (len(rows), m))
        begin = nothing + jnp.inf, nothing.astype(jnp.int32)
        (_, labels), _ = jax.lax.scan(
            one_tile, begin, (tiles.centroids, tiles.half_norms, tiles.positions)
        )
        near = centroids[labels]  # [b, m, d]
        squared = by_differences(rows.T[:, :, None], near.transpose(2, 0, 1))
        order = jnp.lexsort((labels, squared), axis=1)
        take = lambda a: jnp.take_along_axis(a, order, axis=1)
        return take(labels), take(squared)

    labels, squared = jax.lax.map(one_block, x.reshape(-1, block, x.shape[1]))
    return labels.reshape(-1, m), squared.reshape(-1, m)
