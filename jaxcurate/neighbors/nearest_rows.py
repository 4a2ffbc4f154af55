"""Retrieval: the rows of a pool that are nearest to each query, by exhaustive search in blocks."""

from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxcurate.artifacts.lazy_rows import as_rows
from jaxcurate.artifacts.tree import Metric
from jaxcurate.checks import InputError, check_choice, check_whole
from jaxcurate.kmeans.normalize import checked_shape, fit_normalizer
from jaxcurate.runtime import collectives
from jaxcurate.runtime.devices import ROWS, SAME, Devices, RowsLike, fetch

_HIGHEST = jax.lax.Precision.HIGHEST
_BLOCKS_A_CHUNK = 16
_NUMBERS = 2**18
"""Largest number of entries of rows that are converted to float64 at a time."""
_QUERIES = 4096
"""Number of queries at a time: a device holds as many scores for each row of a block."""
_DISTANCE_BYTES = 2**20
"""Bytes of the chosen rows, in float64, whose distances are computed at a time."""


class Neighbors(NamedTuple):
    """Rows nearest to each query, nearest first."""

    rows: np.ndarray
    """Row numbers in the pool, int64 ``[q, c]``."""
    distances: np.ndarray
    """Distances to the query, float32 ``[q, c]``: ``1 - cosine``, or squared Euclidean."""


