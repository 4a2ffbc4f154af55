"""SimCLR: two views of an image should be closer than views of any two images."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcurate.checks import InputError
from jaxcurate.models.vit import ViT
from jaxcurate.models.vit_blocks import linear
from jaxcurate.models.vit_config import ViTConfig
from jaxcurate.training.objectives.base import Batch, Objective, Outcome, Variables


@dataclass(frozen=True)
class SimCLR(Objective):
    """Contrast of the two views of each picture with the views of all other pictures.

    Raises:
        InputError: naming the field that cannot be used.

    References:
        Chen, Kornblith, Norouzi, Hinton: A simple framework for contrastive learning of visual
        representations (2020), https://arxiv.org/abs/2002.05709.

    Examples:
        >>> SimCLR(temperature=0.1).projection
        (128, 64)
    """

    temperature: float = 0.2
    """Divisor of the cosine similarities."""
    projection: tuple[int, int] = (128, 64)
    """Hidden units and output dimensions of the projection head."""

    def __post_init__(self) -> None:
        if min(self.projection) < 1:
            raise InputError(f"projection={self.projection} must be at least 1 each")
        if not self.temperature > 0:
            raise InputError(f"temperature={self.temperature} must be positive")

    def network(self, model: ViTConfig, *, rngs: nnx.Rngs) -> nnx.Module:
        """Returns an encoder with a projection head."""
        return Projected(model, *self.projection, rngs=rngs)

    def loss(
        self, model: ViTConfig, variables: Variables, batch: Batch, key: jax.Array, done: jax.Array
    ) -> Outcome:
        """Returns NT-Xent of the projections of the two views."""
        del done
        z = self.merged(model, variables.params)(batch.views[0], key)
        z_1, z_2 = jnp.split(z, 2)
        return Outcome(nt_xent(z_1, z_2, batch.ids, self.temperature), {})


class Projected(nnx.Module):
    """Encoder with the two-layer projection head that is used in the loss only.

    Args:
        config: the shape of the encoder.
        n_hidden: the number of hidden units of the head.
        n_out: the number of dimensions in which views are compared.
        rngs: the source of the initial weights.
    """

    def __init__(self, config: ViTConfig, n_hidden: int, n_out: int, *, rngs: nnx.Rngs) -> None:
        self.encoder = ViT(config, rngs=rngs)
        n_features = self.encoder.config.n_features
        self.hidden = linear(n_features, n_hidden, config.precision, rngs=rngs)
        self.out = linear(n_hidden, n_out, config.precision, rngs=rngs)

    def __call__(self, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Maps float32 images ``[b, s, s, 3]`` to float32 projections ``[b, n_out]``.

        Args:
            images: normalized images.
            key: PRNG key for skipped halves of blocks; None skips nothing.
        """
        z = self.out(nnx.relu(self.hidden(self.encoder(images, key=key))))
        return z.astype(jnp.float32)


def nt_xent(z_1: jax.Array, z_2: jax.Array, ids: jax.Array, temperature: float) -> jax.Array:
    """Returns the normalized temperature-scaled cross entropy (NT-Xent) of two views of a batch.

    Each view is classified by cosine similarity: its class is the other view of the same image,
    among all views of other images. An image that is in the batch more than once is not a
    negative of itself.

    Args:
        z_1: projections of the first views, ``[b, d]``.
        z_2: projections of the second views in the same order, ``[b, d]``.
        ids: int ``[b]``, equal for entries of the same image.
        temperature: the divisor of the cosine similarities.

    Returns:
        The mean loss in nats.

    References:
        Chen, Kornblith, Norouzi, Hinton: A simple framework for contrastive learning of visual
        representations (2020), https://arxiv.org/abs/2002.05709, section 2.1.

    Examples:
        >>> z = jnp.eye(3)
        >>> equal = nt_xent(z, z, jnp.arange(3), temperature=0.1)
        >>> swapped = nt_xent(z, z[::-1], jnp.arange(3), temperature=0.1)
        >>> bool(equal < swapped)
        True
    """
    z = jnp.concatenate([z_1, z_2])
    z = z * jax.lax.rsqrt(jnp.sum(z * z, axis=1, keepdims=True) + 1e-12)
    cosine = jnp.dot(z, z.T, precision="highest") / temperature
    n = len(z_1)
    partner = jnp.roll(jnp.arange(2 * n), n)
    ids = jnp.concatenate([ids, ids])
    is_partner = partner[:, None] == jnp.arange(2 * n)[None, :]
    same_image = ids[:, None] == ids[None, :]
    logits = jnp.where(same_image & ~is_partner, -jnp.inf, cosine)
    positive = jnp.sum(jnp.where(is_partner, cosine, 0), axis=1)
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - positive)
