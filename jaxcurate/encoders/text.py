"""Embeddings of texts by BERT and its like, as sentence-transformers folders describe them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcurate.checks import InputError
from jaxcurate.encoders.base import Batches, EmbedConfig, Encoder, Precision
from jaxcurate.models.bert import BertConfig, Pooling, is_used, pool
from jaxcurate.models.bert_checkpoint import load_bert
from jaxcurate.models.sentence_model import find_minilm, read_sentence_model
from jaxcurate.models.tokenizer import load_tokenizer, n_used
from jaxcurate.runtime.devices import Devices

_SMALLEST_NORM = 1e-12
"""Least length that embeddings are divided by, which keeps a text without tokens free of NaN."""


def make(settings: EmbedConfig, batches: Batches, devices: Devices) -> Encoder:
    """Returns the encoder with the weights in a folder, or those of all-MiniLM-L6-v2.

    Raises:
        InputError: the folder or a package is missing, or the weights cannot be used.
    """
    del batches, devices  # it is fitted to nothing
    if settings.weights is None:
        return load_text_encoder(find_minilm(), settings.precision)
    try:
        return load_text_encoder(Path(settings.weights).expanduser(), settings.precision)
    except InputError as error:
        raise InputError(f"embed.weights={settings.weights!r}: {error}") from error


def load_text_encoder(folder: Path, precision: Precision = "float32") -> Encoder:
    """Loads an encoder of texts from a local sentence-transformers folder.

    Args:
        folder: folder with ``modules.json``, ``sentence_bert_config.json``,
            ``1_Pooling/config.json``, ``tokenizer.json``, ``config.json`` and
            ``model.safetensors``.
        precision: precision of activations and matrix products.

    Returns:
        An encoder whose `prepare` makes token ids of a text, and whose `encode` makes embeddings
        of token ids ``[b, n]``, where ``n`` may be less than the length of the prepared texts if
        :attr:`Encoder.n_used` says that the rest is padding.

    Raises:
        InputError: a file or package is missing, or the files describe another model.
    """
    about = read_sentence_model(folder)
    model = load_bert(about.folder, precision)
    config = model.config
    max_length = config.n_positions if about.max_length is None else about.max_length
    if max_length > config.n_positions:
        raise InputError(
            f"{folder}: max_seq_length={max_length}, but the model has {config.n_positions} "
            "positions"
        )
    tokenize = load_tokenizer(
        about.folder / "tokenizer.json",
        max_length=max_length,
        pad_id=config.pad_id,
        vocab_size=config.vocab_size,
    )
    graph, params = nnx.split(model)
    return Encoder(
        encode=partial(_encode, graph=graph, pooling=about.pooling, normalize=about.normalize),
        params=params,
        prepare=partial(_lower, tokenize) if about.lower_case else tokenize,
        kinds=("text",),
        precisions=("float32", "bfloat16"),
        bytes_per_item=_bytes_per_item(config, max_length),
        n_used=partial(n_used, pad_id=config.pad_id),
    )


def _lower(tokenize: Callable[[str], np.ndarray], text: str) -> np.ndarray:
    return tokenize(text.lower() if isinstance(text, str) else text)


def _encode(
    ids: jax.Array, params: Any, *, graph: nnx.GraphDef, pooling: Pooling, normalize: bool
) -> jax.Array:
    """Returns the embeddings of token ids ``[b, n]``, float32 ``[b, d]``."""
    model = nnx.merge(graph, params)
    embeddings = pool(model(ids), is_used(ids, model.config.pad_id), pooling)
    if not normalize:
        return embeddings
    norm = jnp.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / jnp.maximum(norm, _SMALLEST_NORM)


def _bytes_per_item(config: BertConfig, n: int) -> int:
    """Returns the number of bytes of float32 activations that a text of ``n`` tokens takes."""
    # A layer holds the tokens, their queries, keys and values, and the hidden units before and
    # after the activation; and for each pair of tokens a score and a weight for each head.
    return 4 * n * (5 * config.width + 2 * config.hidden) + 8 * config.n_heads * n**2
