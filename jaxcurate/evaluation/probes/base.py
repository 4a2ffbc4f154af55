"""Interface of probes of frozen features, and the checks and scalings that they share."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcurate.checks import InputError

PROBES: dict[str, "Probe"] = {}
"""Probes by name; filled in `jaxcurate.evaluation.probes`."""


class ProbeTask(NamedTuple):
    """Features that a probe is fitted to and scored on, and their labels."""

    train_x: np.ndarray
    """Features of the probe set, float ``[n, d]``."""
    train_y: np.ndarray
    """Labels of the probe set, numbers or names, ``[n]``."""
    test_x: np.ndarray
    """Features of the test set, float ``[m, d]``."""
    test_y: np.ndarray
    """Labels of the test set, of the same kind, ``[m]``."""


class Probe(NamedTuple):
    """Measure of frozen features.

    Examples:
        Adds a probe that scores every row by the length of its features:

        >>> import numpy as np
        >>> from jaxcurate.evaluation.probes.base import Probe
        >>> Probe(lambda task: np.linalg.norm(task.test_x, axis=1), "length").title
        'length'
    """

    score: Callable[[ProbeTask], np.ndarray | float]
    """Function that returns a score from 0 to 1 for each test row, ``[m]``, or one number for the
    whole test set."""
    title: str
    """Name in the report."""
    needs_labels: bool = True
    """False for a measure of the features alone."""


def classifier(
    predict: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
) -> Callable[[ProbeTask], np.ndarray]:
    """Returns the function that scores each test row 1 if its label is predicted, and 0 otherwise.

    Args:
        predict: function of ``train_x``, ``train_y`` and ``test_x`` that returns labels ``[m]``.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation.probes.base import ProbeTask, classifier
        >>> first = classifier(lambda train_x, train_y, test_x: train_y[np.zeros(len(test_x), int)])
        >>> x = np.ones((2, 1))
        >>> first(ProbeTask(x, np.array(["cat", "dog"]), x, np.array(["cat", "dog"]))).tolist()
        [True, False]
    """
    return lambda task: predict(task.train_x, task.train_y, task.test_x) == task.test_y


def check_features(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray) -> None:
    """Refuses features and labels of shapes that do not fit, and features that are not finite.

    Args:
        train_x: features of the probe set, float ``[n, d]``.
        train_y: labels of the probe set, ``[n]``.
        test_x: features of the test set, float ``[m, d]``.

    Raises:
        InputError: the message names the argument.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation.probes.base import check_features
        >>> check_features(np.ones((2, 3)), np.array([0, 1]), np.ones((5, 4)))
        Traceback (most recent call last):
        jaxcurate.checks.InputError: test_x of shape (5, 4) must be [m, 3]
    """
    if train_x.ndim != 2 or not len(train_x):
        raise InputError(f"train_x of shape {train_x.shape} must be [n, d] with n > 0")
    if train_y.shape != (len(train_x),):
        raise InputError(f"train_y of shape {train_y.shape} must be [{len(train_x)}]")
    if test_x.ndim != 2 or test_x.shape[1] != train_x.shape[1]:
        raise InputError(f"test_x of shape {test_x.shape} must be [m, {train_x.shape[1]}]")
    for name, x in (("train_x", train_x), ("test_x", test_x)):
        if not np.isfinite(x).all():
            raise InputError(f"{name} has values that are not finite")


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Returns rows divided by their lengths, float32; a row of zeros stays.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation.probes.base import unit_rows
        >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).round(1).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    x = np.asarray(x, np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean and the standard deviation of each feature, float64 ``[d]``.

    The deviation of a feature that is constant up to rounding is infinite, so that dividing by it
    leaves the feature out.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation.probes.base import moments
        >>> mean, spread = moments(np.array([[0.0, 7.0], [2.0, 7.0]]))
        >>> mean.tolist(), spread.tolist()
        ([1.0, 7.0], [1.0, inf])
    """
    x = np.asarray(x, np.float64)
    mean, spread = x.mean(axis=0), x.std(axis=0)
    return mean, np.where(spread > 1e-12 * np.abs(mean) + 1e-300, spread, np.inf)


def in_blocks(
    kernel: Callable[..., jax.Array], x: np.ndarray, size: int, *constants: jax.Array
) -> list[np.ndarray]:
    """Returns the results of a function of blocks of rows, each ``[rows of the block, ...]``.

    The last block is filled up with zeros, so that the function is compiled for one shape.

    Args:
        kernel: function of the constants and a block ``[size, d]`` that returns ``[size, ...]``.
        x: rows ``[m, d]``.
        size: number of rows of a block.
        constants: arrays that are placed on the device once.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation.probes.base import in_blocks
        >>> blocks = in_blocks(lambda block: block.sum(axis=1), np.ones((5, 2)), 2)
        >>> [block.tolist() for block in blocks]
        [[2.0, 2.0], [2.0, 2.0], [2.0]]
    """
    results = []
    for first in range(0, len(x), size):
        block = x[first : first + size]
        padded = np.pad(block, ((0, size - len(block)), (0, 0)))
        results.append(np.asarray(kernel(*constants, jnp.asarray(padded)))[: len(block)])
    return results
