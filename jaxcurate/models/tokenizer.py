"""Tokenizers from a published tokenizer.json: from a text to token ids of a fixed length."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxcurate.checks import InputError, short_repr

Tokenize = Callable[[str], np.ndarray]
"""Function from a text to token ids, int32 ``[max_length]``."""


def load_tokenizer(path: Path, *, max_length: int, pad_id: int, vocab_size: int) -> Tokenize:
    """Loads a tokenizer from its ``tokenizer.json``.

    Truncation and padding are those of the arguments, in the place of those that the file states.

    Args:
        path: the file.
        max_length: number of tokens that a text is cut to, with the special ones at its ends.
        pad_id: token id that fills the places after the end of a text.
        vocab_size: number of tokens that the model knows.

    Returns:
        A function of a text, which threads may share. It raises :class:`InputError` for anything
        but a text, and for a text that is no valid Unicode.

    Raises:
        InputError: the package ``tokenizers`` is not installed, or the file is missing or damaged,
            or has tokens that the model does not know.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise InputError(
            "texts need the package tokenizers: pip install 'jaxcurate[text]'"
        ) from error
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises no narrower type
        reason = str(error).split("\n")[0]
        raise InputError(f"{path}: is no tokenizer ({reason})") from error
    if (size := tokenizer.get_vocab_size()) > vocab_size:
        raise InputError(f"{path}: has {size} tokens, but the model knows {vocab_size}")
    if (least := tokenizer.num_special_tokens_to_add(is_pair=False)) >= max_length:
        raise InputError(
            f"{path}: adds {least} tokens to each text, so that max_length={max_length} is too "
            "small"
        )
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)

    def tokenize(text: str) -> np.ndarray:
        if not isinstance(text, str):
            raise InputError(f"an item must be a text, not {short_repr(text)}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = ord(text[error.start])
            raise InputError(
                f"text is no valid Unicode: half a surrogate pair, U+{code:04X}, "
                f"at character {error.start}"
            ) from error
        ids = np.full(max_length, pad_id, np.int32)
        found = tokenizer.encode(text).ids
        ids[: len(found)] = found
        return ids

    return tokenize


def n_used(ids: np.ndarray, pad_id: int) -> np.ndarray:
    """Returns the number of leading places that each text takes, int64 ``[b]``.

    Args:
        ids: token ids, int ``[b, n]``.
        pad_id: token id that fills the places after the end of a text.

    Examples:
        >>> n_used(np.array([[5, 0, 7, 0], [0, 0, 0, 0]]), pad_id=0)
        array([3, 0])
    """
    places = np.arange(1, ids.shape[1] + 1)
    return np.where(ids != pad_id, places[None], 0).max(axis=1, initial=0)
