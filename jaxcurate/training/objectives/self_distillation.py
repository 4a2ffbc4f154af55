"""Common parts of DINO and DINOv2: crops, heads, a teacher by moving average, balanced targets."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcurate.checks import InputError
from jaxcurate.models.vit import ViT
from jaxcurate.models.vit_blocks import exact_gelu, exactness, linear
from jaxcurate.models.vit_config import Precision, ViTConfig, as_architecture
from jaxcurate.training.objectives.base import Crop, Objective, Params, Variables
from jaxcurate.training.sharding import split_pictures

LOCAL_TO_GLOBAL = 3 / 7
"""Side of a local crop by that of a global one: 96 of 224 pixels in DINO, 98 of 224 in DINOv2."""


@dataclass(frozen=True)
class SelfDistillation(Objective):
    """Base class of objectives whose student predicts the prototypes that a teacher assigns.

    The teacher sees two global crops of a picture, the student also local ones. Each has an encoder
    and a head, and the weights of the teacher are a moving average of those of the student.

    Raises:
        InputError: naming the field that cannot be used.
    """

    n_local: int = 4
    """Number of local crops of each picture, beside the two global ones."""
    local_size: int | None = None
    """Side of a local crop in pixels. By default 3/7 of the image, in whole patches."""
    global_scale: tuple[float, float] = (0.25, 1.0)
    """Smallest and largest area of a global crop, as fractions of the picture."""
    local_scale: tuple[float, float] = (0.05, 0.25)
    """Smallest and largest area of a local crop, as fractions of the picture."""
    n_hidden: int = 256
    """Number of units in each of the two hidden layers of a head."""
    bottleneck: int = 64
    """Number of dimensions in which a head compares features with prototypes."""
    n_prototypes: int = 1024
    """Number of prototypes of a head."""
    student_temperature: float = 0.1
    """Divisor of the student's cosine similarities to the prototypes."""
    first_temperature: float = 0.04
    """Divisor of the teacher's cosine similarities at the first step."""
    teacher_temperature: float = 0.04
    """Divisor of the teacher's cosine similarities after the warm-up."""
    temperature_warmup: float = 0.3
    """Fraction of the steps over which the teacher's divisor changes linearly."""
    momentum: float = 0.95
    """Weight of the old teacher in the moving average at the first step. It rises to 1 along a
    cosine."""
    frozen: float = 0.01
    """Fraction of the steps, from the first one on, in which the student's prototypes stay as they
    are."""

    def __post_init__(self) -> None:
        for name, least in (
            ("n_local", 0),
            ("n_hidden", 1),
            ("bottleneck", 1),
            ("n_prototypes", 2),
        ):
            if getattr(self, name) < least:
                raise InputError(f"{name}={getattr(self, name)} must be at least {least}")
        if self.local_size is not None and self.local_size < 1:
            raise InputError(f"local_size={self.local_size} must be at least 1")
        for name in ("global_scale", "local_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise InputError(f"{name}={(low, high)} must be 0 < low <= high <= 1")
        for name in ("student_temperature", "first_temperature", "teacher_temperature"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}={getattr(self, name)} must be positive")
        for name in ("temperature_warmup", "momentum", "frozen"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)} must be within [0, 1]")

    def crops(self, model: ViTConfig) -> tuple[Crop, ...]:
        """Returns two global crops of the size of the model, and the local crops."""
        patch, size = model.patch_size, self.local_size
        if size is None:
            size = patch * max(1, round(LOCAL_TO_GLOBAL * model.image_size / patch))
        if size % patch:
            raise InputError(f"local_size={size} must be a multiple of patch_size={patch}")
        views = (Crop(2, model.image_size, self.global_scale),)
        return (*views, Crop(self.n_local, size, self.local_scale)) if self.n_local else views

    def temperature(self, done: jax.Array) -> jax.Array:
        """Returns the teacher's divisor of cosine similarities, a float32 scalar."""
        risen = (
            1.0 if not self.temperature_warmup else jnp.minimum(done / self.temperature_warmup, 1)
        )
        change = self.teacher_temperature - self.first_temperature
        return jnp.asarray(self.first_temperature + change * risen, jnp.float32)

    def next_teacher(self, variables: Variables, done: jax.Array) -> Any:
        """Returns the moving average of teacher and student, given the changed student."""
        momentum = cosine_momentum(self.momentum, done)
        return moving_average(variables.extra.teacher, variables.params, momentum)

    def encoder(self, variables: Variables) -> Params:
        """Returns the weights of the teacher's encoder, which is better than the student's."""
        return nnx.to_pure_dict(variables.extra.teacher)["encoder"]


