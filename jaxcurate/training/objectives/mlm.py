"""Masked language modeling: tokens of a text are told by the tokens around them."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcurate.checks import InputError
from jaxcurate.models.bert import Bert, BertConfig, is_used
from jaxcurate.models.vit_blocks import exact_gelu
from jaxcurate.sources import Kind
from jaxcurate.training.objectives.base import Batch, Objective, Outcome, Variables


@dataclass(frozen=True)
class MLM(Objective):
    """Prediction of masked tokens, which are chosen anew at every step.

    A fraction of the tokens is chosen. Of these, 80 % are replaced by the mask, 10 % by a random
    token, and 10 % stay, so that the encoder has to keep every token in mind.

    Raises:
        InputError: naming the field that cannot be used.

    References:
        Devlin, Chang, Lee, Toutanova: BERT: Pre-training of deep bidirectional transformers for
        language understanding (2019), https://arxiv.org/abs/1810.04805, section 3.1.
        Liu et al.: RoBERTa: A robustly optimized BERT pretraining approach (2019),
        https://arxiv.org/abs/1907.11692, for masks that change from step to step.

    Examples:
        >>> MLM(fraction=0.3).mask_id
        103
    """

    kind: ClassVar[Kind] = "text"

    fraction: float = 0.15
    """Fraction of the tokens of a text to predict."""
    mask_id: int = 103
    """Token id of the mask; 103 in the vocabulary of BERT."""
    n_special: int = 106
    """Number of token ids, from 0, that are no parts of texts: they are never chosen, and never
    drawn as random tokens. A tokenizer that is trained here has 106, the vocabulary of BERT 999."""

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise InputError(f"fraction={self.fraction} must be above 0 and at most 1")
        if not 0 <= self.mask_id < self.n_special:
            raise InputError(f"mask_id={self.mask_id} must be within the {self.n_special} special")

    def network(self, model: BertConfig, *, rngs: nnx.Rngs) -> nnx.Module:
        """Returns an encoder with a head that predicts tokens.

        Raises:
            InputError: the vocabulary has special tokens alone.
        """
        if model.vocab_size <= self.n_special:
            raise InputError(
                f"vocab_size={model.vocab_size} leaves no token beside n_special={self.n_special}"
            )
        return Predicting(model, rngs=rngs)

    def loss(
        self,
        model: BertConfig,
        variables: Variables,
        batch: Batch,
        key: jax.Array,
        done: jax.Array,
    ) -> Outcome:
        """Returns the mean cross entropy of the chosen tokens, in nats."""
        del done
        ids = batch.views[0]
        of_places, of_tokens = jax.random.split(key)
        places, weight = choose(of_places, ids, self.fraction, model.pad_id, self.n_special)
        seen = self.replaced(of_tokens, ids, places, weight, model.vocab_size)
        logits = self.merged(model, variables.params)(seen, places)
        target = jnp.take_along_axis(ids, places, axis=1)
        loss, correct = cross_entropy(logits, target)
        # Every chosen token counts the same, in long texts and in short ones.
        n = jnp.maximum(jnp.sum(weight), 1)
        return Outcome(
            jnp.sum(weight * loss) / n, {"masked_accuracy": jnp.sum(weight * correct) / n}
        )

    def replaced(
        self, key: jax.Array, ids: jax.Array, places: jax.Array, weight: jax.Array, vocab_size: int
    ) -> jax.Array:
        """Returns token ids ``[b, n]`` with most of the chosen ones replaced."""
        kind, token = jax.random.split(key)
        u = jax.random.uniform(kind, places.shape)
        random = jax.random.randint(token, places.shape, self.n_special, vocab_size)
        now = jnp.take_along_axis(ids, places, axis=1)
        new = jnp.where(u < 0.8, self.mask_id, jnp.where(u < 0.9, random, now))
        rows = jnp.arange(len(ids))[:, None]
        # Places of weight 0 lie beyond the end, where a write is dropped.
        where = jnp.where(weight > 0, places, ids.shape[1])
        return ids.at[rows, where].set(new, mode="drop")


def choose(
    key: jax.Array, ids: jax.Array, fraction: float, pad_id: int, n_special: int
) -> tuple[jax.Array, jax.Array]:
    """Returns random places of each text, as many as a fraction of its tokens, at least one.

    All texts have the same number of places, so that shapes are fixed; those that are too many for
    a text have weight 0.

    Args:
        key: a PRNG key.
        ids: token ids, int32 ``[b, n]``.
        fraction: fraction of the tokens to choose.
        pad_id: token id after the end of a text.
        n_special: number of token ids, from 0, that are never chosen.

    Returns:
        Places, int32 ``[b, m]``, distinct in a text, and weights, float32 ``[b, m]``, 1 or 0.

    Examples:
        >>> ids = jnp.array([[1, 9, 8, 7, 6, 2, 0, 0]])
        >>> places, weight = choose(jax.random.key(0), ids, 0.5, pad_id=0, n_special=5)
        >>> places.shape, weight.tolist()
        ((1, 4), [[1.0, 1.0, 0.0, 0.0]])
    """
    b, n = ids.shape
    may = is_used(ids, pad_id) & (ids >= n_special)
    m = max(1, round(fraction * n))
    # The places with the largest of random numbers are a uniform choice without repeats.
    score = jnp.where(may, jax.random.uniform(key, (b, n)), -1.0)
    _, places = jax.lax.top_k(score, m)
    n_may = jnp.sum(may, axis=1)
    n_chosen = jnp.minimum(n_may, jnp.maximum(1, jnp.round(fraction * n_may)))
    return places, (jnp.arange(m)[None] < n_chosen[:, None]).astype(jnp.float32)


def cross_entropy(logits: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the cross entropy of each prediction in nats, and whether its largest logit is right.

    Args:
        logits: float32 ``[b, m, vocab_size]``.
        target: token ids, int32 ``[b, m]``.

    Returns:
        Both float32 ``[b, m]``.

    Examples:
        >>> loss, correct = cross_entropy(jnp.zeros((1, 1, 8)), jnp.array([[3]]))
        >>> round(loss.item(), 3)  # log 8
        2.079
    """
    at_target = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    correct = jnp.argmax(logits, axis=-1) == target
    return jax.nn.logsumexp(logits, axis=-1) - at_target, correct.astype(jnp.float32)


