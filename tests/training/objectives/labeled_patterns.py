"""Pictures of simple classes, and the accuracy of k-NN on the features of small encoders."""

import dataclasses

import numpy as np

from jaxcurate import training
from jaxcurate.evaluation.probes import knn
from jaxcurate.runtime.devices import ONE_DEVICE
from jaxcurate.training.objectives import ObjectiveConfig
from jaxcurate.training.rankme import rankme

SMALL = training.ViTConfig(image_size=16, patch_size=4, width=32, depth=1, n_heads=2, mlp_ratio=2)
"""Encoder of the pictures."""
N_CLASSES = 8


def labeled_patterns(n, seed, size=16):
    """Pictures of a symmetric pattern for each class, of random brightness and contrast, and noise.

    Most of the variance is brightness, which a random encoder passes on.

    Returns:
        uint8 ``[n, size, size, 3]`` and int ``[n]``.
    """
    pattern = np.random.default_rng(99).normal(size=(N_CLASSES, size // 2, size // 2, 3))
    pattern = (pattern + pattern[:, :, ::-1]).repeat(2, 1).repeat(2, 2) / 2**0.5
    return _pictures(n, seed, pattern, contrast=25, noise=30)


def labeled_textures(n, seed, size=16, contrast=8):
    """Pictures of a symmetric tile of 4 x 4 pixels for each class, in the place of every patch.

    With a contrast of 0 they are noise alone, which cannot be predicted.

    Returns:
        uint8 ``[n, size, size, 3]`` and int ``[n]``.
    """
    tile = np.random.default_rng(99).normal(size=(N_CLASSES, 4, 4, 3))
    tile = (tile + tile[:, :, ::-1]) / 2**0.5
    tile -= tile.mean(axis=(1, 2), keepdims=True)
    return _pictures(n, seed, np.tile(tile, (1, size // 4, size // 4, 1)), contrast, noise=20)


def _pictures(n, seed, pattern, contrast, noise):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, N_CLASSES, n)
    brightness = rng.uniform(68, 188, (n, 1, 1, 1))
    contrasts = contrast * rng.uniform(0.5, 1.5, (n, 1, 1, 1))
    noises = rng.normal(0, noise, (n, *pattern.shape[1:]))
    pictures = brightness + contrasts * pattern[labels] + noises
    return np.clip(pictures, 0, 255).astype(np.uint8), labels


def settings(objective, **changes):
    """Settings of quick pretraining by an objective, which is a field of `ObjectiveConfig`."""
    name = type(objective).__name__.lower()
    return training.PretrainConfig(
        model=SMALL,
        objective=ObjectiveConfig(name, **{name: objective}),
        runs_per_device=2,
        **{"batch_size": 64, **changes},
    )


def accuracies_and_ranks(config, make=labeled_patterns):
    """Accuracy of k-NN and RankMe of two runs before and after pretraining, and their last losses.

    Returns:
        Two pairs of arrays ``[2]``, and the mean losses of the last 20 steps, ``[2]``.
    """
    pictures, labels = make(512, seed=0)
    tests, truth = make(512, seed=1)
    runs = [training.Run(np.arange(512), seed) for seed in (0, 1)]
    results = []
    for n_steps in (0, config.n_steps):
        used = dataclasses.replace(config, n_steps=n_steps)
        params, losses = training.pretrain(pictures, runs, used, devices=ONE_DEVICE)
        known = training.encode(params, pictures, used, devices=ONE_DEVICE)
        new = training.encode(params, tests, used, devices=ONE_DEVICE)
        right = [(knn(a, labels, b) == truth).mean() for a, b in zip(known, new, strict=True)]
        results.append((np.array(right), np.array([rankme(b) for b in new])))
    return *results, losses[:, -20:].mean(axis=1)
