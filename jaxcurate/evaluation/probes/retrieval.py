"""Retrieval of items with the same label: exact average precision of every query."""

import os
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from jaxcurate.evaluation.probes.base import ProbeTask, check_features, in_blocks, unit_rows

_BLOCK_ELEMENTS = 2**24
"""Number of cosines that are computed at a time: 64 MiB of float32."""


def average_precisions(
    gallery_x: np.ndarray,
    gallery_y: np.ndarray,
    query_x: np.ndarray,
    query_y: np.ndarray,
    *,
    leave_one_out: bool = False,
) -> np.ndarray:
    """Returns the average precision with which each query finds the rows that have its label.

    The rows of the gallery are ranked by cosine similarity to the query. The average precision is
    the mean, over the rows with the label of the query, of the fraction of such rows among all that
    are at least as similar. Rows of equal similarity share their place, so that their order does
    not matter. Cosines are float32 and computed on the device; a block of them is sorted on the
    host, where numpy's vectorized sort is faster than XLA's on a CPU.

    Args:
        gallery_x: features to search, float ``[n, d]``.
        gallery_y: their labels, ``[n]``.
        query_x: features of the queries, float ``[m, d]``.
        query_y: their labels, ``[m]``.
        leave_one_out: the queries are the rows of the gallery, and none finds itself.

    Returns:
        float64 ``[m]``, from 0 to 1; 0 for a query with a label that no (other) row has.

    Raises:
        InputError: shapes do not fit, or features are not finite.

    References:
        Manning, Raghavan, Schütze: Introduction to information retrieval (2008), section 8.4.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation import average_precisions
        >>> gallery = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> labels = np.array(["cat", "dog", "cat"])
        >>> query = np.array([[1.0, 0.1]])
        >>> average_precisions(gallery, labels, query, np.array(["cat"])).round(3).tolist()
        [0.833]
    """
    check_features(gallery_x, gallery_y, query_x)
    known, classes = np.unique(gallery_y, return_inverse=True)
    columns = np.split(np.argsort(classes, kind="stable"), np.cumsum(np.bincount(classes))[:-1])
    members = dict(zip(known.tolist(), columns, strict=True))
    gallery, queries = jnp.asarray(unit_rows(gallery_x)), unit_rows(query_x)
    size = int(np.clip(_BLOCK_ELEMENTS // len(gallery), 1, 512))
    none = np.zeros(0, np.int64)
    precisions = np.zeros(len(queries))

    def measure(row: int, cosines: np.ndarray) -> float:
        relevant = members.get(query_y[row].item(), none)
        if leave_one_out:
            relevant = relevant[relevant != row]
            cosines = np.delete(cosines, row)
            return _average_precision(cosines, cosines[relevant - (relevant > row)])
        return _average_precision(cosines, cosines[relevant])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(queries), size):
            (cosines,) = in_blocks(_cosines, queries[first : first + size], size, gallery)
            rows = range(first, first + len(cosines))
            precisions[first : first + len(cosines)] = list(pool.map(measure, rows, cosines))
    return precisions


def retrieval(task: ProbeTask) -> np.ndarray:
    """Returns the average precision of each test row that queries the probe set, float64 ``[m]``.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation.probes.base import ProbeTask
        >>> from jaxcurate.evaluation.probes.retrieval import retrieval
        >>> x, y = np.eye(3), np.arange(3)
        >>> retrieval(ProbeTask(x, y, x, y)).tolist()
        [1.0, 1.0, 1.0]
    """
    return average_precisions(task.train_x, task.train_y, task.test_x, task.test_y)


@jax.jit
def _cosines(gallery: jax.Array, queries: jax.Array) -> jax.Array:
    """Returns the products of all queries and rows of the gallery, float32 ``[m, n]``."""
    return jnp.dot(queries, gallery.T, precision="highest")


def _average_precision(cosines: np.ndarray, relevant: np.ndarray) -> float:
    """Returns the average precision of the relevant cosines ``[r]`` among all cosines ``[n]``."""
    if not len(relevant):
        return 0.0
    everything, relevant = np.sort(cosines), np.sort(relevant)
    n_found = len(relevant) - np.searchsorted(relevant, relevant)
    n_seen = len(everything) - np.searchsorted(everything, relevant)
    return float(np.mean(n_found / n_seen))