class Predicting(nnx.Module):
    """Encoder of texts with a head that predicts the tokens at some places.

    The output weights are those of the token embeddings.

    Args:
        config: the shape of the encoder.
        rngs: the source of the initial weights.
    """

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        self.encoder = Bert(config, rngs=rngs)
        precision = "highest" if config.precision == "float32" else None
        self.dense = nnx.Linear(
            config.width,
            config.width,
            dtype=jnp.dtype(config.precision),
            precision=precision,
            rngs=rngs,
        )
        self.norm = nnx.LayerNorm(config.width, epsilon=config.epsilon, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(config.vocab_size))

    def __call__(self, ids: jax.Array, places: jax.Array) -> jax.Array:
        """Maps token ids, int32 ``[b, n]``, to float32 logits ``[b, m, vocab_size]``.

        Logits are computed at the places alone, int32 ``[b, m]``, since those of all tokens would
        take most of the memory of a step.
        """
        config = self.encoder.config
        tokens = jnp.take_along_axis(self.encoder(ids), places[..., None], axis=1)
        x = self.norm(exact_gelu(self.dense(tokens.astype(config.precision))).astype(jnp.float32))
        words = self.encoder.words.embedding[...].astype(config.precision)
        precision = "highest" if config.precision == "float32" else None
        logits = jnp.einsum(
            "bmd,vd->bmv",
            x.astype(config.precision),
            words,
            precision=precision,
            preferred_element_type=jnp.float32,
        )
        return logits + self.bias[...][None, None]
