"""k-means|| seeding: a few rounds of oversampling, then k-means++ among the drawn rows."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from jaxcurate.kmeans.lloyd import assigned
from jaxcurate.kmeans.rows import Rows, place
from jaxcurate.kmeans.seeding.plus_plus import greedy_kmeans_plus_plus
from jaxcurate.runtime.devices import ROWS, SAME, Devices, fetch, padded_size

N_ROUNDS = 5
"""Number of rounds of oversampling."""


def kmeans_parallel(
    chunks: Callable[[], Iterable[tuple[slice, Rows]]],
    take: Callable[[np.ndarray], np.ndarray],
    n: int,
    n_clusters: int,
    key: jax.Array,
    devices: Devices,
) -> np.ndarray:
    """Chooses centroids in ``N_ROUNDS + 1`` passes over the rows instead of ``k``.

    Each round draws about ``2 k`` rows, each independently, with probability proportional to the
    squared distance to the nearest row drawn so far. Greedy k-means++ then chooses ``k`` of the
    drawn rows, weighted by the number of rows that are nearest to them.

    Args:
        chunks: Function that returns the slice and the rows of each chunk, for a pass.
        take: Function from row numbers to rows ``[m, d]``.
        n: Number of rows.
        n_clusters: Number of clusters ``k``.
        key: Random key of jax.
        devices: Devices to use.

    Returns:
        float32 ``[k, d]``.

    References:
        Bahmani et al., Scalable k-means++, 2012. https://arxiv.org/abs/1203.6402
    """

    def padded(chosen: np.ndarray) -> np.ndarray:
        # The last row is repeated up to a multiple of the usual number, for fewer compilations.
        n_missing = padded_size(len(chosen), 2 * n_clusters) - len(chosen)
        return np.pad(chosen, (0, n_missing), mode="edge")

    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    chosen = np.sort(rng.choice(n, 1))
    closest, owner = np.full(n, np.inf, np.float32), np.zeros(n, np.int64)
    new = chosen
    for round_ in range(N_ROUNDS + 1):
        first = len(chosen) - len(new)
        labels, distances = _assign(chunks, take(padded(new)), n, devices)
        owner = np.where(distances < closest, first + labels, owner)
        closest = np.minimum(closest, distances)
        potential = float(closest.sum(dtype=np.float64))
        if round_ == N_ROUNDS or potential == 0:
            break
        drawn = rng.random(n) < 2 * n_clusters * (closest / potential)
        new = np.flatnonzero(drawn & (closest > 0))
        if not len(new):
            break
        chosen = np.concatenate([chosen, new])
    if len(chosen) <= n_clusters:  # too few distinct rows: fill up with any others
        others = np.setdiff1d(np.arange(n), chosen)
        return take(np.concatenate([chosen, rng.permutation(others)])[:n_clusters])
    rows = place(take(padded(chosen))[: len(chosen)], devices)
    weights = np.zeros(rows.x.shape[0], np.float32)
    weights[: len(chosen)] = np.bincount(owner, minlength=len(chosen))
    kernel = rows.spmd(
        greedy_kmeans_plus_plus, n_clusters, (ROWS, ROWS, SAME), SAME, n_clusters=n_clusters
    )
    return np.asarray(kernel(rows.x, weights, key))


def _assign(
    chunks: Callable[[], Iterable[tuple[slice, Rows]]],
    candidates: np.ndarray,
    n: int,
    devices: Devices,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the nearest candidate of each row, and the squared distance to it."""
    on_device = jnp.asarray(candidates)
    labels, distances = np.empty(n, np.int32), np.empty(n, np.float32)
    for span, rows in chunks():
        kernel = devices.spmd(assigned, (ROWS, SAME), (ROWS, ROWS), block=rows.block)
        nearest, squared = kernel(rows.x, on_device)
        labels[span] = fetch(nearest)[: rows.n]
        distances[span] = fetch(squared)[: rows.n]
    return labels, distances
