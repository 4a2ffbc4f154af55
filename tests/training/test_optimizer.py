"""AdamW and its schedules, against a reference in float64."""

import jax
import numpy as np
import optax
import pytest
import tiny_run

from jaxcurate.training import optimizer

CHOICES = [
    {},
    dict(clip_norm=0.5),
    dict(b2=0.95, weight_decay=0.04, weight_decay_end=0.4, learning_rate_end=1e-3, warmup=0.3),
    dict(warmup=0, n_steps=5),
]


def reference(settings, params, gradients):
    """AdamW as published, step by step."""
    first = {name: np.zeros_like(p) for name, p in params.items()}
    second = {name: np.zeros_like(p) for name, p in params.items()}
    n_warmup = round(settings.warmup * settings.n_steps)
    for step, gradient in enumerate(gradients):
        if settings.clip_norm:
            norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
            gradient = {n: g * min(1, settings.clip_norm / norm) for n, g in gradient.items()}
        peak, last = settings.learning_rate, settings.learning_rate_end
        if step < n_warmup:
            low = peak / n_warmup
            rate = low + (peak - low) * step / n_warmup
        else:
            done = (step - n_warmup) / (settings.n_steps - n_warmup)
            rate = last + (peak - last) * (1 + np.cos(np.pi * done)) / 2
        decay = settings.weight_decay
        if settings.weight_decay_end is not None:
            end, done = settings.weight_decay_end, step / settings.n_steps
            decay = end + (decay - end) * (1 + np.cos(np.pi * done)) / 2
        for name, g in gradient.items():
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = settings.b2 * second[name] + (1 - settings.b2) * g**2
            m = first[name] / (1 - 0.9 ** (step + 1))
            v = second[name] / (1 - settings.b2 ** (step + 1))
            change = m / (np.sqrt(v) + 1e-8) + decay * (params[name].ndim > 1) * params[name]
            params = params | {name: params[name] - rate * change}
    return params


@pytest.mark.parametrize("change", CHOICES)
def test_adamw_is_the_published_one(change):
    settings = tiny_run.settings(**change)
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 4), "bias": (4,)}
    params = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    gradients = [
        {name: rng.normal(size=shape) for name, shape in shapes.items()}
        for _ in range(settings.n_steps)
    ]
    transform = optimizer.optimizer(settings)
    got = jax.tree.map(np.float32, params)
    state, update = transform.init(got), jax.jit(transform.update)
    for gradient in gradients:
        change, state = update(jax.tree.map(np.float32, gradient), state, got)
        got = optax.apply_updates(got, change)
    expected = reference(settings, params, gradients)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, atol=2e-5)
