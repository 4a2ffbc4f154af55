"""Sizes of Vision Transformers: their numbers of parameters are those that were published."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcurate.models import ViT, ViTArchitecture
from jaxcurate.models.bert import Bert, BertConfig
from jaxcurate.models.presets import vit_config

# Without the classifier, which self-supervised training does not have.
PUBLISHED = {
    ("Ti", 16, 224): 5_717_416 - 193_000,
    ("S", 16, 224): 22_050_664 - 385_000,
    ("B", 16, 224): 86_567_656 - 769_000,
    ("L", 16, 224): 304_326_632 - 1_025_000,
    ("H", 14, 224): 632_045_800 - 1_281_000,
}
"""Numbers of parameters of the released classifiers of 1000 classes, without their last layer."""


def n_parameters(config):
    model = nnx.eval_shape(lambda: ViT(config, rngs=nnx.Rngs(0)))
    return sum(math.prod(p.shape) for p in jax.tree.leaves(nnx.state(model)))


@pytest.mark.parametrize("shape", PUBLISHED)
def test_parameters_are_as_many_as_published(shape):
    size, patch_size, image_size = shape
    config = vit_config(size, patch_size=patch_size, image_size=image_size)
    assert n_parameters(config) == PUBLISHED[shape]


@pytest.mark.parametrize("size, published", [("S", 22_056_576), ("B", 86_580_480)])
def test_dinov2_has_as_many_parameters_as_published(size, published):
    config = vit_config(size, patch_size=14, image_size=518, layer_scale=1.0, mask_token=True)
    assert n_parameters(config) == published
    config = dataclasses.replace(config, n_registers=4)
    assert n_parameters(config) == published + 4 * config.width


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="size='XS'"):
        vit_config("XS")


def test_rematerialization_changes_no_gradient():
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    found = []
    for remat in (False, True):
        config = ViTArchitecture(8, 4, 16, 2, 2, remat=remat, drop_path=0.5)
        graph, params = nnx.split(ViT(config, rngs=nnx.Rngs(0)))

        def loss(params, graph=graph):
            return jnp.sum(nnx.merge(graph, params)(images, key=jax.random.key(1)) ** 2)

        text = str(jax.make_jaxpr(jax.grad(loss))(params))
        assert ("remat" in text or "checkpoint" in text) == remat
        found.append(jax.jit(jax.value_and_grad(loss))(params))
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "change, published",
    [
        # Released with a pooler, a square matrix and a bias, which masked language modeling and
        # sentence embeddings do without.
        ({}, 22_713_216 - 384 * 385),  # MiniLM-L6
        (dict(width=128, depth=2, n_heads=2, hidden=512), 4_385_920 - 128 * 129),  # BERT-tiny
        (dict(width=768, depth=12, hidden=3072), 109_482_240 - 768 * 769),  # BERT-base
    ],
)
def test_bert_has_as_many_parameters_as_published(change, published):
    model = nnx.eval_shape(lambda: Bert(BertConfig(**change), rngs=nnx.Rngs(0)))
    assert sum(math.prod(p.shape) for p in jax.tree.leaves(nnx.state(model))) == published
