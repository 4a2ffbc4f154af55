"""Attention beside the library's own, in both layouts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcurate.models import ViT, ViTArchitecture, attention
from jaxcurate.models.attention import attend, is_fused


class GPU:
    def __init__(self, compute_capability):
        self.compute_capability = compute_capability


@pytest.fixture
def gpu(monkeypatch):
    """Pretends that the devices are GPUs, whose kernel XLA stands in for."""
    calls = []
    library = jax.nn.dot_product_attention

    def by_xla(q, k, v, *, implementation):
        calls.append((implementation, q.shape, q.dtype))
        return library(q, k, v, implementation="xla")

    monkeypatch.setattr(attention.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(attention.jax, "devices", lambda: [GPU("8.0")])
    monkeypatch.setattr(attention.jax.nn, "dot_product_attention", by_xla)
    return calls


@pytest.mark.parametrize("heads_first", [False, True])
def test_attention_is_that_of_the_library(heads_first):
    qkv = jax.random.normal(jax.random.key(0), (2, 5, 3, 3, 8))
    found = attend(qkv, heads_first=heads_first, fused=False, precision="highest")
    with jax.default_matmul_precision("highest"):
        wanted = jax.nn.dot_product_attention(*jnp.moveaxis(qkv, 2, 0), implementation="xla")
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-6)


def test_the_kernel_is_for_bfloat16_on_recent_gpus(gpu, monkeypatch):
    assert is_fused("bfloat16", 64)
    assert not is_fused("float32", 64)
    assert not is_fused("bfloat16", 12)
    assert not is_fused("bfloat16", 256)
    for capability in ("7.5", "gfx90a", None):
        monkeypatch.setattr(attention.jax, "devices", lambda c=capability: [GPU(c)])
        assert not is_fused("bfloat16", 64)
    monkeypatch.setattr(attention.jax, "default_backend", lambda: "tpu")
    assert not is_fused("bfloat16", 64)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("heads_first", [False, True])
def test_features_stay_with_the_kernel(positions, heads_first, request):
    config = ViTArchitecture(
        *(8, 4, 16, 1, 2, 4, "bfloat16"),
        class_token=True,
        positions=positions,
        heads_first=heads_first,
    )
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    model = ViT(config, rngs=nnx.Rngs(0))
    wanted = model(images)
    calls = request.getfixturevalue("gpu")
    np.testing.assert_allclose(model(images), wanted, rtol=0.05, atol=0.05)
    assert calls == [("cudnn", (2, 5, 2, 8), jnp.bfloat16)]  # tokens first, in either layout