def nearest_rows(
    embeddings: RowsLike,
    queries: RowsLike,
    n_per_query: int,
    metric: Metric = "cosine",
    *,
    devices: Devices | None = None,
    block: int = 1024,
) -> Neighbors:
    """Returns the rows of a pool that are nearest to each query.

    Each device holds the queries, scores its rows block by block, and keeps the best rows so far,
    so that memory does not grow with the size of the pool. Of rows at equal distance, the lower
    row number comes first.

    Args:
        embeddings: Rows of the pool, real numbers ``[n, d]``: an array, a memory map or a
            :class:`~jaxcurate.kmeans.row_view.RowView`, read chunk by chunk.
        queries: Real numbers ``[q, d]``.
        n_per_query: Number of rows for each query, at least 1; all rows if the pool has fewer.
        metric: ``"cosine"``, which ignores the lengths of rows, or ``"euclidean"``.
        devices: Devices over which the rows are split; all by default.
        block: Number of rows that a device scores at a time.

    Returns:
        Row numbers and distances ``[q, min(n_per_query, n)]``, nearest first.

    Raises:
        InputError: An argument cannot be used; the message names it.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.neighbors import nearest_rows
        >>> x = np.array([[0.0, 0], [1, 0], [0, 2], [3, 3]])
        >>> nearest = nearest_rows(x, np.array([[0.0, 1.5]]), 2, metric="euclidean")
        >>> nearest.rows.tolist(), nearest.distances.tolist()
        ([[2, 0]], [[0.25, 2.25]])
    """
    check_whole("n_per_query", n_per_query, 1)
    check_choice("metric", metric, get_args(Metric))
    queries = as_rows(queries, "queries")
    embeddings = as_rows(embeddings, "embeddings")
    checked_shape(queries, "queries")
    normalizer = fit_normalizer(embeddings, "embeddings")
    fit_normalizer(queries, "queries")  # refuses rows that are not finite
    if queries.shape[1] != embeddings.shape[1]:
        raise InputError(
            f"queries have {queries.shape[1]} columns, the embeddings {embeddings.shape[1]}"
        )
    n_per_query = min(n_per_query, len(embeddings))
    # The order of |x - q|^2 is that of |x|^2 / 2 - x q, which loses no digits of normalized rows.
    transform = normalizer.transform if metric == "euclidean" else _unit_rows
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
    nearest = []
    for first in range(0, len(queries), _QUERIES):
        points = transform(queries[first : first + _QUERIES])
        scores, rows = np.empty((len(points), 0), np.float32), np.empty((len(points), 0), np.int64)
        for begin in range(0, len(embeddings), n_chunk):
            chunk = transform(embeddings[begin : begin + n_chunk])
            placed, weights = devices.put_rows(chunk, block)
            outputs = kernel(placed, weights, points)
            best, index = (np.concatenate(list(fetch(output)), 1) for output in outputs)
            scores = np.concatenate([scores, best], 1)
            rows = np.concatenate([rows, begin + index], 1)
            # The sort is stable and later chunks have higher rows: the first of equal rows wins.
            keep = np.argsort(-scores, axis=1, kind="stable")[:, :n_per_query]
            scores, rows = np.take_along_axis(scores, keep, 1), np.take_along_axis(rows, keep, 1)
        nearest.append(rows)
    rows = np.concatenate(nearest)
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
    """Returns the best rows of this device for each query.

    Args:
        x: Rows, float32 ``[m, d]``, ``m`` a multiple of ``block``.
        weights: Weights of the rows, float32 ``[m]``: 0 for padding.
        queries: float32 ``[q, d]``.
        axis_name: Name of the devices' axis.
        n_best: Number of rows for each query.
        block: Number of rows to score at a time.
        with_norms: If True, scores are ``x q - |x|^2 / 2``, otherwise ``x q``.

    Returns:
        Scores float32 ``[1, q, n_best]``, highest first and minus infinity if there are fewer
        rows, and the numbers of their rows among the rows of all devices, int32 of that shape.
    """
    n_queries = len(queries)

    def step(
        carry: tuple[jax.Array, jax.Array], inputs: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        best, rows = carry
        points, weight, first = inputs
        scores = jnp.dot(queries, points.T, precision=_HIGHEST)
        if with_norms:
            scores -= 0.5 * jnp.sum(points**2, axis=1)[None, :]
        scores = jnp.where(weight[None, :] > 0, scores, -jnp.inf)
        scored = jnp.broadcast_to(first + jnp.arange(block, dtype=jnp.int32)[None], scores.shape)
        best, index = jax.lax.top_k(jnp.concatenate([best, scores], axis=1), n_best)
        rows = jnp.take_along_axis(jnp.concatenate([rows, scored], axis=1), index, axis=1)
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


def _unit_rows(x: np.ndarray) -> np.ndarray:
    """Returns rows divided by their lengths, float32. A row of zeros stays: cosine 0 to all."""
    out, step = np.empty(x.shape, np.float32), max(1, _NUMBERS // x.shape[1])
    for begin in range(0, len(x), step):
        out[begin : begin + step] = directions(x[begin : begin + step])
    return out


def directions(x: np.ndarray) -> np.ndarray:
    """Returns rows ``[n, d]`` divided by their lengths, float64. A row of zeros stays.

    Squares of the numbers may under- or overflow.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.neighbors.nearest_rows import directions
        >>> directions(np.array([[3e200, 4e200], [0, 0]]))
        array([[0.6, 0.8],
               [0. , 0. ]])
    """
    x = np.asarray(x, np.float64)
    _, exponents = np.frexp(np.abs(x).max(axis=1, keepdims=True))
    x = np.ldexp(x, -exponents)  # a power of two, which changes no digit
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(lengths > 0, lengths, 1)


def _distances(
    embeddings: RowsLike, queries: RowsLike, rows: np.ndarray, metric: Metric
) -> np.ndarray:
    """Returns the distances of the chosen rows ``[q, c]``, computed in float64, as float32.

    Blocks of queries are measured at a time, so that neither a call for each query nor a copy of
    all chosen rows is needed.
    """
    n_queries, n_best = rows.shape
    width = queries.shape[1]
    block = max(_DISTANCE_BYTES // max(8 * n_best * width, 1), 1)
    out = np.empty(rows.shape, np.float32)
    for begin in range(0, n_queries, block):
        part = slice(begin, min(begin + block, n_queries))
        near = np.asarray(embeddings[rows[part].ravel()], np.float64)
        query = np.asarray(queries[part], np.float64)
        if metric == "euclidean":
            with np.errstate(over="ignore"):  # a distance beyond float32 is infinite
                out[part] = ((near.reshape(-1, n_best, width) - query[:, None]) ** 2).sum(axis=2)
        else:
            near = directions(near).reshape(-1, n_best, width)
            out[part] = 1 - (near @ directions(query)[:, :, None])[:, :, 0]
    return out
