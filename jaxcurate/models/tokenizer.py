"""Tokenizers, published or trained on a pool: from a text to token ids of a fixed length."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

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
    _package()
    return tokenizer_of(
        read_tokenizer(path), str(path), max_length=max_length, pad_id=pad_id, vocab_size=vocab_size
    )


def read_tokenizer(path: Path) -> str:
    """Returns the content of a ``tokenizer.json``.

    Raises:
        InputError: the file is missing, or is no text.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no tokenizer (it is no text in UTF-8)") from error


def tokenizer_of(
    content: str, name: str, *, max_length: int, pad_id: int, vocab_size: int
) -> Tokenize:
    """Returns a tokenizer from the content of a ``tokenizer.json``.

    Args:
        content: content of the file.
        name: name of the file, for errors.
        max_length: number of tokens that a text is cut to, with the special ones at its ends.
        pad_id: token id that fills the places after the end of a text.
        vocab_size: number of tokens that the model knows.

    Returns:
        A function of a text, as that of :func:`load_tokenizer`.

    Raises:
        InputError: the package ``tokenizers`` is not installed, or the content is damaged, or has
            tokens that the model does not know.
    """
    package = _package()
    try:
        tokenizer = package.Tokenizer.from_str(content)
    except Exception as error:  # the package raises no narrower type
        reason = str(error).split("\n")[0]
        raise InputError(f"{name}: is no tokenizer ({reason})") from error
    if (size := tokenizer.get_vocab_size()) > vocab_size:
        raise InputError(f"{name}: has {size} tokens, but the model knows {vocab_size}")
    if (least := tokenizer.num_special_tokens_to_add(is_pair=False)) >= max_length:
        raise InputError(
            f"{name}: adds {least} tokens to each text, so that max_length={max_length} is too "
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


SPECIAL = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
"""Ids of special tokens of a tokenizer that is trained here, those of BERT."""
N_SPECIAL = 106
"""Number of ids, from 0, of special and unused tokens of a tokenizer that is trained here."""


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> str:
    """Trains a tokenizer on texts by byte pair encoding.

    Texts are put into lower case and split at spaces and punctuation. The ids of special tokens are
    those of BERT. The same texts give the same tokenizer, which the package's WordPiece does not.

    Args:
        texts: texts to train on, each read once.
        vocab_size: number of tokens, special and unused ones included. There are fewer if the
            texts have too few words.

    Returns:
        The content of a ``tokenizer.json``, for :func:`tokenizer_of`.

    Raises:
        InputError: the package ``tokenizers`` is not installed, or ``vocab_size`` is too small.

    References:
        Sennrich, Haddow, Birch: Neural machine translation of rare words with subword units (2016),
        https://arxiv.org/abs/1508.07909.

    Examples:
        >>> content = train_tokenizer(["a cat", "a dog", "cats"] * 9, vocab_size=120)
        >>> tokenize = tokenizer_of(content, "pets", max_length=5, pad_id=0, vocab_size=120)
        >>> ids = tokenize("a cat").tolist()
        >>> ids[0], ids[-2:]  # [CLS], [SEP] and padding
        (101, [102, 0])
    """
    package = _package()
    if vocab_size <= N_SPECIAL:
        raise InputError(f"vocab_size={vocab_size} must be above {N_SPECIAL}, for special tokens")
    names = {place: name for name, place in SPECIAL.items()}
    special = [names.get(place, f"[unused{place}]") for place in range(N_SPECIAL)]
    tokenizer = package.Tokenizer(package.models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = package.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = package.pre_tokenizers.BertPreTokenizer()
    trainer = package.trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(name, SPECIAL[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = package.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return tokenizer.to_str()


def _package() -> Any:
    """Returns the package ``tokenizers``.

    Raises:
        InputError: it is not installed.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise InputError(
            "texts need the package tokenizers: pip install 'jaxcurate[text]'"
        ) from error
    return tokenizers


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
