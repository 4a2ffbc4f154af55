"""Float64 references of self-distillation in NumPy, and pictures to learn from."""

import numpy as np


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def pairs_entropy(targets, logits):
    """Mean cross entropy over pairs of a target ``[i, b, k]`` and another crop ``[j, b, k]``."""
    losses = []
    for i, target in enumerate(np.asarray(targets, np.float64)):
        for j, logit in enumerate(np.asarray(logits, np.float64)):
            if i != j:
                losses.append(-(target * np.log(softmax(logit))).sum(axis=1).mean())
    return np.mean(losses)


def sinkhorn(scores, n_iterations):
    """Sinkhorn-Knopp by scaling a matrix in place, as in the appendix of SwAV."""
    q = np.exp(np.asarray(scores, np.float64)).T
    q /= q.sum()
    n_prototypes, n = q.shape
    for _ in range(n_iterations):
        q /= q.sum(axis=1, keepdims=True) * n_prototypes
        q /= q.sum(axis=0, keepdims=True) * n
    return (q * n).T


def textures(n, seed):
    """Pictures of 8 x 8 pixels with one of four textures, shifted and of random colors; classes."""
    rng = np.random.default_rng(seed)
    classes = np.arange(n) % 4
    motif = np.random.default_rng(9).normal(size=(4, 4, 4, 1))
    tiled = np.tile(motif, (1, 3, 3, 1))
    shift = rng.integers(0, 4, (n, 2))
    x = np.stack([tiled[c, i : i + 8, j : j + 8] for c, (i, j) in zip(classes, shift, strict=True)])
    x = 128 + rng.uniform(20, 50, (n, 1, 1, 1)) * x + rng.normal(0, 30, (n, 1, 1, 3))
    return np.clip(x + rng.normal(0, 10, (*x.shape[:3], 3)), 0, 255).astype(np.uint8), classes
