"""SimCLR: two views of an image are to be closer than any two images."""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcurate.models.vit import ViT, ViTConfig, linear


class SimCLR(nnx.Module):
    """An encoder and the two-layer projection head that only the loss sees.

    Args:
        config: the encoder's shape.
        n_hidden: hidden units of the head.
        n_out: dimensions in which views are compared.
        rngs: source of the initial weights.
    """

    def __init__(self, config: ViTConfig, n_hidden: int, n_out: int, *, rngs: nnx.Rngs) -> None:
        self.encoder = ViT(config, rngs=rngs)
        self.hidden = linear(config.width, n_hidden, config.precision, rngs=rngs)
        self.out = linear(n_hidden, n_out, config.precision, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps float32 images ``[b, s, s, 3]`` to float32 projections ``[b, n_out]``."""
        z = self.out(nnx.relu(self.hidden(self.encoder(images))))
        return z.astype(jnp.float32)


def nt_xent(z_1: jax.Array, z_2: jax.Array, ids: jax.Array, temperature: float) -> jax.Array:
    """Returns normalised, temperature-scaled cross entropy of two views of a batch.

    View i is to find the other view of its image among all views of other images. An image that
    is in the batch more than once is no negative of itself.

    Args:
        z_1: ``[b, d]`` projections of the first views.
        z_2: ``[b, d]`` projections of the second views, in the same order.
        ids: int ``[b]``, equal for entries of the same image.
        temperature: divides the cosines.

    Returns:
        The mean loss, nats.

    References:
        Chen, Kornblith, Norouzi, Hinton: A simple framework for contrastive learning of visual
        representations (2020), https://arxiv.org/abs/2002.05709, section 2.1.
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
