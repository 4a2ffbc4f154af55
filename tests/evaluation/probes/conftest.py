"""Features that all probes are tested on."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def blobs():
    """Returns train and test features of five overlapping classes, and their labels."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(5, 12)) * 1.2

    def split(n):
        y = rng.integers(0, 5, n)
        x = centers[y] + rng.normal(size=(n, 12)) + 3
        return x.astype(np.float32), y * 7 - 3

    return *split(400), *split(300)
