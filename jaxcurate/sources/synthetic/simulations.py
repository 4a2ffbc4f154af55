"""The published simulations: skewed points in the plane, and how evenly they get covered."""

import numpy as np

SIDES = (-3.0, 3.0)
"""Where the square lies, along both axes."""
RING_SIZES = (20000, 200, 1000, 500, 8000)
RING_CENTROIDS = ((-2.2, 1.0), (0.0, 1.0), (2.2, 1.0), (-1.2, 0.2), (1.2, 0.2))


def skewed_square(seed: int) -> np.ndarray:
    """Returns three Gaussians of 7000, 1000 and 500 points, and 500 uniform ones: float64 ``[9000,
    2]``.

    References:
        Vo et al. 2024, section 4.1. https://arxiv.org/abs/2405.15613
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
    """Returns five rings of very different numbers of points.

    Returns:
        Points, float64 ``[29700, 2]``, and the ring of each, int64 ``[29700]``.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for n, center in zip(RING_SIZES, RING_CENTROIDS, strict=True):
        radius, angle = np.sqrt(rng.uniform(0.7**2, 1, n)), rng.uniform(0, 2 * np.pi, n)
        parts.append(radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) + center)
    return np.concatenate(parts), np.repeat(np.arange(len(RING_SIZES)), RING_SIZES)


def kl_of_shares(ring: np.ndarray) -> float:
    """Returns KL divergence of the rings' shares of points from equal shares."""
    shares = np.bincount(ring, minlength=len(RING_SIZES)) / len(ring)
    shares = shares[shares > 0]
    return float((shares * np.log(len(RING_SIZES) * shares)).sum())
