"""DINOv2: DINO on images, iBOT on masked patches, and KoLeo, which spreads features out."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcurate.checks import InputError
from jaxcurate.models.vit import Tokens, ViT
from jaxcurate.models.vit_blocks import token
from jaxcurate.models.vit_config import ViTConfig, as_architecture
from jaxcurate.training.objectives.base import Batch, Outcome, Variables
from jaxcurate.training.objectives.block_masks import BlockMasks, block_masks
from jaxcurate.training.objectives.self_distillation import (
    Head,
    SelfDistillation,
    by_crop,
    cross_entropy,
    different_crops,
    encoder_of_crops,
    prototypes_used,
    sinkhorn_knopp,
    unit,
)


class Extra(NamedTuple):
    """Numbers of a run that the optimizer does not change."""

    teacher: Any
    """Weights of the teacher, a pytree as that of the student."""


@dataclass(frozen=True)
class DINOv2(SelfDistillation):
    """DINO with targets by Sinkhorn-Knopp, together with iBOT and KoLeo.

    In one of the two global crops of each picture, blocks of patches are hidden from the student,
    which should find their prototypes. In the paper, half of all crops are chosen at random.

    The defaults are for small pictures and short runs. The paper has 8 local crops, heads of
    2048 hidden units, bottlenecks of 256 and 65,536 to 131,072 prototypes, a momentum of 0.992 to
    0.994, and a teacher's temperature that rises from 0.04 to 0.07.

    Raises:
        InputError: naming the field that cannot be used.

    References:
        Oquab et al.: DINOv2: learning robust visual features without supervision (2023),
        https://arxiv.org/abs/2304.07193, section 4.
        Zhou et al.: iBOT: image BERT pre-training with online tokenizer (2022),
        https://arxiv.org/abs/2111.07832.

    Examples:
        >>> DINOv2(mask_ratio=(0.2, 0.4)).koleo_weight
        0.1
    """

    n_iterations: int = 3
    """Number of iterations of Sinkhorn-Knopp. With 0 the features collapse, but for KoLeo."""
    mask_ratio: tuple[float, float] = (0.1, 0.5)
    """Smallest and largest fraction of masked patches in a crop with a mask."""
    patch_weight: float = 0.5
    """Weight of the loss of masked patches. The published code has 1, and counts the half of the
    crops that has no mask as zeros, which is the same."""
    koleo_weight: float = 0.1
    """Weight of KoLeo on the features of each global crop."""
    shared_head: bool = False
    """True for one head for images and patches, False for one each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.mask_ratio
        if not 0 <= low <= high <= 1 or not high:
            raise InputError(
                f"mask_ratio={self.mask_ratio} must be 0 <= low <= high <= 1, high > 0"
            )
        for name in ("n_iterations", "patch_weight", "koleo_weight"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}={getattr(self, name)} must not be negative")

    def network(self, model: ViTConfig, *, rngs: nnx.Rngs) -> nnx.Module:
        """Returns an encoder with heads of images and of patches, of student and teacher alike."""
        return Masked(model, self, rngs=rngs)

    def init(self, model: ViTConfig, key: jax.Array) -> Variables:
        """Returns a student and the same teacher."""
        params = super().init(model, key).params
        return Variables(params, Extra(jax.tree.map(jnp.copy, params)))

    def loss(
        self, model: ViTConfig, variables: Variables, batch: Batch, key: jax.Array, done: jax.Array
    ) -> Outcome:
        """Returns the weighted sum of the losses of images, of masked patches, and of KoLeo."""
        mask_key, key = jax.random.split(key)
        b = len(batch.views[0]) // 2
        masks = block_masks(mask_key, b, as_architecture(model).grid, self.mask_ratio)
        mask = jnp.concatenate([masks.mask, jnp.zeros_like(masks.mask)])
        is_frozen = done < self.frozen

        teacher = self.merged(model, jax.lax.stop_gradient(variables.extra.teacher))
        seen, seen_patches = teacher.features(batch.views[0])
        sharpness = 1 / self.temperature(done)
        seen_crops = by_crop([seen], 2)
        targets = sinkhorn_knopp(teacher.head(seen_crops) * sharpness, self.n_iterations)
        patch_targets = sinkhorn_knopp(
            teacher.score_patches(masks, seen_patches[:b]) * sharpness,
            self.n_iterations,
            masks.is_masked.reshape(-1),
        )

        student = self.merged(model, variables.params)
        keys = jax.random.split(key)
        features, patches = student.features(batch.views[0], mask, keys[0])
        views = [features] + [student.features(x, None, keys[1])[0] for x in batch.views[1:]]
        crops = by_crop(views, 2 + self.n_local)
        scores = student.head(crops, is_frozen) / self.student_temperature
        patch_scores = student.score_patches(masks, patches[:b], is_frozen)

        image = cross_entropy(targets, scores, different_crops(2, 2 + self.n_local))
        patch = patch_cross_entropy(
            patch_targets, patch_scores / self.student_temperature, masks.is_masked
        )
        spread = koleo(features[:b], batch.ids) + koleo(features[b:], batch.ids)
        loss = image + self.patch_weight * patch + self.koleo_weight * spread
        metrics = {"image": image, "patch": patch, "koleo": spread / 2, **prototypes_used(targets)}
        return Outcome(loss, metrics)

    def after_step(self, model: ViTConfig, variables: Variables, aux: Any, done: jax.Array) -> Any:
        """Returns the moving average of the student's weights."""
        del model, aux
        return Extra(self.next_teacher(variables, done))

    def merged(self, model: ViTConfig, params: Any) -> Any:
        """Returns the network with the given weights."""
        network = super().merged(model, params)
        if network.mask_token is not None:
            network.encoder.mask_token = nnx.data(network.mask_token)
        return network


