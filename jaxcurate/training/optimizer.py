"""Optimizer of pretraining, and its learning rate and weight decay at every step."""

import math

import jax
import jax.numpy as jnp
import optax

from jaxcurate.training.config import PretrainConfig


def learning_rate(settings: PretrainConfig) -> optax.Schedule:
    """Returns the rate as a function of the step: a linear warm-up, then a cosine.

    Examples:
        >>> rate = learning_rate(PretrainConfig(n_steps=100, learning_rate=0.5, warmup=0.1))
        >>> float(rate(10)), float(rate(100))
        (0.5, 0.0)
    """
    n_warmup = round(settings.warmup * settings.n_steps)
    return optax.warmup_cosine_decay_schedule(
        init_value=settings.learning_rate / max(1, n_warmup),
        peak_value=settings.learning_rate,
        warmup_steps=n_warmup,
        decay_steps=max(1, settings.n_steps, n_warmup + 1),
        end_value=settings.learning_rate_end,
    )


def weight_decay(settings: PretrainConfig) -> float | optax.Schedule:
    """Returns the weight decay, as a function of the step if it changes.

    Examples:
        >>> settings = PretrainConfig(n_steps=10, weight_decay=0.04, weight_decay_end=0.4)
        >>> [round(float(weight_decay(settings)(step)), 3) for step in (0, 5, 10)]
        [0.04, 0.22, 0.4]
    """
    first, last = settings.weight_decay, settings.weight_decay_end
    if last is None:
        return first

    def at(step: jax.typing.ArrayLike) -> jax.Array:
        done = jnp.minimum(1, jnp.asarray(step) / max(1, settings.n_steps))
        return last + (first - last) * (1 + jnp.cos(math.pi * done)) / 2

    return at


def optimizer(settings: PretrainConfig) -> optax.GradientTransformation:
    """Returns AdamW with a linear warm-up and a cosine decay, and weight decay on matrices.

    References:
        Loshchilov, Hutter: Decoupled weight decay regularization (2019),
        https://arxiv.org/abs/1711.05101.
    """
    adamw = optax.adamw(
        learning_rate(settings),
        b2=settings.b2,
        weight_decay=weight_decay(settings),
        mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
    )
    if settings.clip_norm is None:
        return adamw
    return optax.chain(optax.clip_by_global_norm(settings.clip_norm), adamw)
