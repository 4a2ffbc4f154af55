"""DINO: the crops of a picture should have the prototypes that a slow teacher sees in others."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcurate.checks import InputError, check_choice
from jaxcurate.models.vit_config import ViTConfig
from jaxcurate.training.objectives.base import Batch, Outcome, Variables
from jaxcurate.training.objectives.self_distillation import (
    Head,
    SelfDistillation,
    by_crop,
    cross_entropy,
    different_crops,
    encoder_of_crops,
    prototypes_used,
    sinkhorn_knopp,
)

Balance = Literal["centering", "sinkhorn"]
"""Way to keep the teacher from assigning the same prototype to all pictures."""


class Extra(NamedTuple):
    """Numbers of a run that the optimizer does not change."""

    teacher: Any
    """Weights of the teacher, a pytree as that of the student."""
    center: jax.Array
    """Moving average of the teacher's cosine similarities, float32 ``[n_prototypes]``."""


@dataclass(frozen=True)
class DINO(SelfDistillation):
    """Distillation of a teacher that sees two global crops into a student that sees all crops.

    The defaults are for small pictures and short runs. The paper has 8 local crops, a head of
    2048 hidden units, a bottleneck of 256 and 65,536 prototypes, centering, a momentum of 0.996,
    and frozen prototypes in the first epoch.

    Raises:
        InputError: naming the field that cannot be used.

    References:
        Caron, Touvron, Misra, Jégou, Mairal, Bojanowski, Joulin: Emerging properties in
        self-supervised vision transformers (2021), https://arxiv.org/abs/2104.14294.

    Examples:
        >>> settings = DINO(n_local=6)
        >>> [(crop.n, crop.size) for crop in settings.crops(ViTConfig(image_size=32, patch_size=8))]
        [(2, 32), (6, 16)]
    """

    balance: Balance = "sinkhorn"
    """Way to keep the teacher from assigning the same prototype to all pictures: `centering`, that
    of the paper, subtracts the moving average of its similarities; `sinkhorn` assigns the pictures
    of a batch to all prototypes about equally, which is more robust in short runs."""
    center_momentum: float = 0.9
    """Weight of the old center in its moving average. With 1 the center stays 0, and the features
    collapse."""
    n_iterations: int = 3
    """Number of iterations of Sinkhorn-Knopp."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("balance", self.balance, get_args(Balance))
        if not 0 <= self.center_momentum <= 1:
            raise InputError(f"center_momentum={self.center_momentum} must be within [0, 1]")
        if self.n_iterations < 0:
            raise InputError(f"n_iterations={self.n_iterations} must not be negative")

    def network(self, model: ViTConfig, *, rngs: nnx.Rngs) -> nnx.Module:
        """Returns an encoder with a head, of the student and of the teacher alike."""
        return Prototyped(model, self, rngs=rngs)

    def init(self, model: ViTConfig, key: jax.Array) -> Variables:
        """Returns a student, the same teacher, and a center of zeros."""
        params = super().init(model, key).params
        return Variables(
            params, Extra(jax.tree.map(jnp.copy, params), jnp.zeros(self.n_prototypes))
        )

    def loss(
        self, model: ViTConfig, variables: Variables, batch: Batch, key: jax.Array, done: jax.Array
    ) -> Outcome:
        """Returns the cross entropy of the student's predictions, and the center of the batch."""
        teacher = self.merged(model, jax.lax.stop_gradient(variables.extra.teacher))
        seen = teacher(batch.views[:1], 2)
        targets = self._targets(seen, variables.extra.center, done)
        student = self.merged(model, variables.params)
        n_crops = 2 + self.n_local
        scores = student(batch.views, n_crops, key, done < self.frozen) / self.student_temperature
        loss = cross_entropy(targets, scores, different_crops(2, n_crops))
        return Outcome(loss, prototypes_used(targets), aux=jnp.mean(seen, axis=(0, 1)))

    def _targets(self, seen: jax.Array, center: jax.Array, done: jax.Array) -> jax.Array:
        """Returns probabilities of the prototypes, float32 ``[2, b, n_prototypes]``."""
        if self.balance == "sinkhorn":
            return sinkhorn_knopp(seen / self.temperature(done), self.n_iterations)
        return jax.nn.softmax((seen - center[None, None]) / self.temperature(done), axis=-1)

    def after_step(self, model: ViTConfig, variables: Variables, aux: Any, done: jax.Array) -> Any:
        """Returns the moving averages of the student's weights and of the teacher's center."""
        del model
        center = self.center_momentum * variables.extra.center + (1 - self.center_momentum) * aux
        return Extra(self.next_teacher(variables, done), center)


class Prototyped(nnx.Module):
    """Encoder with a head of prototypes.

    Args:
        config: the shape of the encoder.
        settings: the numbers of units of the head.
        rngs: the source of the initial weights.
    """

    def __init__(self, config: ViTConfig, settings: DINO, *, rngs: nnx.Rngs) -> None:
        self.encoder = encoder_of_crops(config, rngs=rngs)
        self.head = Head(self.encoder.config.n_features, settings, config, rngs=rngs)

    def __call__(
        self,
        views: tuple[jax.Array, ...],
        n_crops: int,
        key: jax.Array | None = None,
        is_frozen: jax.Array | bool = False,
    ) -> jax.Array:
        """Maps groups of crops to float32 cosine similarities ``[n_crops, b, n_prototypes]``.

        Args:
            views: normalized images, ``[n * b, s, s, 3]`` for each group of ``n`` crops.
            n_crops: number of crops of a picture in all groups.
            key: PRNG key for skipped halves of blocks; None skips nothing.
            is_frozen: True to give the prototypes no gradient.
        """
        keys = [None if key is None else jax.random.fold_in(key, i) for i in range(len(views))]
        features = [self.encoder(x, key=k) for x, k in zip(views, keys, strict=True)]
        return self.head(by_crop(features, n_crops), is_frozen)
