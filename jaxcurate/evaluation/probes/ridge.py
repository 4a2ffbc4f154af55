"""Ridge classification of frozen features, in float64 on the host."""

import numpy as np

from jaxcurate.checks import InputError
from jaxcurate.evaluation.probes.base import check_features, moments

L2_GRID = tuple(10.0**e for e in np.arange(-4, 3.5, 0.5))
"""Ridge penalties to choose from, relative to the mean square of a standardized feature."""


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
        InputError: shapes do not fit, features are not finite, or ``l2`` is not positive.

    References:
        Golub, Heath, Wahba: Generalized cross-validation as a method for choosing a good ridge
        parameter (1979), for the leave-one-out residuals.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation import ridge
        >>> train_x = np.array([[0.0, 5.0], [0.2, 3.0], [1.0, 4.0], [0.8, 5.0]])
        >>> train_y = np.array(["cat", "cat", "dog", "dog"])
        >>> ridge(train_x, train_y, np.array([[0.1, 4.0], [0.9, 4.0]])).tolist()
        ['cat', 'dog']
    """
    check_features(train_x, train_y, test_x)
    if l2 is not None and not l2 > 0:
        raise InputError(f"l2={l2} must be positive")
    known, classes = np.unique(train_y, return_inverse=True)
    target = np.eye(len(known))[classes]
    x = np.asarray(train_x, np.float64)
    mean, spread = moments(x)
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
