"""Classification of frozen features by their nearest neighbors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxcurate.checks import InputError, check_whole
from jaxcurate.evaluation.probes.base import check_features, in_blocks, unit_rows

_N_QUERIES = 512
"""Number of test rows that are classified at a time."""
_N_ROWS = 2**16
"""Number of training rows that are compared at a time: with the queries, 128 MiB of cosines."""


def knn(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> np.ndarray:
    """Classifies rows by a weighted vote of their nearest neighbors by cosine similarity.

    The weight of a neighbor is ``exp(cosine / temperature)``. Cosines are computed in blocks of
    test rows and training rows, in float32 on the device.

    Args:
        train_x: float ``[n, d]`` features.
        train_y: ``[n]`` labels, numbers or names.
        test_x: float ``[m, d]`` features.
        k: number of neighbors, at most ``n`` of which are used.
        temperature: temperature of the weights.

    Returns:
        ``[m]`` labels; of labels with equal votes, the smallest.

    Raises:
        InputError: shapes do not fit, features are not finite, or ``k`` or ``temperature`` is not
            positive.

    References:
        Wu, Xiong, Yu, Lin: Unsupervised feature learning via non-parametric instance
        discrimination (2018), https://arxiv.org/abs/1805.01978, section 3.4.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation import knn
        >>> train_x = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> train_y = np.array(["cat", "cat", "dog", "dog"])
        >>> knn(train_x, train_y, np.array([[2.0, 0.5], [0.2, 3.0]]), k=3).tolist()
        ['cat', 'dog']
    """
    check_features(train_x, train_y, test_x)
    check_whole("k", k, 1)
    if not temperature > 0:
        raise InputError(f"temperature={temperature} must be positive")
    known, classes = np.unique(train_y, return_inverse=True)
    train, test = unit_rows(train_x), unit_rows(test_x)
    k = min(k, len(train))
    classes = jnp.asarray(classes.astype(np.int32))
    options = {"n_classes": len(known), "temperature": temperature}
    if len(train) <= _N_ROWS:
        vote = partial(_vote_of_all, k=k, **options)
        winners = in_blocks(vote, test, _N_QUERIES, jnp.asarray(train), classes)
    else:
        blocks, firsts = _blocks(train)
        vote = partial(_vote_of_blocks, k=k, n_rows=len(train), **options)
        winners = in_blocks(vote, test, _N_QUERIES, blocks, firsts, classes)
    return known[np.concatenate([np.zeros(0, np.int32), *winners])]


def _blocks(train: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Returns rows in blocks ``[b, r, d]``, the last one filled up, and the first row of each."""
    n_blocks = -(-len(train) // _N_ROWS)
    size = -(-len(train) // n_blocks)
    padded = np.pad(train, ((0, n_blocks * size - len(train)), (0, 0)))
    firsts = np.arange(0, n_blocks * size, size, dtype=np.int32)
    return jnp.asarray(padded.reshape(n_blocks, size, -1)), jnp.asarray(firsts)


@partial(jax.jit, static_argnames=("k", "n_classes", "temperature"))
def _vote_of_all(
    train: jax.Array,
    classes: jax.Array,
    test: jax.Array,
    k: int,
    n_classes: int,
    temperature: float,
) -> jax.Array:
    """Returns the winning class of each row of ``test`` ``[m, d]``; all rows have length 1."""
    cosine, nearest = _largest(jnp.dot(test, train.T, precision="highest"), k)
    return _winner(cosine, classes[nearest], n_classes, temperature)


@partial(jax.jit, static_argnames=("k", "n_rows", "n_classes", "temperature"))
def _vote_of_blocks(
    blocks: jax.Array,
    firsts: jax.Array,
    classes: jax.Array,
    test: jax.Array,
    k: int,
    n_rows: int,
    n_classes: int,
    temperature: float,
) -> jax.Array:
    """Returns the winning classes like :func:`_vote_of_all`, with memory for a block of cosines."""

    def step(
        best: tuple[jax.Array, jax.Array], block: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        rows, first = block
        cosine = jnp.dot(test, rows.T, precision="highest")
        numbers = first + jnp.arange(len(rows), dtype=jnp.int32)
        cosine = jnp.where(numbers[None, :] < n_rows, cosine, -jnp.inf)
        values, columns = _largest(cosine, min(k, len(rows)))
        # Earlier rows stand first: of equal cosines top_k takes the first.
        values = jnp.concatenate([best[0], values], axis=1)
        columns = jnp.concatenate([best[1], first + columns], axis=1)
        values, places = jax.lax.top_k(values, k)
        return (values, jnp.take_along_axis(columns, places, axis=1)), None

    start = jnp.full((len(test), k), -jnp.inf), jnp.zeros((len(test), k), jnp.int32)
    (cosine, nearest), _ = jax.lax.scan(step, start, (blocks, firsts))
    return _winner(cosine, classes[nearest], n_classes, temperature)


def _winner(cosine: jax.Array, classes: jax.Array, n_classes: int, temperature: float) -> jax.Array:
    """Returns the class with most votes of each row, from the neighbors ``[m, k]``."""
    # The nearest neighbor weighs 1, so that no temperature overflows.
    weight = jnp.exp((cosine - cosine[:, :1]) / temperature)
    one_hot = jax.nn.one_hot(classes, n_classes)
    return jnp.argmax(jnp.sum(weight[:, :, None] * one_hot, axis=1), axis=1)


def _largest(x: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Returns the ``k`` largest values in each row of ``[m, n]``, in descending order, and their
    columns.

    The columns are split into groups. The largest values lie in the ``k`` groups with the largest
    maxima, and only these groups are sorted, which is exact and eight times faster on a CPU than
    sorting all columns.
    """
    m, n = x.shape
    size = max(1, round((n / k) ** 0.5))
    n_groups = -(-n // size)
    if n_groups <= k:
        return jax.lax.top_k(x, k)
    x = jnp.pad(x, ((0, 0), (0, size * n_groups - n)), constant_values=-jnp.inf)
    x = x.reshape(m, size, n_groups)
    _, groups = jax.lax.top_k(jnp.max(x, axis=1), k)
    candidates = jnp.take_along_axis(x, groups[:, None, :], axis=2)
    columns = groups[:, None, :] + n_groups * jnp.arange(size)[None, :, None]
    values, places = jax.lax.top_k(candidates.reshape(m, -1), k)
    return values, jnp.take_along_axis(columns.reshape(m, -1), places, axis=1)
