"""Retrieval: the rows of a pool that are nearest to each query, by blocked brute force."""

from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxcurate.artifacts.tree import Metric
from jaxcurate.checks import InputError, as_real, check_choice, check_whole
from jaxcurate.kmeans.normalize import checked_shape, fit_normalizer
from jaxcurate.kmeans.row_view import RowView
from jaxcurate.runtime import collectives
from jaxcurate.runtime.devices import ROWS, SAME, Devices, RowsLike, fetch

_HIGHEST = jax.lax.Precision.HIGHEST
_BLOCKS_A_CHUNK = 16
_QUERIES = 4096
"""Queries at a time; a device holds this many scores for each row of a block."""


class Neighbors(NamedTuple):
    """The rows nearest to each query, nearest first."""

    rows: np.ndarray
    """int64 ``[q, c]``."""
    distances: np.ndarray
    """float32 ``[q, c]``: ``1 - cosine``, or squared Euclidean."""


def nearest_rows(
    embeddings: RowsLike,
    queries: np.ndarray,
    n_per_query: int,
    metric: Metric = "cosine",
    *,
    devices: Devices | None = None,
    block: int = 1024,
) -> Neighbors:
    """Returns the pool's rows nearest to each query.

    Every device holds the queries and goes through its rows in blocks, keeping the best so far;
    nothing of the size of pool times queries is held.

    Args:
        embeddings: ``[n, d]``, an array, a memory map or
            :class:`~jaxcurate.kmeans.row_view.RowView`, read a chunk at a time.
        queries: ``[q, d]``.
        n_per_query: how many for each query; all where the pool has fewer.
        metric: ``"cosine"``, which ignores lengths, or ``"euclidean"``.
        devices: the devices over which the rows are split; all by default.
        block: rows that a device scores at a time.

    Raises:
        ValueError: naming the argument that cannot be used.
    """
    check_whole("n_per_query", n_per_query, 1)
    check_choice("metric", metric, get_args(Metric))
    queries = as_real(queries, "queries")
    if not isinstance(embeddings, RowView):
        embeddings = as_real(embeddings, "embeddings")
    checked_shape(queries, "queries")
    normalizer = fit_normalizer(embeddings, "embeddings")
    fit_normalizer(queries, "queries")  # refuses what is not finite
    if queries.shape[1] != embeddings.shape[1]:
        raise InputError(
            f"queries have {queries.shape[1]} columns, the embeddings {embeddings.shape[1]}"
        )
    n_per_query = min(n_per_query, len(embeddings))
    # The order of |x - q|^2 is that of |x|^2 / 2 - x q, which loses no digits of normalized rows.
    enter = normalizer.transform if metric == "euclidean" else _of_length_one
    devices = Devices.all() if devices is None else devices
    kernel = devices.spmd(
        _best,
        (ROWS, ROWS, SAME),
        (ROWS, ROWS),
        n_best=n_per_query,
        block=block,
        with_norms=metric == "euclidean",
    )
    n_chunk = devices.count * block * _BLOCKS_A_CHUNK
    found = []
    for first in range(0, len(queries), _QUERIES):
        part = enter(queries[first : first + _QUERIES])
        scores, rows = np.empty((len(part), 0), np.float32), np.empty((len(part), 0), np.int64)
        for begin in range(0, len(embeddings), n_chunk):
            chunk = enter(embeddings[begin : begin + n_chunk])
            placed, weights = devices.put_rows(chunk, block)
            best, at = (np.concatenate(list(fetch(a)), 1) for a in kernel(placed, weights, part))
            scores, rows = np.concatenate([scores, best], 1), np.concatenate([rows, begin + at], 1)
            # Stable, and rows rise from part to part: of equal scores the first row wins.
            keep = np.argsort(-scores, axis=1, kind="stable")[:, :n_per_query]
            scores, rows = np.take_along_axis(scores, keep, 1), np.take_along_axis(rows, keep, 1)
        found.append(rows)
    rows = np.concatenate(found)
    return Neighbors(rows, _distances(embeddings, queries, rows, metric))


def _best(
    x: jax.Array,
    weights: jax.Array,
    queries: jax.Array,
    *,
    axis_name: str | None,
    n_best: int,
    block: int,
    with_norms: bool,
) -> tuple[jax.Array, jax.Array]:
    """Returns the best of this device's rows for each query.

    Args:
        x: float32 ``[m, d]``, ``m`` a multiple of ``block``.
        weights: float32 ``[m]``: 0 for padding.
        queries: float32 ``[q, d]``.
        axis_name: of the devices.
        n_best: how many for each query.
        block: rows to score at a time.
        with_norms: scores are ``x q - |x|^2 / 2``, or else ``x q``.

    Returns:
        Scores float32 ``[1, q, n_best]``, highest first, and which of all devices' rows they are
        of, int32; minus infinity where there are fewer rows.
    """
    n_queries = len(queries)

    def step(
        carry: tuple[jax.Array, jax.Array], inputs: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        best, rows = carry
        part, weight, first = inputs
        scores = jnp.dot(queries, part.T, precision=_HIGHEST)
        if with_norms:
            scores -= 0.5 * jnp.sum(part**2, axis=1)[None, :]
        scores = jnp.where(weight[None, :] > 0, scores, -jnp.inf)
        here = jnp.broadcast_to(first + jnp.arange(block, dtype=jnp.int32)[None], scores.shape)
        best, at = jax.lax.top_k(jnp.concatenate([best, scores], axis=1), n_best)
        rows = jnp.take_along_axis(jnp.concatenate([rows, here], axis=1), at, axis=1)
        return (best, rows), None

    begin = collectives.axis_index(axis_name) * len(x)
    firsts = begin + jnp.arange(0, len(x), block, dtype=jnp.int32)
    start = (
        jnp.full((n_queries, n_best), -jnp.inf, jnp.float32),
        jnp.zeros((n_queries, n_best), jnp.int32),
    )
    blocks = (x.reshape(-1, block, x.shape[1]), weights.reshape(-1, block), firsts)
    (best, rows), _ = jax.lax.scan(step, start, blocks)
    return best[None], rows[None]


def _of_length_one(x: np.ndarray) -> np.ndarray:
    """Returns rows divided by their lengths, float32; a row of zeros stays, at a right angle to
    all."""
    return _directions(x).astype(np.float32)


def _directions(x: np.ndarray) -> np.ndarray:
    """Returns the same in float64, of numbers so small or large that their squares are none,
    too."""
    x = np.asarray(x, np.float64)
    _, exponents = np.frexp(np.abs(x).max(axis=1, keepdims=True))
    x = np.ldexp(x, -exponents)  # a power of two, which changes no digit
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(lengths > 0, lengths, 1)


def _distances(
    embeddings: RowsLike, queries: np.ndarray, rows: np.ndarray, metric: Metric
) -> np.ndarray:
    """Returns of the chosen rows alone, in float64 and without cancellation; float32 ``[q, c]``."""
    out = np.empty(rows.shape, np.float32)
    for i, query in enumerate(np.asarray(queries, np.float64)):
        near = np.asarray(embeddings[rows[i]], np.float64)
        if metric == "euclidean":
            with np.errstate(over="ignore"):  # beyond float32 a squared distance is infinite
                out[i] = ((near - query) ** 2).sum(axis=1)
        else:
            out[i] = 1 - _directions(near) @ _directions(query[None])[0]
    return out
