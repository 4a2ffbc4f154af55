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


def hues(n, seed):
    """Pictures of 8 x 8 pixels: one of eight faint hues under random light and shade; classes."""
    rng = np.random.default_rng(seed)
    classes = np.arange(n) % 8
    angle = 2 * np.pi * (classes[:, None] / 8 + np.array([[0, 1 / 3, 2 / 3]]))
    shade = rng.normal(0, 40, (n, 4, 4)).repeat(2, axis=1).repeat(2, axis=2)
    x = 128 + 12 * np.cos(angle)[:, None, None] + shade[..., None]
    return np.clip(x + rng.normal(0, 10, (n, 8, 8, 3)), 0, 255).astype(np.uint8), classes