class Masked(nnx.Module):
    """Encoder with heads of prototypes for images and for patches.

    Args:
        config: the shape of the encoder. If it has no mask token, the network has one beside the
            encoder, which the encoder does not keep after pretraining.
        settings: the numbers of units of the heads.
        rngs: the source of the initial weights.

    Raises:
        InputError: the features of the encoder are not those of its normalized tokens.
    """

    def __init__(self, config: ViTConfig, settings: DINOv2, *, rngs: nnx.Rngs) -> None:
        c = as_architecture(config)
        if c.pooling == "attention" or c.final_norm == "pooled" or c.projection:
            raise InputError(
                f"pooling={c.pooling!r}, final_norm={c.final_norm!r}, projection={c.projection}: "
                "dinov2 needs pooling 'class', 'mean' or 'class_mean', final_norm='tokens' and "
                "projection=None"
            )
        self.encoder = encoder_of_crops(config, rngs=rngs)
        self.head = Head(c.n_features, settings, config, rngs=rngs)
        shared = settings.shared_head and c.n_features == c.width
        if settings.shared_head and not shared:
            raise InputError(f"shared_head=True needs another pooling than {c.pooling!r}")
        self.patch_head = None if shared else Head(c.width, settings, config, rngs=rngs)
        self.mask_token = None if c.mask_token else token(1, c.width, rngs=rngs)

    def features(
        self, images: jax.Array, mask: jax.Array | None = None, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Returns features of images, ``[b, n_features]``, and tokens ``[b, n_patches, width]``.

        Args:
            images: normalized images.
            mask: bool ``[b, n_patches]``, True for patches that the mask token takes the place of.
            key: PRNG key for skipped halves of blocks; None skips nothing.
        """
        tokens = self.encoder.tokens(images, mask, key)
        return pooled(self.encoder, tokens), tokens.patches

    def score_patches(
        self, masks: BlockMasks, patches: jax.Array, is_frozen: jax.Array | bool = False
    ) -> jax.Array:
        """Returns cosine similarities of masked patches alone, ``[b * most, n_prototypes]``.

        Args:
            masks: the places of the masked patches.
            patches: tokens of all patches, float32 ``[b, n_patches, width]``.
            is_frozen: True to give the prototypes no gradient.
        """
        masked = jnp.take_along_axis(patches, masks.places[:, :, None], axis=1)
        head = self.head if self.patch_head is None else self.patch_head
        return head(masked.reshape(-1, masked.shape[-1]), is_frozen)


def pooled(encoder: ViT, tokens: Tokens) -> jax.Array:
    """Returns the output of the encoder for tokens, float32 ``[b, n_features]``."""
    mean = jnp.mean(tokens.patches, axis=1)
    kind = encoder.config.pooling
    if kind == "mean":
        return mean
    first = tokens.first[:, 0]
    return first if kind == "class" else jnp.concatenate([first, mean], axis=1)


def patch_cross_entropy(targets: jax.Array, scores: jax.Array, is_masked: jax.Array) -> jax.Array:
    """Returns the mean cross entropy of masked patches of an image, on average over images.

    Args:
        targets: probabilities of the prototypes, float32 ``[b * most, n_prototypes]``.
        scores: logits of the predictions, float32 ``[b * most, n_prototypes]``.
        is_masked: bool ``[b, most]``, False for padding; True at least once in each row.

    References:
        Zhou et al.: iBOT (2022), https://arxiv.org/abs/2111.07832, equation 2.

    Examples:
        >>> targets, is_masked = jnp.eye(2), jnp.array([[True, False]])
        >>> uniform = patch_cross_entropy(targets, jnp.zeros((2, 2)), is_masked)
        >>> round(uniform.item(), 3)  # the logarithm of 2
        0.693
    """
    entropy = jax.nn.logsumexp(scores, axis=1) - jnp.sum(targets * scores, axis=1)
    entropy = jnp.where(is_masked, entropy.reshape(is_masked.shape), 0)
    return jnp.mean(jnp.sum(entropy, axis=1) / jnp.sum(is_masked, axis=1))


def koleo(features: jax.Array, ids: jax.Array) -> jax.Array:
    """Returns the negative mean logarithm of the distance to the nearest other image of the batch.

    By the estimator of Kozachenko and Leonenko, it is the negative differential entropy of the
    features, scaled to length 1, up to constants.

    Args:
        features: float32 ``[b, d]``.
        ids: int ``[b]``, equal for entries of the same image, which are not neighbors.

    References:
        Sablayrolles, Douze, Schmid, Jégou: Spreading vectors for similarity search (2019),
        https://arxiv.org/abs/1806.03198, section 3.

    Examples:
        >>> round(koleo(jnp.array([[2.0, 0.0], [0.0, 1.0]]), jnp.arange(2)).item(), 4)
        -0.3466
    """
    x = unit(features, axis=1)
    cosine = jnp.dot(x, x.T, precision="highest")
    nearest = jnp.argmax(jnp.where(ids[:, None] == ids[None, :], -jnp.inf, cosine), axis=1)
    squared = jnp.sum(jnp.square(x - x[nearest]), axis=1)
    return -jnp.mean(0.5 * jnp.log(squared + 1e-16))
