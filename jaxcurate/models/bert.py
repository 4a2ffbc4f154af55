"""BERT in Flax NNX: an encoder of token ids, with a LayerNorm after each residual connection."""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcurate.checks import InputError, check_choice

Precision = Literal["float32", "bfloat16"]
"""Name of the precision of activations and matrix products."""
Pooling = Literal["mean", "cls"]
"""Name of a way to make one vector of the tokens of a text."""

ACTIVATIONS = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}
"""Activation functions by their names in published ``config.json`` files."""


@dataclass(frozen=True)
class BertConfig:
    """Shape and precision of a :class:`Bert`.

    Raises:
        InputError: naming the field that cannot be used.

    Examples:
        >>> BertConfig(width=384, n_heads=7)
        Traceback (most recent call last):
        jaxcurate.checks.InputError: n_heads=7 does not divide width=384
    """

    vocab_size: int = 30522
    """Number of different tokens."""
    n_positions: int = 512
    """Largest number of tokens in a text."""
    n_types: int = 2
    """Number of token types; a text on its own is of type 0 throughout."""
    width: int = 384
    """Number of features of a token, and of the output."""
    depth: int = 6
    """Number of transformer layers."""
    n_heads: int = 12
    """Number of attention heads; divides `width`."""
    hidden: int = 1536
    """Number of hidden units in the MLP of a layer."""
    activation: str = field(default="gelu", metadata={"known": ACTIVATIONS})
    """Name of the activation function of the MLP."""
    epsilon: float = 1e-12
    """Number that LayerNorm adds to the variance."""
    pad_id: int = 0
    """Token id that fills the places after the end of a text."""
    precision: Precision = "float32"
    """Precision of activations and matrix products. Weights are float32 either way, and `float32`
    asks the accelerator for full float32 products."""

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "n_positions", "n_types", "width", "depth", "n_heads", "hidden")
        for name in sizes:
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1")
        if self.width % self.n_heads:
            raise InputError(f"n_heads={self.n_heads} does not divide width={self.width}")
        if not 0 <= self.pad_id < self.vocab_size:
            raise InputError(f"pad_id={self.pad_id} must be within [0, {self.vocab_size})")
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("precision", self.precision, get_args(Precision))


