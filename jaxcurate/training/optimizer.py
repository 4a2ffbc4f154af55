"""Optimizer of pretraining, and its learning rate at every step."""

import jax
import optax

from jaxcurate.training.config import PretrainConfig


def optimizer(settings: PretrainConfig) -> optax.GradientTransformation:
    """Returns AdamW with a linear warm-up and a cosine decay to 0, and weight decay on matrices.

    References:
        Loshchilov, Hutter: Decoupled weight decay regularization (2019),
        https://arxiv.org/abs/1711.05101.
    """
    n_warmup = round(settings.warmup * settings.n_steps)
    rate = optax.warmup_cosine_decay_schedule(
        init_value=settings.learning_rate / max(1, n_warmup),
        peak_value=settings.learning_rate,
        warmup_steps=n_warmup,
        decay_steps=max(1, settings.n_steps, n_warmup + 1),
    )
    return optax.adamw(
        rate,
        weight_decay=settings.weight_decay,
        mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
    )
