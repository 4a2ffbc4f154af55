"""Evaluation of the encoder while it is trained, and folders of its weights."""

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx

from jaxcurate.models.bert import Bert, is_used, pool
from jaxcurate.models.pretrained import save_vit
from jaxcurate.models.vit import ViT
from jaxcurate.runtime.devices import fetch
from jaxcurate.training.config import PretrainConfig
from jaxcurate.training.objectives.base import Batch, Objective, Variables
from jaxcurate.training.rankme import rankme

Params = dict[str, Any]
"""Weights of the encoder as nested dictionaries of arrays."""
OnEval = Callable[[int, Params], Mapping[str, float]]
"""Function of the number of steps done and the weights of the encoder, on the host, which returns
numbers to log. The encoder with the highest ``"score"`` among them is saved as the best. Each of
several processes calls it."""
SCORE = "score"
"""Name of the number by which encoders are compared."""


def is_due(n_done: int, settings: PretrainConfig, on_eval: OnEval | None) -> bool:
    """Returns whether the encoder is evaluated after some number of steps.

    Examples:
        >>> settings = PretrainConfig(n_steps=100, eval_every=40)
        >>> [n for n in range(1, 101) if is_due(n, settings, None)]
        [40, 80, 100]
    """
    if settings.eval_every is None:
        return on_eval is not None and n_done == settings.n_steps
    return n_done % settings.eval_every == 0 or n_done == settings.n_steps