def encoder_of_crops(config: ViTConfig, *, rngs: nnx.Rngs) -> ViT:
    """Returns an encoder that takes crops of any size, with the weights of the model."""
    return ViT(replace(as_architecture(config), any_size=True), rngs=rngs)


class Head(nnx.Module):
    """Head of DINO: cosine similarities of features to prototypes.

    A multilayer perceptron of three layers maps features to a bottleneck, where they and the
    prototypes are scaled to length 1.

    Args:
        n_features: number of features of the encoder.
        settings: the numbers of units.
        config: the shape of the encoder, whose precision the head has.
        rngs: the source of the initial weights.

    References:
        Caron et al.: Emerging properties in self-supervised vision transformers (2021),
        https://arxiv.org/abs/2104.14294, appendix C.
    """

    def __init__(
        self, n_features: int, settings: SelfDistillation, config: ViTConfig, *, rngs: nnx.Rngs
    ) -> None:
        n, precision = settings.n_hidden, config.precision
        self.hidden_1 = linear(n_features, n, precision, rngs=rngs)
        self.hidden_2 = linear(n, n, precision, rngs=rngs)
        self.out = linear(n, settings.bottleneck, precision, rngs=rngs)
        shape = settings.bottleneck, settings.n_prototypes
        self.prototypes = nnx.Param(jax.random.normal(rngs.params(), shape))
        self.precision: Precision = precision

    def __call__(self, features: jax.Array, is_frozen: jax.Array | bool = False) -> jax.Array:
        """Maps features to float32 cosine similarities ``[..., n_prototypes]``.

        Args:
            features: float32 ``[..., n_features]``.
            is_frozen: True to give the prototypes no gradient.
        """
        z = exact_gelu(self.hidden_2(exact_gelu(self.hidden_1(features))))
        z = unit(self.out(z).astype(jnp.float32), axis=-1)
        prototypes = self.prototypes[...]
        prototypes = jnp.where(is_frozen, jax.lax.stop_gradient(prototypes), prototypes)
        kind = jnp.dtype(self.precision)
        return jnp.dot(
            z.astype(kind),
            unit(prototypes, axis=0).astype(kind),
            precision=exactness(self.precision),
            preferred_element_type=jnp.float32,
        )


def by_crop(features: list[jax.Array], n_crops: int) -> jax.Array:
    """Joins features of groups of crops, ``[n * b, d]`` each, to ``[n_crops, b, d]``.

    Each device has those of its own pictures, before the head makes many more numbers of them.
    """
    joined = jnp.concatenate(features)
    return split_pictures(joined.reshape(n_crops, -1, joined.shape[-1]))


def unit(x: jax.Array, axis: int) -> jax.Array:
    """Returns vectors along an axis, scaled to length 1."""
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=axis, keepdims=True) + 1e-12)


