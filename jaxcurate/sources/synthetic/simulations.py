"""Published simulations of skewed points in the plane, and a measure of even coverage."""

import numpy as np

SIDES = (-3.0, 3.0)
"""Ends of the square along both axes."""
RING_SIZES = (20000, 200, 1000, 500, 8000)
"""Number of points of each ring."""
RING_CENTROIDS = ((-2.2, 1.0), (0.0, 1.0), (2.2, 1.0), (-1.2, 0.2), (1.2, 0.2))
"""Centroid of each ring."""


def skewed_square(seed: int) -> np.ndarray:
    """Returns 9000 points: three Gaussians of 7000, 1000 and 500, and 500 uniform points.

    Args:
        seed: seed of the random generator.

    Returns:
        float64 ``[9000, 2]``.

    References:
        Vo et al. 2024, section 4.1. https://arxiv.org/abs/2405.15613

    Examples:
        >>> skewed_square(0).shape
        (9000, 2)
    """
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [
            rng.normal([-1, -1], 0.5, (7000, 2)),
            rng.normal([1, -1], 0.5, (1000, 2)),
            rng.normal([0, 1], 0.5, (500, 2)),
            rng.uniform(*SIDES, (500, 2)),
        ]
    )


def rings(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns five rings with very different numbers of points.

    Args:
        seed: seed of the random generator.

    Returns:
        Points, float64 ``[29700, 2]``, and the ring of each point, int64 ``[29700]``.

    Examples:
        >>> points, ring = rings(0)
        >>> np.bincount(ring)
        array([20000,   200,  1000,   500,  8000])
    """
    rng = np.random.default_rng(seed)
    parts = []
    for n, centroid in zip(RING_SIZES, RING_CENTROIDS, strict=True):
        radius, angle = np.sqrt(rng.uniform(0.7**2, 1, n)), rng.uniform(0, 2 * np.pi, n)
        parts.append(radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) + centroid)
    return np.concatenate(parts), np.repeat(np.arange(len(RING_SIZES)), RING_SIZES)


def kl_from_equal(ring: np.ndarray) -> float:
    """Returns the KL divergence of the fractions of points in the rings from equal fractions.

    Args:
        ring: int ``[n]``, ring of each point.

    Examples:
        >>> kl_from_equal(np.arange(5)), round(kl_from_equal(np.zeros(5, int)), 3)
        (0.0, 1.609)
    """
    fractions = np.bincount(ring, minlength=len(RING_SIZES)) / len(ring)
    fractions = fractions[fractions > 0]
    return float((fractions * np.log(len(RING_SIZES) * fractions)).sum())
