"""A tokenizer that is trained on texts: the same each time, and usable as published ones are."""

import numpy as np
import pytest

from jaxcurate.checks import InputError
from jaxcurate.models.tokenizer import N_SPECIAL, SPECIAL, load_tokenizer, train_tokenizer

pytest.importorskip("tokenizers")
WORDS = ["curate", "curated", "cluster", "clusters", "sample", "samples", "level", "of", "the"]


def texts(seed=0, n=300):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(3, 9))) for _ in range(n)]


def test_the_same_texts_give_the_same_tokenizer():
    made = {train_tokenizer(iter(texts()), vocab_size=200) for _ in range(8)}
    assert len(made) == 1


def test_words_become_tokens_between_special_ones(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(train_tokenizer(texts(), vocab_size=300))
    tokenize = load_tokenizer(path, max_length=8, pad_id=0, vocab_size=300)
    ids = tokenize("The clusters of LEVEL")
    assert ids[0] == SPECIAL["[CLS]"] and ids[5] == SPECIAL["[SEP]"] and not ids[6:].any()
    assert (ids[1:5] >= N_SPECIAL).all()
    np.testing.assert_array_equal(ids, tokenize("the CLUSTERS of level"))
    assert SPECIAL["[UNK]"] in tokenize("\u6f22 the")
    assert len(tokenize("the " * 50)) == 8  # cut


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(InputError, match="vocab_size=106"):
        train_tokenizer(texts(), vocab_size=106)


def test_a_file_that_is_no_text_is_told_in_one_line(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"tokenizer\.json: is no tokenizer"):
        load_tokenizer(path, max_length=8, pad_id=0, vocab_size=300)
