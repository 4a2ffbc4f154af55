"""Few-shot classification of frozen features by the nearest mean of a class."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcurate.checks import check_whole
from jaxcurate.evaluation.probes.base import ProbeTask, check_features, in_blocks, unit_rows
from jaxcurate.stateless_random import priorities

N_DRAWS = 10
"""Number of draws of labeled rows whose accuracies are averaged."""
_STREAM = 7
"""Stream of the random numbers, apart from other draws with small seeds."""
_N_QUERIES = 1024
"""Number of test rows that are classified at a time."""


def few_shot(
    train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, *, n_shots: int, draw: int = 0
) -> np.ndarray:
    """Classifies rows by the nearest class mean of a few labeled rows, by cosine similarity.

    The means are those of the rows scaled to length 1. The rows are drawn from the labels and
    their order alone, so that a draw takes the same items for every encoder; those of a draw with
    fewer shots are among those with more.

    Args:
        train_x: float ``[n, d]`` features.
        train_y: ``[n]`` labels, numbers or names.
        test_x: float ``[m, d]`` features.
        n_shots: number of labeled rows of each class; all rows of a class that has fewer.
        draw: number of the draw.

    Returns:
        ``[m]`` labels; of equally near means, that of the smallest label.

    Raises:
        InputError: shapes do not fit, features are not finite, or ``n_shots`` is not positive.

    References:
        Snell, Swersky, Zemel: Prototypical networks for few-shot learning (2017),
        https://arxiv.org/abs/1703.05175, section 2.2.
        Wang, Chao, Weinberger, van der Maaten: SimpleShot (2019),
        https://arxiv.org/abs/1911.04623, for features that are frozen and scaled.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation import few_shot
        >>> train_x = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> train_y = np.array(["cat", "cat", "dog", "dog"])
        >>> few_shot(train_x, train_y, np.array([[2.0, 0.5], [0.2, 3.0]]), n_shots=1).tolist()
        ['cat', 'dog']
    """
    check_features(train_x, train_y, test_x)
    check_whole("n_shots", n_shots, 1)
    check_whole("draw", draw, 0)
    known, winners = _winners(train_x, train_y, test_x, n_shots, [draw])
    return known[winners[:, 0]]


def few_shot_scores(task: ProbeTask, *, n_shots: int) -> np.ndarray:
    """Returns the fraction of the draws that classify each test row rightly, float64 ``[m]``.

    Args:
        task: features and labels.
        n_shots: number of labeled rows of each class.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation.probes.base import ProbeTask
        >>> from jaxcurate.evaluation.probes.few_shot import few_shot_scores
        >>> x, y = np.eye(3), np.arange(3)
        >>> few_shot_scores(ProbeTask(x, y, x, y), n_shots=5).tolist()
        [1.0, 1.0, 1.0]
    """
    check_features(task.train_x, task.train_y, task.test_x)
    known, winners = _winners(task.train_x, task.train_y, task.test_x, n_shots, range(N_DRAWS))
    return np.mean(known[winners] == task.test_y[:, None], axis=1)


def _winners(
    train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, n_shots: int, draws: list | range
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels ``[c]`` and the winning class of each test row, ``[m, draws]``."""
    known, classes = np.unique(train_y, return_inverse=True)
    train = unit_rows(train_x)
    means = []
    for draw in draws:
        rows = drawn(classes, n_shots, draw)  # sorted by class
        taken = classes[rows]
        sums = np.add.reduceat(train[rows], np.searchsorted(taken, np.arange(len(known))), axis=0)
        # Only the direction of a mean matters.
        means.append(unit_rows(sums))
    constants = jnp.asarray(np.stack(means))
    blocks = in_blocks(_nearest, unit_rows(test_x), _N_QUERIES, constants)
    return known, np.concatenate([np.zeros((0, len(means)), np.int32), *blocks])


def drawn(classes: np.ndarray, n_shots: int, draw: int) -> np.ndarray:
    """Returns the rows of a draw, sorted by class: at most ``n_shots`` of each.

    Args:
        classes: number of the class of each row, ``[n]``.
        n_shots: number of rows of each class.
        draw: number of the draw.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation.probes.few_shot import drawn
        >>> classes = np.array([1, 0, 1, 1, 0])
        >>> classes[drawn(classes, 2, draw=0)].tolist()
        [0, 0, 1, 1]
    """
    order = np.lexsort((priorities(len(classes), draw, _STREAM), classes))
    ordered = classes[order]
    place = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return order[place < n_shots]


@jax.jit
def _nearest(means: jax.Array, test: jax.Array) -> jax.Array:
    """Returns the nearest of the means ``[draws, c, d]`` to each row, int32 ``[m, draws]``."""

    def of_draw(means_of_draw: jax.Array) -> jax.Array:
        return jnp.argmax(jnp.dot(test, means_of_draw.T, precision="highest"), axis=1)

    return jax.lax.map(of_draw, means).T
