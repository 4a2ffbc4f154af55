"""Linear classification of frozen features: multinomial logistic regression on the device."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcurate.checks import InputError
from jaxcurate.evaluation.probes.base import check_features, moments
from jaxcurate.stateless_random import priorities

L2_GRID = tuple(10.0**e for e in np.arange(0, -6.5, -0.5))
"""Penalties to choose from, the strongest first, relative to the mean loss of a row."""
HELD_OUT = 0.2
"""Fraction of each label's training rows that the penalty is chosen on."""
MAX_ITER = 200
"""Largest number of iterations of a fit."""
_TOLERANCE = 1e-5
"""Largest entry of the gradient of the mean loss at which the last fit ends."""
_SWEEP_TOLERANCE = 1e-4
"""Largest entry of the gradient at which fits of the sweep end, as by default in scikit-learn."""
_STALLED = 1e-7
"""Relative decrease of the loss below which float32 cannot tell whether it falls."""
_PATIENCE = 2
"""Number of weaker penalties in a row without a lower held-out loss that end the sweep."""
_BLOCK_ELEMENTS = 2**18
"""Number of logits that are computed at a time: 1 MiB of float32, which a core's cache holds."""
_STREAM = 8
"""Stream of the random numbers of the held-out rows."""


class Weights(NamedTuple):
    """Weights of a linear classifier."""

    matrix: jax.Array
    """Weights of the standardized features, float32 ``[d, c]``."""
    bias: jax.Array
    """Intercepts, float32 ``[c]``."""


class Rows(NamedTuple):
    """Training rows in blocks, on the device."""

    x: jax.Array
    """Standardized features, float32 ``[blocks, rows, d]``."""
    y: jax.Array
    """Number of the class of each row, int32 ``[blocks, rows]``."""


def linear(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    *,
    l2: float | None = None,
) -> np.ndarray:
    """Classifies rows by multinomial logistic regression, in float32 on the device.

    Features are standardized by the training rows. Minimizes, over all rows at once and by L-BFGS,
    the mean cross-entropy plus ``l2 / 2`` times the sum of the squared weights; intercepts are not
    penalized. Without ``l2``, the penalty is the one of :data:`L2_GRID` with the least
    cross-entropy on a fifth of the training rows, which is drawn by the labels and not fitted to.
    The sweep goes from the strongest penalty to weaker ones, each fit starts from the weights
    before, and it ends once the loss has not fallen for two penalties; then all rows are fitted.
    If no label has two rows, there is nothing to choose by, and the penalty is 0.01.

    Args:
        train_x: float ``[n, d]`` features.
        train_y: ``[n]`` labels, numbers or names.
        test_x: float ``[m, d]`` features.
        l2: penalty on the squared weights; by default chosen on the training rows. It is
            ``1 / (n C)`` for the ``C`` of scikit-learn.

    Returns:
        ``[m]`` labels.

    Raises:
        InputError: shapes do not fit, features are not finite, or ``l2`` is not positive.

    References:
        Liu, Nocedal: On the limited memory BFGS method for large scale optimization (1989).
        Kornblith, Shlens, Le: Do better ImageNet models transfer better? (2019),
        https://arxiv.org/abs/1805.08974, appendix A.5, for the sweep with warm starts.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation import linear
        >>> train_x = np.array([[0.0, 5.0], [0.2, 3.0], [1.0, 4.0], [0.8, 5.0]])
        >>> train_y = np.array(["cat", "cat", "dog", "dog"])
        >>> linear(train_x, train_y, np.array([[0.1, 4.0], [0.9, 4.0]]), l2=0.1).tolist()
        ['cat', 'dog']
    """
    check_features(train_x, train_y, test_x)
    if l2 is not None and not l2 > 0:
        raise InputError(f"l2={l2} must be positive")
    known, classes = np.unique(train_y, return_inverse=True)
    mean, spread = moments(train_x)
    rows = _placed(((train_x - mean) / spread).astype(np.float32), classes, len(known))
    start = Weights(jnp.zeros((train_x.shape[1], len(known))), jnp.zeros(len(known)))
    everything = _blocked(np.ones(len(classes), np.float32), rows)
    if l2 is None:
        held = held_out(classes)
        l2, start = _swept(rows, held, start) if held.any() else (1e-2, start)
    weights = _fit(start, rows, everything, jnp.float32(l2), jnp.float32(_TOLERANCE))
    # In float64 on the host: the product is small, and no rounding decides between two classes.
    matrix, bias = (np.asarray(part, np.float64) for part in weights)
    logits = (test_x - mean) / spread @ matrix + bias
    return known[np.argmax(logits, axis=1)]


def held_out(classes: np.ndarray) -> np.ndarray:
    """Returns which rows the penalty is chosen on: a fifth of each class, bool ``[n]``.

    A class of two to four rows gives one, and a class of one row gives none.

    Args:
        classes: number of the class of each row, ``[n]``.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation.probes.linear import held_out
        >>> classes = np.array([0] * 10 + [1] * 2 + [2])
        >>> np.bincount(classes[held_out(classes)], minlength=3).tolist()
        [2, 1, 0]
    """
    order = np.lexsort((priorities(len(classes), 0, _STREAM), classes))
    counts = np.bincount(classes)
    n_held = np.where(counts > 1, np.maximum(1, np.round(HELD_OUT * counts)), 0)
    ordered = classes[order]
    place = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    held = np.zeros(len(classes), bool)
    held[order] = place < n_held[ordered]
    return held


