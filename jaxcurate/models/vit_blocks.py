"""Layers of Vision Transformers: attention and MLPs, each with a skip connection, and pooling."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcurate.models.attention import attend, is_fused
from jaxcurate.models.positions import Rotation, rotate
from jaxcurate.models.vit_config import Precision, ViTArchitecture


def exact_gelu(x: jax.Array) -> jax.Array:
    """Returns the exact GELU, by the error function, as PyTorch computes it.

    ``jax.nn.gelu`` uses the complementary error function, which takes longer on a CPU.

    Examples:
        >>> round(exact_gelu(jnp.array(1.0)).item(), 4)
        0.8413
    """
    return 0.5 * x * (1 + jax.lax.erf(x * np.sqrt(0.5).astype(x.dtype)))


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": exact_gelu,
    "gelu_tanh": nnx.gelu,
    "quick_gelu": lambda x: x * nnx.sigmoid(1.702 * x),
    "silu": nnx.silu,
}
"""Nonlinearities by their names in a configuration."""


def exactness(precision: Precision) -> str | None:
    """Returns the precision of matrix products to request from XLA.

    Examples:
        >>> exactness("float32")
        'highest'
    """
    return "highest" if precision == "float32" else None


def linear(
    n_in: int, n_out: int, precision: Precision, *, rngs: nnx.Rngs, use_bias: bool = True
) -> nnx.Linear:
    """Returns a linear layer of the given precision with Glorot-uniform weights in float32."""
    return nnx.Linear(
        n_in,
        n_out,
        use_bias=use_bias,
        dtype=jnp.dtype(precision),
        precision=exactness(precision),
        kernel_init=nnx.initializers.xavier_uniform(),
        rngs=rngs,
    )


def layer_norm(
    config: ViTArchitecture, *, rngs: nnx.Rngs, dtype: str | None = None
) -> nnx.LayerNorm:
    """Returns a LayerNorm over the features of a token, by default in float32."""
    kind = None if dtype is None else jnp.dtype(dtype)
    return nnx.LayerNorm(config.width, epsilon=config.norm_epsilon, dtype=kind, rngs=rngs)


def token(n: int, width: int, *, rngs: nnx.Rngs) -> nnx.Param:
    """Returns ``n`` learned tokens, float32 ``[n, width]``, small at first."""
    return nnx.Param(nnx.initializers.truncated_normal(0.02)(rngs.params(), (n, width)))


class Block(nnx.Module):
    """Attention and an MLP, each after a LayerNorm and with a skip connection.

    Args:
        config: the shape and precision of the model.
        drop_path: probability in training that an image skips a half of the block.
        rngs: the source of the initial weights.
    """

    def __init__(self, config: ViTArchitecture, drop_path: float = 0.0, *, rngs: nnx.Rngs) -> None:
        width, precision = config.width, config.precision
        self.n_heads = config.n_heads
        self.head = width // config.n_heads
        self.precision: Precision = precision
        self.drop_path = drop_path
        self.heads_first = config.heads_first
        self.activation = config.activation
        self.gated = config.gated
        self.norm_1 = layer_norm(config, dtype=precision, rngs=rngs)
        # The parameters of queries, keys and values are side by side, which is one product.
        all_biased = config.qkv_bias == "all"
        self.qkv = linear(width, 3 * width, precision, rngs=rngs, use_bias=all_biased)
        biased = config.qkv_bias == "no_key"
        self.qv_bias = nnx.Param(jnp.zeros(2 * width)) if biased else None
        self.out = linear(width, width, precision, rngs=rngs)
        self.norm_2 = layer_norm(config, dtype=precision, rngs=rngs)
        n_up = config.n_hidden * (2 if config.gated else 1)  # gates come first
        self.up = linear(width, n_up, precision, rngs=rngs)
        self.down = linear(config.n_hidden, width, precision, rngs=rngs)
        scale = config.layer_scale
        self.scale_1 = None if scale is None else nnx.Param(jnp.full(width, scale))
        self.scale_2 = None if scale is None else nnx.Param(jnp.full(width, scale))

    def __call__(
        self,
        x: jax.Array,
        n_tokens: int,
        rotation: Rotation | None = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """Maps tokens ``[b * n_tokens, width]`` to tokens of the same shape.

        The images of a batch are concatenated, because on a CPU products of plain matrices and
        their gradients take a third of the time of batched products.

        Args:
            x: tokens of all images.
            n_tokens: number of tokens of an image.
            rotation: cosines and sines of rotary positions; None for no rotations.
            key: a PRNG key in training, for skipped halves; None skips nothing.
        """
        keys = (None, None) if key is None else jax.random.split(key)
        mixed = self.out(self._attention(self.norm_1(x), n_tokens, rotation))
        x = x + self._kept(self._scaled(mixed, self.scale_1), n_tokens, keys[0])
        mapped = self.down(self._hidden(self.norm_2(x)))
        return x + self._kept(self._scaled(mapped, self.scale_2), n_tokens, keys[1])

    def _attention(self, x: jax.Array, n_tokens: int, rotation: Rotation | None) -> jax.Array:
        qkv = self.qkv(x)
        if self.qv_bias is not None:
            query, value = jnp.split(self.qv_bias[...], 2)
            bias = jnp.concatenate([query, jnp.zeros_like(query), value])
            qkv = qkv + bias[None].astype(qkv.dtype)
        qkv = qkv.reshape(-1, n_tokens, 3, self.n_heads, self.head)
        mixed = attend(
            qkv,
            heads_first=self.heads_first,
            fused=is_fused(self.precision, self.head),
            precision=exactness(self.precision),
            rotation=None if rotation is None else partial(rotate, rotation=rotation),
        )
        return mixed.reshape(x.shape)

    def _hidden(self, x: jax.Array) -> jax.Array:
        activate = ACTIVATIONS[self.activation]
        if not self.gated:
            return activate(self.up(x))
        gate, hidden = jnp.split(self.up(x), 2, axis=-1)
        return activate(gate) * hidden

    def _scaled(self, x: jax.Array, scale: nnx.Param | None) -> jax.Array:
        return x if scale is None else x * scale[...][None].astype(x.dtype)

    def _kept(self, x: jax.Array, n_tokens: int, key: jax.Array | None) -> jax.Array:
        """Returns zeros for a random part of the images, and more of the others to make up."""
        if key is None or self.drop_path == 0:
            return x
        kept = jax.random.bernoulli(key, 1 - self.drop_path, (len(x) // n_tokens,))
        factor = jnp.repeat(kept, n_tokens)[:, None] / (1 - self.drop_path)
        return x * factor.astype(x.dtype)


class AttentionPool(nnx.Module):
    """Attention of one learned query to all tokens, and an MLP with a skip connection.

    References:
        Lee et al.: Set Transformer (2019), https://arxiv.org/abs/1810.00825, section 3.2.
        Zhai et al.: Scaling vision transformers (2022), https://arxiv.org/abs/2106.04560.
    """

    def __init__(self, config: ViTArchitecture, *, rngs: nnx.Rngs) -> None:
        width, precision = config.width, config.precision
        self.n_heads = config.n_heads
        self.precision: Precision = precision
        self.activation = config.activation
        self.query = token(1, width, rngs=rngs)
        self.qkv = linear(width, 3 * width, precision, rngs=rngs)
        self.out = linear(width, width, precision, rngs=rngs)
        self.norm = layer_norm(config, dtype=precision, rngs=rngs)
        self.up = linear(width, config.n_hidden, precision, rngs=rngs)
        self.down = linear(config.n_hidden, width, precision, rngs=rngs)

    def __call__(self, x: jax.Array, n_tokens: int) -> jax.Array:
        """Maps tokens ``[b * n_tokens, width]`` to vectors ``[b, width]``."""
        width = x.shape[-1]
        precision = exactness(self.precision)
        bias = self.qkv.bias
        assert bias is not None  # `linear` gave it one
        # The projection of the query is the same for all images.
        kernels = jnp.split(self.qkv.kernel[...].astype(x.dtype), (width,), axis=1)
        biases = jnp.split(bias[...].astype(x.dtype), (width,))
        query = jnp.dot(self.query[...].astype(x.dtype), kernels[0], precision=precision)
        query = (query + biases[0][None]).reshape(self.n_heads, -1)
        both = jnp.dot(x, kernels[1], precision=precision) + biases[1][None]
        both = both.reshape(-1, n_tokens, 2, *query.shape)
        k, v = both.transpose(2, 0, 3, 1, 4)
        score = jnp.einsum("hd,bhkd->bhk", query, k, precision=precision)
        weight = nnx.softmax(score.astype(jnp.float32) / np.sqrt(query.shape[1]), axis=-1)
        mixed = jnp.einsum("bhk,bhkd->bhd", weight.astype(v.dtype), v, precision=precision)
        pooled = self.out(mixed.reshape(-1, width))
        return pooled + self.down(ACTIVATIONS[self.activation](self.up(self.norm(pooled))))