class BertLayer(nnx.Module):
    """Self-attention and an MLP, each with a residual connection and a LayerNorm after it."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        width, self.n_heads = config.width, config.n_heads
        self.precision: Precision = config.precision
        self.activation = config.activation
        self.qkv = _linear(width, 3 * width, config, rngs)
        self.out = _linear(width, width, config, rngs)
        self.norm_1 = _norm(config, rngs)
        self.up = _linear(width, config.hidden, config, rngs)
        self.down = _linear(config.hidden, width, config, rngs)
        self.norm_2 = _norm(config, rngs)

    def __call__(self, x: jax.Array, used: jax.Array) -> jax.Array:
        """Maps tokens ``[b * n, width]`` to tokens of the same shape.

        The tokens of a batch are concatenated, and heads come first in attention, because
        products of plain matrices are the fastest on a CPU.

        Args:
            x: the tokens of ``b`` texts, one text after the other.
            used: bool ``[b, n]``, False for padding, to which no token attends.
        """
        b, n = used.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.n_heads, -1)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)
        product = partial(jnp.einsum, precision=_exactness(self.precision))
        scores = product("bhqd,bhkd->bhqk", q, k).astype(jnp.float32) / np.sqrt(q.shape[-1])
        # A finite number keeps rows that are all padding free of NaN.
        least = jnp.finfo(jnp.float32).min
        weights = nnx.softmax(jnp.where(used[:, None, None, :], scores, least), axis=-1)
        mixed = product("bhqk,bhkd->bhqd", weights.astype(v.dtype), v)
        x = self.norm_1(x + self.out(mixed.transpose(0, 2, 1, 3).reshape(x.shape)))
        return self.norm_2(x + self.down(ACTIVATIONS[self.activation](self.up(x))))


class Bert(nnx.Module):
    """BERT without the layers of its pretraining tasks.

    Args:
        config: the shape and precision of the model.
        rngs: the source of the initial weights.

    References:
        Devlin et al.: BERT: Pre-training of deep bidirectional transformers for language
        understanding (2019), https://arxiv.org/abs/1810.04805.

    Examples:
        >>> config = BertConfig(vocab_size=100, width=8, depth=1, n_heads=2, hidden=16)
        >>> def tokens(ids):
        ...     return Bert(config, rngs=nnx.Rngs(0))(ids)
        >>> nnx.eval_shape(tokens, jnp.zeros((2, 5), jnp.int32)).shape  # computes nothing
        (2, 5, 8)
    """

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.words = nnx.Embed(config.vocab_size, config.width, rngs=rngs)
        self.positions = nnx.Embed(config.n_positions, config.width, rngs=rngs)
        self.types = nnx.Embed(config.n_types, config.width, rngs=rngs)
        self.norm = _norm(config, rngs)
        self.layers = nnx.List([BertLayer(config, rngs=rngs) for _ in range(config.depth)])

    def __call__(self, ids: jax.Array) -> jax.Array:
        """Maps token ids, int ``[b, n]``, to float32 tokens ``[b, n, width]``.

        The tokens of a text do not depend on the amount of padding after it.

        Raises:
            InputError: there are more tokens than positions.
        """
        b, n = ids.shape
        if n > self.config.n_positions:
            raise InputError(f"{n} tokens in a text, but n_positions={self.config.n_positions}")
        # All texts are of type 0.
        place = self.positions.embedding[:n] + self.types.embedding[:1]
        x = self.words(ids) + place[None]
        x = self.norm(x.reshape(b * n, -1)).astype(self.config.precision)
        used = is_used(ids, self.config.pad_id)
        for layer in self.layers:
            x = layer(x, used)
        return x.astype(jnp.float32).reshape(b, n, -1)


def is_used(ids: jax.Array, pad_id: int) -> jax.Array:
    """Returns which places belong to a text, bool ``[b, n]``.

    A text ends with its last token that is not padding, so that a pad token amid a text, which a
    tokenizer makes of a text that says ``[PAD]``, belongs to it.

    Args:
        ids: token ids, int ``[b, n]``.
        pad_id: token id that fills the places after the end of a text.

    Examples:
        >>> print(is_used(jnp.array([[5, 0, 7, 0], [0, 0, 0, 0]]), pad_id=0))
        [[ True  True  True False]
         [False False False False]]
    """
    return jnp.flip(jnp.cumsum(jnp.flip(ids != pad_id, axis=1), axis=1), axis=1) > 0


def pool(tokens: jax.Array, used: jax.Array, pooling: Pooling) -> jax.Array:
    """Returns one vector for each text, ``[b, d]``.

    Args:
        tokens: ``[b, n, d]``.
        used: bool ``[b, n]``, False for padding.
        pooling: "mean" for the mean of the tokens that are used, zero if there are none; "cls"
            for the first token.

    Examples:
        >>> tokens = jnp.array([[[1.0], [3.0], [50.0]]])
        >>> print(pool(tokens, jnp.array([[True, True, False]]), "mean"))
        [[2.]]
    """
    if pooling == "cls":
        return tokens[:, 0]
    total = jnp.sum(jnp.where(used[:, :, None], tokens, 0), axis=1)
    return total / jnp.maximum(jnp.sum(used, axis=1), 1)[:, None]


def abstract_bert(config: BertConfig) -> Bert:
    """Returns the model with shapes in place of weights, which takes no memory.

    Examples:
        >>> abstract_bert(BertConfig()).words.embedding.shape
        (30522, 384)
    """
    return nnx.eval_shape(lambda: Bert(config, rngs=nnx.Rngs(0)))


def _exactness(precision: Precision) -> str | None:
    """Returns the precision of matrix products to request from XLA."""
    return "highest" if precision == "float32" else None


def _linear(n_in: int, n_out: int, config: BertConfig, rngs: nnx.Rngs) -> nnx.Linear:
    """Returns a linear layer with float32 weights."""
    return nnx.Linear(
        n_in,
        n_out,
        dtype=jnp.dtype(config.precision),
        precision=_exactness(config.precision),
        rngs=rngs,
    )


def _norm(config: BertConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Returns a LayerNorm whose variance is the mean square of deviations, as the original's is."""
    return nnx.LayerNorm(
        config.width,
        epsilon=config.epsilon,
        use_fast_variance=False,
        dtype=jnp.dtype(config.precision),
        rngs=rngs,
    )
