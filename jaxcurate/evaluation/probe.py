"""Probes of frozen features: nearest neighbors, ridge classification, macro accuracy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxcurate.checks import InputError

L2_GRID = tuple(10.0**e for e in np.arange(-4, 3.5, 0.5))
"""Ridge penalties to choose from, relative to the mean square of a standardized feature."""

_N_QUERIES = 512
"""Number of test rows that are classified at a time."""


def knn(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> np.ndarray:
    """Classifies rows by a weighted vote of their nearest neighbors by cosine similarity.

    The weight of a neighbor is ``exp(cosine / temperature)``.

    Args:
        train_x: float ``[n, d]`` features.
        train_y: ``[n]`` labels, numbers or names.
        test_x: float ``[m, d]`` features.
        k: number of neighbors, at most ``n`` of which are used.
        temperature: temperature of the weights.

    Returns:
        ``[m]`` labels; of labels with equal votes, the smallest.

    Raises:
        ValueError: shapes do not fit, features are not finite, or ``k`` or ``temperature`` is not
            positive.

    References:
        Wu, Xiong, Yu, Lin: Unsupervised feature learning via non-parametric instance
        discrimination (2018), https://arxiv.org/abs/1805.01978, section 3.4.

    Examples:
        >>> import numpy as np
        >>> train_x = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> train_y = np.array(["cat", "cat", "dog", "dog"])
        >>> knn(train_x, train_y, np.array([[2.0, 0.5], [0.2, 3.0]]), k=3).tolist()
        ['cat', 'dog']
    """
    _check(train_x, train_y, test_x)
    if k < 1:
        raise InputError(f"k={k} must be at least 1")
    if not temperature > 0:
        raise InputError(f"temperature={temperature} must be positive")
    known, classes = np.unique(train_y, return_inverse=True)
    train, test = _unit(train_x), _unit(test_x)
    votes = partial(_vote, k=min(k, len(train)), n_classes=len(known), temperature=temperature)
    winners = []
    for first in range(0, len(test), _N_QUERIES):
        queries = test[first : first + _N_QUERIES]
        padded = np.pad(queries, ((0, _N_QUERIES - len(queries)), (0, 0)))
        winners.append(np.asarray(votes(train, classes, padded))[: len(queries)])
    return known[np.concatenate([np.zeros(0, np.int32), *winners])]


@partial(jax.jit, static_argnames=("k", "n_classes", "temperature"))
def _vote(
    train: jax.Array,
    classes: jax.Array,
    test: jax.Array,
    k: int,
    n_classes: int,
    temperature: float,
) -> jax.Array:
    """Returns the winning class of each row of ``test`` ``[m, d]``; all rows have length 1."""
    cosine, nearest = _largest(jnp.dot(test, train.T, precision="highest"), k)
    # The nearest neighbor weighs 1, so that no temperature overflows.
    weight = jnp.exp((cosine - cosine[:, :1]) / temperature)
    one_hot = jax.nn.one_hot(classes[nearest], n_classes)
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


def ridge(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    *,
    l2: float | None = None,
) -> np.ndarray:
    """Classifies rows by ridge regression onto one-hot labels, in float64 on the host.

    Features are standardized by the training rows, and the intercept is not penalized. Without
    ``l2``, the penalty is chosen from :data:`L2_GRID` by the squared error of leave-one-out
    cross-validation, which one eigendecomposition yields for the whole grid.

    Args:
        train_x: float ``[n, d]`` features.
        train_y: ``[n]`` labels, numbers or names.
        test_x: float ``[m, d]`` features.
        l2: penalty on the squared weights, in units of ``n``; by default chosen on the training
            rows.

    Returns:
        ``[m]`` labels.

    Raises:
        ValueError: shapes do not fit, features are not finite, or ``l2`` is not positive.

    References:
        Golub, Heath, Wahba: Generalized cross-validation as a method for choosing a good ridge
        parameter (1979), for the leave-one-out residuals.

    Examples:
        >>> import numpy as np
        >>> train_x = np.array([[0.0, 5.0], [0.2, 3.0], [1.0, 4.0], [0.8, 5.0]])
        >>> train_y = np.array(["cat", "cat", "dog", "dog"])
        >>> ridge(train_x, train_y, np.array([[0.1, 4.0], [0.9, 4.0]])).tolist()
        ['cat', 'dog']
    """
    _check(train_x, train_y, test_x)
    if l2 is not None and not l2 > 0:
        raise InputError(f"l2={l2} must be positive")
    known, classes = np.unique(train_y, return_inverse=True)
    target = np.eye(len(known))[classes]
    x = np.asarray(train_x, np.float64)
    mean, spread = x.mean(axis=0), x.std(axis=0)
    # A feature that is constant up to rounding is ignored.
    spread = np.where(spread > 1e-12 * np.abs(mean) + 1e-300, spread, np.inf)
    x = (x - mean) / spread
    n = len(x)
    values, basis = np.linalg.eigh(x.T @ x / n)
    rotated = x @ basis
    moment = rotated.T @ (target - target.mean(axis=0)) / n

    def left_out_error(penalty: float) -> float:
        shrink = 1 / (np.maximum(values, 0) + penalty)
        residual = target - target.mean(axis=0) - rotated @ (shrink[:, None] * moment)
        leverage = 1 / n + np.square(rotated) @ shrink / n
        return float(np.sum(np.square(residual / (1 - leverage)[:, None])))

    penalty = min(L2_GRID, key=left_out_error) if l2 is None else l2
    weights = basis @ (moment / (np.maximum(values, 0) + penalty)[:, None])
    test = (np.asarray(test_x, np.float64) - mean) / spread
    return known[np.argmax(test @ weights + target.mean(axis=0), axis=1)]


def domain_accuracies(
    predicted: np.ndarray, labels: np.ndarray, domains: np.ndarray
) -> dict[int | str, float]:
    """Returns the macro accuracy of each domain: the mean of the accuracies on its classes.

    Args:
        predicted: ``[m]`` labels.
        labels: ``[m]`` true labels, of the same kind.
        domains: ``[m]`` numbers or names.

    Returns:
        Domain to accuracy, in sorted order of the domains.

    Raises:
        InputError: lengths differ, or there are no rows.

    Examples:
        >>> import numpy as np
        >>> labels = np.array(["cat", "cat", "dog", "dog"])
        >>> predicted = np.array(["cat", "dog", "dog", "dog"])
        >>> domains = np.array(["photo", "photo", "photo", "sketch"])
        >>> domain_accuracies(predicted, labels, domains)
        {'photo': 0.75, 'sketch': 1.0}
    """
    predicted, labels, domains = (np.asarray(a) for a in (predicted, labels, domains))
    if not len(predicted) == len(labels) == len(domains):
        raise InputError(
            f"{len(predicted)} predicted, {len(labels)} labels and {len(domains)} domains: "
            "they must be as many"
        )
    if not len(labels):
        raise InputError("labels is empty: there is no accuracy to compute")
    correct = predicted == labels
    accuracies = {}
    for domain in np.unique(domains):
        inside = domains == domain
        by_class = [
            correct[inside & (labels == label)].mean() for label in np.unique(labels[inside])
        ]
        accuracies[domain.item()] = float(np.mean(by_class))
    return accuracies


def macro_accuracy(predicted: np.ndarray, labels: np.ndarray, domains: np.ndarray) -> float:
    """Returns the mean over domains of :func:`domain_accuracies`.

    Every domain has the same weight, and within it every class.

    Args:
        predicted: ``[m]`` labels.
        labels: ``[m]`` true labels, of the same kind.
        domains: ``[m]`` numbers or names.

    Raises:
        InputError: lengths differ, or there are no rows.

    Examples:
        >>> import numpy as np
        >>> labels = np.array(["cat", "cat", "cat", "dog"])
        >>> macro_accuracy(np.array(["cat"] * 4), labels, np.zeros(4))
        0.5
    """
    return float(np.mean(list(domain_accuracies(predicted, labels, domains).values())))


def _unit(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _check(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray) -> None:
    if train_x.ndim != 2 or not len(train_x):
        raise InputError(f"train_x of shape {train_x.shape} must be [n, d] with n > 0")
    if train_y.shape != (len(train_x),):
        raise InputError(f"train_y of shape {train_y.shape} must be [{len(train_x)}]")
    if test_x.ndim != 2 or test_x.shape[1] != train_x.shape[1]:
        raise InputError(f"test_x of shape {test_x.shape} must be [m, {train_x.shape[1]}]")
    for name, x in (("train_x", train_x), ("test_x", test_x)):
        if not np.isfinite(x).all():
            raise InputError(f"{name} has values that are not finite")
