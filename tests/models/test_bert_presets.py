"""Sizes of BERTs: their numbers of parameters are those that were published."""

import math

import jax
import pytest
from flax import nnx

from jaxcurate.models.bert import abstract_bert
from jaxcurate.models.bert_presets import bert_config

PUBLISHED = {"tiny": 4.4, "mini": 11.3, "small": 29.1, "medium": 41.7, "base": 110.1}
"""Millions of parameters (Turc et al. 2019, table 1), with the pooler, which ours does not have."""


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_are_as_many_as_published(size):
    config = bert_config(size)
    counted = sum(math.prod(p.shape) for p in jax.tree.leaves(nnx.state(abstract_bert(config))))
    pooler = config.width * (config.width + 1)
    assert (counted + pooler) / 1e6 == pytest.approx(PUBLISHED[size], abs=0.7)
    if size == "base":
        assert counted + pooler == 109_482_240  # of bert-base-uncased


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="size='huge'"):
        bert_config("huge")