def cross_entropy(targets: jax.Array, scores: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns the mean cross entropy of targets and predictions over pairs of crops and pictures.

    The logarithms of the predicted probabilities are never stored, because the targets sum to 1.

    Args:
        targets: probabilities of the prototypes, float32 ``[i, b, n_prototypes]``.
        scores: logits of the predictions, float32 ``[j, b, n_prototypes]``.
        weights: weights of the pairs of crops, float32 ``[i, j]``.

    Examples:
        >>> targets, scores = jnp.eye(2)[None], 9 * jnp.eye(2)[None]
        >>> wrong = cross_entropy(targets, scores[:, ::-1], jnp.ones((1, 1)))
        >>> bool(wrong > 8 + cross_entropy(targets, scores, jnp.ones((1, 1))))
        True
    """
    inner = jnp.einsum("ibk,jbk->ij", targets, scores, precision="highest") / scores.shape[1]
    total = jnp.mean(jax.nn.logsumexp(scores, axis=2), axis=1)[None] - inner
    return jnp.sum(weights * total) / jnp.sum(weights)


def different_crops(n_targets: int, n_predictions: int) -> jax.Array:
    """Returns weights of pairs of crops for :func:`cross_entropy`, 0 for a crop with itself.

    Examples:
        >>> print(different_crops(2, 3))
        [[0. 1. 1.]
         [1. 0. 1.]]
    """
    return 1 - jnp.eye(n_targets, n_predictions)


def sinkhorn_knopp(
    scores: jax.Array, n_iterations: int, is_row: jax.Array | None = None
) -> jax.Array:
    """Returns probabilities of the prototypes for each row that use all prototypes about equally.

    The exponentials of the scores are scaled in turn so that each prototype has the same sum over
    rows, and that each row sums to 1. The factors are kept as logarithms, so that nothing
    overflows, and no matrix is stored between iterations.

    Args:
        scores: float32 ``[..., n_prototypes]``: similarities divided by a temperature.
        n_iterations: number of times that prototypes and rows are scaled; 0 for a plain softmax.
        is_row: bool ``[...]``, False for rows that are padding. Their results mean nothing.

    Returns:
        float32 ``[..., n_prototypes]``; each row sums to 1.

    References:
        Cuturi: Sinkhorn distances (2013), https://arxiv.org/abs/1306.0895.
        Caron et al.: Unsupervised learning of visual features by contrasting cluster assignments
        (2020), https://arxiv.org/abs/2006.09882, section 3.1.

    Examples:
        >>> scores = jnp.array([[4.0, 0.0], [5.0, 3.0]])  # both rows prefer the first prototype
        >>> print((100 * sinkhorn_knopp(scores, n_iterations=50)).round())
        [[73. 27.]
         [27. 73.]]
    """
    scores = scores.astype(jnp.float32)
    rows = tuple(range(scores.ndim - 1))
    of_rows, of_prototypes = jnp.zeros((*scores.shape[:-1], 1)), jnp.zeros((1,) * scores.ndim)
    where = None if is_row is None else is_row[..., None]
    for _ in range(n_iterations):
        exponents = scores + of_rows
        of_prototypes = -jax.nn.logsumexp(exponents, axis=rows, where=where, keepdims=True)
        of_rows = -jax.nn.logsumexp(scores + of_prototypes, axis=-1, keepdims=True)
    return jax.nn.softmax(scores + of_prototypes, axis=-1)


def cosine_momentum(momentum: float, done: jax.Array) -> jax.Array:
    """Returns the weight of the old teacher, which rises along a cosine to 1.

    Args:
        momentum: the weight at the first step.
        done: fraction of the steps made, a float32 scalar.

    Examples:
        >>> [round(cosine_momentum(0.9, jnp.float32(x)).item(), 3) for x in (0, 0.5, 1)]
        [0.9, 0.95, 1.0]
    """
    return 1 - (1 - momentum) * (1 + jnp.cos(jnp.pi * done)) / 2


def moving_average(teacher: Any, student: Any, momentum: jax.Array) -> Any:
    """Returns the weights of the new teacher, a pytree.

    Examples:
        >>> moving_average({"w": 1.0}, {"w": 2.0}, 0.75)
        {'w': 1.25}
    """
    return jax.tree.map(lambda t, s: momentum * t + (1 - momentum) * s, teacher, student)


def prototypes_used(targets: jax.Array) -> dict[str, jax.Array]:
    """Returns effective numbers of prototypes, which show a collapse, to log.

    They are exponentials of entropies: of the mean target (``prototypes``) and, on average, of a
    target (``prototypes_each``). Equal numbers mean that all pictures have the same target.

    Args:
        targets: probabilities of the prototypes, float32 ``[..., n_prototypes]``.

    Examples:
        >>> {name: round(n.item(), 2) for name, n in prototypes_used(jnp.eye(8)).items()}
        {'prototypes': 8.0, 'prototypes_each': 1.0}
    """
    mean = jnp.mean(targets, axis=tuple(range(targets.ndim - 1)))
    each = jnp.mean(jnp.sum(jax.scipy.special.entr(targets), axis=-1))
    return {
        "prototypes": jnp.exp(jnp.sum(jax.scipy.special.entr(mean))),
        "prototypes_each": jnp.exp(each),
    }
