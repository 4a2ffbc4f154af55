"""A run so small that it compiles in seconds, and an objective of plain regression."""

from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcurate import training
from jaxcurate.models.vit import ViT
from jaxcurate.training.objectives import ObjectiveConfig, simclr
from jaxcurate.training.objectives.base import Crop, Objective, Outcome, Variables

N_STEPS = 20
MODEL = training.ViTConfig(image_size=8, patch_size=4, width=16, depth=1, n_heads=2, mlp_ratio=2)
STILL = training.Augmentation(
    crop_scale=(1, 1), crop_ratio=1, flip=0, brightness=0, contrast=0, saturation=0, gray=0
)
"""No random change at all."""


def images():
    """60 images of 8 x 8 pixels: a color each, and noise."""
    rng = np.random.default_rng(0)
    color = rng.integers(0, 200, (60, 1, 1, 3))
    return (color + rng.integers(0, 55, (60, 8, 8, 3))).astype(np.uint8)


def settings(**change):
    """Settings of SimCLR."""
    given = dict(
        model=MODEL,
        n_steps=N_STEPS,
        batch_size=16,
        learning_rate=5e-3,
        objective=ObjectiveConfig(simclr=simclr.SimCLR(projection=(16, 8))),
        runs_per_device=1,
        log_every=5,
    )
    return training.PretrainConfig(**(given | change))


def data(n_images=60, n_parts=1, part=0):
    """Input of the run, or the part of one of several processes."""
    run = training.Run(np.arange(n_images), seed=0)
    return training.ResidentInput(images(), run, N_STEPS, 16, n_parts=n_parts, part=part)


class _Head(nnx.Module):
    def __init__(self, model, *, rngs):
        self.encoder = ViT(model, rngs=rngs)
        self.out = nnx.Linear(model.width, 3, rngs=rngs, precision="highest")


@dataclass(frozen=True)
class Regression(Objective):
    """Mean colors from features; items are not compared. ``extra`` counts steps, and adds up the
    mean color, which the loss returns for it."""

    bad_step: int | None = None
    """Step whose loss is not a number."""

    def network(self, model, *, rngs):
        return _Head(model, rngs=rngs)

    def crops(self, model):
        return (Crop(1, model.image_size),)

    def init(self, model, key):
        return Variables(super().init(model, key).params, {"n": jnp.int32(0), "sum": jnp.zeros(3)})

    def loss(self, model, variables, batch, key, done):
        head = self.merged(model, variables.params)
        color = batch.views[0].mean(axis=(1, 2))
        loss = jnp.mean((head.out(head.encoder(batch.views[0])) - color) ** 2)
        if self.bad_step is not None:
            loss = jnp.where(jnp.round(done * N_STEPS) == self.bad_step, jnp.nan, loss)
        aux = {"color": color.mean(axis=0), "n": variables.extra["n"] + 1}
        return Outcome(loss, {"red": color[:, 0].mean()}, aux)

    def after_step(self, model, variables, aux, done):
        return {"n": aux["n"], "sum": variables.extra["sum"] + aux["color"]}


@dataclass(frozen=True)
class WithRegression(ObjectiveConfig):
    """Objectives with one more."""

    name: str = "regression"
    regression: Regression = field(default_factory=Regression)


def regression(bad_step=None, **change):
    """Settings of the regression on unchanged images."""
    objective = WithRegression(regression=Regression(bad_step))
    return settings(objective=objective, augmentation=STILL, **change)