def _swept(rows: Rows, held: np.ndarray, start: Weights) -> tuple[float, Weights]:
    """Returns the penalty with the least loss on held-out rows, and the weights fitted with it."""
    fitted = _blocked((~held).astype(np.float32), rows)
    judged = _blocked(held.astype(np.float32), rows)
    best = np.inf, L2_GRID[0], start
    weights, n_worse = start, 0
    for l2 in L2_GRID:
        weights = _fit(weights, rows, fitted, jnp.float32(l2), jnp.float32(_SWEEP_TOLERANCE))
        loss = float(_loss_alone(weights, rows, judged, jnp.float32(0)))
        n_worse = 0 if loss < best[0] else n_worse + 1
        if n_worse == _PATIENCE:
            break
        best = min(best, (loss, l2, weights), key=lambda fit: fit[0])
    return best[1], best[2]


def _placed(x: np.ndarray, classes: np.ndarray, n_classes: int) -> Rows:
    """Returns the rows in blocks on the device; rows that fill up the last block are zeros."""
    size = int(np.clip(_BLOCK_ELEMENTS // n_classes, 128, len(x)))
    n_blocks = -(-len(x) // size)
    more = n_blocks * size - len(x)
    x = np.pad(x, ((0, more), (0, 0))).reshape(n_blocks, size, -1)
    y = np.pad(classes.astype(np.int32), (0, more)).reshape(n_blocks, size)
    return Rows(jnp.asarray(x), jnp.asarray(y))


def _blocked(weight: np.ndarray, rows: Rows) -> jax.Array:
    """Returns the weights of rows in the blocks of the rows, over their sum."""
    padded = np.pad(weight / weight.sum(), (0, rows.y.size - len(weight)))
    return jnp.asarray(padded.reshape(rows.y.shape))


@jax.custom_vjp
def _loss(weights: Weights, rows: Rows, row_weight: jax.Array, l2: jax.Array) -> jax.Array:
    """Returns the weighted sum of the cross-entropies of the rows, with the penalty."""
    return _loss_and_gradient(weights, rows, row_weight, l2)[0]


def _loss_and_gradient(
    weights: Weights, rows: Rows, row_weight: jax.Array, l2: jax.Array
) -> tuple[jax.Array, Weights]:
    """Returns the loss and its gradient, block by block, so that logits of few rows are held."""
    dot = partial(jnp.dot, precision="highest")

    def step(
        total: tuple[jax.Array, Weights], block: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, Weights], None]:
        x, y, weight = block
        log_p = jax.nn.log_softmax(dot(x, weights.matrix) + weights.bias[None, :], axis=1)
        target = jax.nn.one_hot(y, len(weights.bias))
        residual = weight[:, None] * (jnp.exp(log_p) - target)
        loss = -jnp.sum(weight * jnp.sum(target * log_p, axis=1))
        gradient = Weights(dot(x.T, residual), jnp.sum(residual, axis=0))
        return jax.tree.map(jnp.add, total, (loss, gradient)), None

    penalty = 0.5 * l2 * jnp.sum(weights.matrix**2)
    first = penalty, Weights(l2 * weights.matrix, jnp.zeros_like(weights.bias))
    return jax.lax.scan(step, first, (*rows, row_weight))[0]


def _backward(gradient: Weights, cotangent: jax.Array) -> tuple[Weights, None, None, None]:
    return jax.tree.map(lambda part: cotangent * part, gradient), None, None, None


_loss.defvjp(_loss_and_gradient, _backward)
_loss_alone = jax.jit(_loss)


@jax.jit
def _fit(
    start: Weights, rows: Rows, row_weight: jax.Array, l2: jax.Array, tolerance: jax.Array
) -> Weights:
    """Returns the weights that minimize the loss, from ``start``."""
    solver = optax.lbfgs()
    loss: Callable[[Weights], jax.Array] = lambda weights: _loss(weights, rows, row_weight, l2)
    value_and_grad = optax.value_and_grad_from_state(loss)

    def advances(carry: tuple) -> jax.Array:
        _, _, n, falls, gradient = carry
        largest = jnp.maximum(jnp.max(jnp.abs(gradient.matrix)), jnp.max(jnp.abs(gradient.bias)))
        return (n < MAX_ITER) & falls & (largest > tolerance)

    def step(carry: tuple) -> tuple:
        weights, state, n, _, _ = carry
        value, gradient = value_and_grad(weights, state=state)
        updates, state = solver.update(
            gradient, state, weights, value=value, grad=gradient, value_fn=loss
        )
        weights = optax.apply_updates(weights, updates)
        reached = optax.tree.get(state, "value")
        falls = value - reached > _STALLED * jnp.abs(value)
        return weights, state, n + 1, falls, optax.tree.get(state, "grad")

    value, gradient = _loss_and_gradient(start, rows, row_weight, l2)
    state = optax.tree.set(solver.init(start), value=value, grad=gradient)
    return jax.lax.while_loop(advances, step, (start, state, 0, jnp.bool(True), gradient))[0]
