"""RankMe: the number of dimensions that features really use, which falls when they collapse."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcurate.checks import InputError, as_real, faults_of, refuse


def rankme(features: np.ndarray) -> float:
    """Returns the effective rank of features: the exponential of the entropy of singular values.

    The singular values are divided by their sum, and their entropy is taken in nats. The result is
    1 for rows that are multiples of the same vector, and ``min(n, d)`` for singular values that are
    all equal. Features are not centered. It is computed in float64 on the host.

    Args:
        features: real numbers ``[n, d]``, such as the features of some thousand held-out images.

    Returns:
        Number from 1 to ``min(n, d)``; 0 for features that are all zeros.

    Raises:
        InputError: ``features`` is not ``[n, d]`` with at least one row and one column, or has
            values that are not finite.

    References:
        Garrido, Balestriero, Najman, LeCun: RankMe: assessing the downstream performance of
        pretrained self-supervised representations by their rank (2023),
        https://arxiv.org/abs/2210.02885, section 3. The small number that the paper adds to each
        part is left out, because terms of zero are zero.
        Roy, Vetterli: The effective rank: a measure of effective dimensionality (2007).

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.training.rankme import rankme
        >>> rankme(np.eye(5)), rankme(np.ones((5, 5)))
        (5.0, 1.0)
    """
    x = as_real(features, "features")
    if x.ndim != 2 or not x.size:
        raise InputError(f"features of shape {x.shape} must be [n, d] with n > 0 and d > 0")
    refuse([faults_of(x, range(len(x)), beyond=False)], "features")
    x = x.astype(np.float64)
    largest = np.abs(x).max()
    if largest == 0:
        return 0.0
    values = np.linalg.svd(x / largest, compute_uv=False)
    part = values / values.sum()
    part = part[part > 0]
    # A rank is a few digits: beyond the twelfth, the rounding of singular values shows.
    return round(float(np.exp(-np.sum(part * np.log(part)))), 12)


def rankme_on_device(features: jax.Array) -> jax.Array:
    """Returns :func:`rankme` of float ``[n, d]`` as a float32 scalar, traced by jax.

    The singular values are float32: rounding leaves small values where there should be zeros, which
    adds up to about a hundredth to the rank of collapsed features.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jaxcurate.training.rankme import rankme_on_device
        >>> print(rankme_on_device(jnp.eye(4)).round(3))
        4.0
    """
    x = features.astype(jnp.float32)
    largest = jnp.max(jnp.abs(x))
    values = jnp.linalg.svdvals(x / jnp.where(largest > 0, largest, 1))
    total = jnp.sum(values)
    part = values / jnp.where(total > 0, total, 1)
    entropy = -jnp.sum(jax.scipy.special.xlogy(part, part))
    return jnp.where(total > 0, jnp.exp(entropy), 0)
