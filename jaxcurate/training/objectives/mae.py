"""MAE: a masked autoencoder draws the patches of a picture that its encoder has not seen."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcurate.checks import InputError
from jaxcurate.models.positions import sine_cosine
from jaxcurate.models.vit import ViT, patches
from jaxcurate.models.vit_blocks import Block, layer_norm, linear, token
from jaxcurate.models.vit_config import ViTArchitecture, ViTConfig, as_architecture
from jaxcurate.training.objectives.base import Batch, Crop, Objective, Outcome, Variables


@dataclass(frozen=True)
class MAE(Objective):
    """Reconstruction of most patches of a picture from the few that the encoder sees.

    Pictures are cropped and flipped, and keep their colors. The defaults are for small pictures and
    short runs. The paper has a decoder of width 512 with 8 blocks of 16 heads.

    Raises:
        InputError: naming the field that cannot be used.

    References:
        He, Chen, Xie, Li, Dollár, Girshick: Masked autoencoders are scalable vision learners
        (2021), https://arxiv.org/abs/2111.06377.

    Examples:
        >>> MAE(mask_ratio=0.75).n_kept(ViTConfig(image_size=32, patch_size=8))
        4
    """

    mask_ratio: float = 0.75
    """Fraction of the patches that the encoder does not see, and the decoder draws."""
    normalize: bool = True
    """True to draw each patch with mean 0 and variance 1; False to draw pixels in [-1, 1]."""
    scale: tuple[float, float] = (0.2, 1.0)
    """Smallest and largest area of the crop, as fractions of the picture."""
    decoder_width: int = 64
    """Number of features of a token in the decoder."""
    decoder_depth: int = 1
    """Number of transformer blocks of the decoder."""
    decoder_heads: int = 2
    """Number of attention heads of the decoder."""

    def __post_init__(self) -> None:
        if not 0 < self.mask_ratio < 1:
            raise InputError(f"mask_ratio={self.mask_ratio} must be within (0, 1)")
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise InputError(f"scale={self.scale} must be 0 < low <= high <= 1")
        for name in ("decoder_width", "decoder_depth", "decoder_heads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1")
        if self.decoder_width % 4:
            raise InputError(f"decoder_width={self.decoder_width} must be a multiple of 4")
        if self.decoder_width % self.decoder_heads:
            raise InputError(
                f"decoder_heads={self.decoder_heads} does not divide "
                f"decoder_width={self.decoder_width}"
            )

    def n_kept(self, model: ViTConfig) -> int:
        """Returns the number of patches of a picture that the encoder sees.

        Raises:
            InputError: it would see none, or all.
        """
        n = as_architecture(model).grid ** 2
        n_kept = round(n * (1 - self.mask_ratio))
        if not 0 < n_kept < n:
            raise InputError(
                f"mask_ratio={self.mask_ratio} of {n} patches leaves {n_kept} for the encoder: "
                "a part is needed; a smaller patch_size makes more patches"
            )
        return n_kept

    def crops(self, model: ViTConfig) -> tuple[Crop, ...]:
        """Returns one crop without other colors."""
        return (Crop(1, model.image_size, self.scale, recolor=False),)

    def network(self, model: ViTConfig, *, rngs: nnx.Rngs) -> nnx.Module:
        """Returns an encoder with a decoder."""
        self.n_kept(model)
        return Autoencoder(model, self, rngs=rngs)

    def loss(
        self, model: ViTConfig, variables: Variables, batch: Batch, key: jax.Array, done: jax.Array
    ) -> Outcome:
        """Returns the mean squared error of the drawn patches; those that were seen do not count.

        The metric `explained` is the fraction of the variance of the drawn patches that the drawing
        explains. It stays at 0 as long as the decoder draws the same for all pictures.
        """
        del done
        (images,) = batch.views
        mask_key, drop_key = jax.random.split(key)
        n = as_architecture(model).grid ** 2
        seen, masked = random_masks(mask_key, len(images), n, self.n_kept(model))
        drawn = self.merged(model, variables.params)(images, seen, masked, drop_key)
        wanted = targets(images, model.patch_size, masked, normalize=self.normalize)
        loss = jnp.mean(jnp.square(drawn - wanted))
        variance = jnp.mean(jnp.square(wanted - jnp.mean(wanted, axis=(0, 1), keepdims=True)))
        return Outcome(loss, {"explained": 1 - loss / jnp.maximum(variance, 1e-12)})


class Autoencoder(nnx.Module):
    """Encoder of the patches that are seen, and the small decoder that is used in the loss only.

    Args:
        config: the shape of the encoder.
        settings: the shape of the decoder.
        rngs: the source of the initial weights.
    """

    def __init__(self, config: ViTConfig, settings: MAE, *, rngs: nnx.Rngs) -> None:
        self.encoder = ViT(config, rngs=rngs)
        self.grid = self.encoder.config.grid
        width, precision = settings.decoder_width, config.precision
        decoder = ViTArchitecture(
            width=width, n_heads=settings.decoder_heads, depth=1, precision=precision
        )
        self.embed = linear(config.width, width, precision, rngs=rngs)
        self.mask_token = token(1, width, rngs=rngs)
        self.blocks = nnx.List([Block(decoder, rngs=rngs) for _ in range(settings.decoder_depth)])
        self.norm = layer_norm(decoder, dtype=precision, rngs=rngs)
        self.out = linear(width, config.patch_size**2 * 3, precision, rngs=rngs)

    def __call__(
        self, images: jax.Array, seen: jax.Array, masked: jax.Array, key: jax.Array | None = None
    ) -> jax.Array:
        """Maps float32 images ``[b, s, s, 3]`` to drawn patches, float32 ``[b, m, p * p * 3]``.

        Args:
            images: normalized images.
            seen: numbers of the patches that the encoder sees, int32 ``[b, n - m]``.
            masked: numbers of the other patches, which are drawn, int32 ``[b, m]``.
            key: PRNG key for skipped halves of blocks of the encoder; None skips nothing.
        """
        b, m = masked.shape
        tokens = self.encoder.tokens(images, key=key, keep=seen)
        known = jnp.concatenate([tokens.first, tokens.patches], axis=1)
        known = self.embed(known.reshape(-1, known.shape[2])).reshape(b, known.shape[1], -1)
        # Blocks do not care for the order of tokens, so that nothing is put back in its place: the
        # position of each patch is added to its token.
        place = jnp.asarray(sine_cosine(self.grid, self.grid, known.shape[2]))
        n_first = tokens.first.shape[1]
        known = known.at[:, n_first:].add(place[seen].astype(known.dtype))
        unknown = self.mask_token[...][None] + place[masked]
        x = jnp.concatenate([known, unknown.astype(known.dtype)], axis=1)
        n_tokens, width = x.shape[1:]
        x = x.reshape(-1, width)
        for block in self.blocks:
            x = block(x, n_tokens)
        x = x.reshape(b, n_tokens, width)[:, n_tokens - m :]
        return self.out(self.norm(x.reshape(-1, width))).reshape(b, m, -1).astype(jnp.float32)


def random_masks(
    key: jax.Array, n_images: int, n_patches: int, n_kept: int
) -> tuple[jax.Array, jax.Array]:
    """Returns the numbers of the patches to see and of those to mask, in random order.

    Returns:
        int32 ``[n_images, n_kept]`` and ``[n_images, n_patches - n_kept]``: together all patches of
        each image, each set of seen ones with the same probability.

    Examples:
        >>> seen, masked = random_masks(jax.random.key(0), n_images=2, n_patches=16, n_kept=4)
        >>> seen.shape, masked.shape
        ((2, 4), (2, 12))
    """
    order = jnp.argsort(jax.random.uniform(key, (n_images, n_patches)), axis=1)
    order = order.astype(jnp.int32)
    return order[:, :n_kept], order[:, n_kept:]


def targets(images: jax.Array, size: int, masked: jax.Array, *, normalize: bool) -> jax.Array:
    """Returns the pixels of masked patches, float32 ``[b, m, size * size * 3]``.

    Args:
        images: float32 ``[b, s, s, 3]``.
        size: side of a patch in pixels.
        masked: numbers of the patches, int32 ``[b, m]``.
        normalize: True to shift and scale the values of each patch to mean 0 and variance 1.

    References:
        He et al. (2021), https://arxiv.org/abs/2111.06377, section 3, "Reconstruction target".
    """
    pixels = patches(images, size).reshape(len(images), -1, size * size * 3)
    pixels = jnp.take_along_axis(pixels, masked[:, :, None], axis=1)
    return jax.nn.standardize(pixels, axis=2, epsilon=1e-6) if normalize else pixels
