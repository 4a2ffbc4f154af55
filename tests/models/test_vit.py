"""The Vision Transformer: options, positions against references, and training's bits."""

import dataclasses
import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcurate.checks import InputError
from jaxcurate.models import ViT, ViTArchitecture, ViTConfig
from jaxcurate.models.positions import bicubic, resize_table, rotate, rotations, sine_cosine
from jaxcurate.models.vit import patches

SMALL = ViTConfig(image_size=8, patch_size=4, width=8, depth=1, n_heads=2)
FULL = ViTArchitecture(
    **vars(SMALL),
    any_size=True,
    class_token=True,
    n_registers=2,
    mask_token=True,
    positions="learned",
    activation="silu",
    gated=True,
    qkv_bias="no_key",
    layer_scale=0.5,
    drop_path=0.5,
    pooling="class_mean",
    projection=5,
)


def images(n: int = 2, height: int = 8, width: int = 8) -> jax.Array:
    x = np.random.default_rng(0).normal(size=(n, height, width, 3))
    return jnp.asarray(x, jnp.float32)


def randomized(model: ViT) -> ViT:
    """Returns the model with parameters that all matter."""
    rng = np.random.default_rng(0)
    state = jax.tree.map(
        lambda p: p + jnp.asarray(0.3 * rng.normal(size=p.shape), p.dtype), nnx.state(model)
    )
    nnx.update(model, state)
    return model


def test_the_names_of_training_s_parameters_stay():
    state = nnx.state(nnx.eval_shape(lambda: ViT(SMALL, rngs=nnx.Rngs(0))))
    names = {".".join(map(str, path)) for path, _ in nnx.to_flat_state(state)}
    layers = [f"{norm}.{leaf}" for norm in ("norm_1", "norm_2") for leaf in ("scale", "bias")]
    for layer in ("qkv", "out", "up", "down"):
        layers += [f"{layer}.kernel", f"{layer}.bias"]
    outer = {"embed.kernel", "embed.bias", "norm.scale", "norm.bias"}
    assert names == outer | {f"blocks.0.{name}" for name in layers}


def test_training_keeps_its_initial_weights():
    state = nnx.state(ViT(SMALL, rngs=nnx.Rngs(0)))
    content = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state))
    # Of the model before it knew any published layout.
    assert hashlib.sha256(content).hexdigest()[:16] == "55b4f6a1ffb6b4ad"


def as_before(model: ViT, x: jax.Array) -> jax.Array:
    """Features by the operations of the model before it knew any published layout."""
    c, n_tokens = model.config, 4
    tokens = model.embed(patches(x, c.patch_size))
    tokens = tokens + jnp.tile(jnp.asarray(sine_cosine(2, 2, c.width)), (len(x), 1))
    for block in model.blocks:
        qkv = block.qkv(block.norm_1(tokens)).reshape(-1, n_tokens, 3, c.n_heads, block.head)
        q, k, v = jnp.moveaxis(qkv, 2, 0)
        score = jnp.einsum("bqhd,bkhd->bhqk", q, k, precision="highest")
        weight = nnx.softmax(score / np.sqrt(block.head), axis=-1)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weight, v, precision="highest")
        tokens = tokens + block.out(mixed.reshape(tokens.shape))
        tokens = tokens + block.down(nnx.gelu(block.up(block.norm_2(tokens))))
    return jnp.mean(model.norm(tokens).reshape(-1, n_tokens, c.width), axis=1)


def test_training_keeps_its_bits():
    model = randomized(ViT(dataclasses.replace(SMALL, depth=2), rngs=nnx.Rngs(0)))
    graph, state = nnx.split(model)

    def run(forward):
        loss = lambda state: jnp.sum(forward(nnx.merge(graph, state), images(16)) ** 3)
        return jax.jit(jax.value_and_grad(loss))(state)

    now, before = run(lambda model, x: model(x)), run(as_before)
    jax.tree.map(np.testing.assert_array_equal, now, before)


def features(model: ViT, *arguments: jax.Array) -> jax.Array:
    """Returns features by a compiled call, which is quicker than one operation at a time."""
    graph, state = nnx.split(model)
    return _features(graph, state, *arguments)


@functools.partial(jax.jit, static_argnums=0)
def _features(graph, state, *arguments):
    return nnx.merge(graph, state)(*arguments)


def plain_forward(model: ViT, x: jax.Array) -> jax.Array:
    """Features of the model of training, written in the plainest way: heads after tokens."""
    p = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model)))
    b, grid = len(x), 2

    def norm(x, q):
        mean = x.mean(-1, keepdims=True)
        return (x - mean) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * q["scale"] + q["bias"]

    def apply(x, q):
        return x @ np.asarray(q["kernel"], np.float64) + np.asarray(q["bias"], np.float64)

    pixels = np.asarray(x, np.float64).reshape(b, grid, 4, grid, 4, 3).transpose(0, 1, 3, 2, 4, 5)
    tokens = apply(pixels.reshape(b, grid * grid, -1), p["embed"]) + sine_cosine(grid, grid, 8)
    for block in p["blocks"].values():
        qkv = apply(norm(tokens, block["norm_1"]), block["qkv"]).reshape(b, -1, 3, 2, 4)
        q, k, v = np.moveaxis(qkv, 2, 0)
        score = np.einsum("bqhd,bkhd->bhqk", q, k) / 2
        weight = np.exp(score) / np.exp(score).sum(-1, keepdims=True)
        mixed = np.einsum("bhqk,bkhd->bqhd", weight, v).reshape(tokens.shape)
        tokens = tokens + apply(mixed, block["out"])
        hidden = apply(norm(tokens, block["norm_2"]), block["up"])
        hidden = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
        tokens = tokens + apply(hidden, block["down"])
    return norm(tokens, p["norm"]).mean(1)


@pytest.mark.parametrize("heads_first", [False, True])
def test_features_are_those_of_plain_float64(heads_first):
    config = ViTArchitecture(**vars(SMALL), heads_first=heads_first)
    model = randomized(ViT(config, rngs=nnx.Rngs(0)))
    np.testing.assert_allclose(features(model, images()), plain_forward(model, images()), atol=1e-5)


def test_a_mask_hides_pixels_and_nothing_else():
    model = randomized(ViT(FULL, rngs=nnx.Rngs(0)))
    x = images()
    other = x.at[:, :4, :4].set(0)  # the pixels of the first patch
    mask = jnp.zeros((2, 4), bool).at[:, 0].set(True)
    np.testing.assert_array_equal(features(model, x, mask), features(model, other, mask))
    plain = features(model, x)
    assert np.abs(plain - features(model, other)).max() > 1e-3
    assert np.abs(plain - features(model, x, mask)).max() > 1e-3
    with pytest.raises(InputError, match="mask has shape"):
        model(x, mask[:, :3])
    with pytest.raises(InputError, match="no mask token"):
        ViT(SMALL, rngs=nnx.Rngs(0))(x, mask)


def test_every_parameter_has_a_gradient():
    model = randomized(ViT(FULL, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(model)
    mask = jnp.zeros((2, 4), bool).at[:, 1].set(True)

    def loss(state):
        return jnp.sum(nnx.merge(graph, state)(images(), mask) ** 2)

    for path, gradient in nnx.to_flat_state(jax.jit(jax.grad(loss))(state)):
        assert np.abs(gradient[...]).max() > 0, path


def test_skipped_halves_need_a_key_and_keep_the_mean():
    config = dataclasses.replace(FULL, depth=2, drop_path=0.5)
    model = randomized(ViT(config, rngs=nnx.Rngs(0)))
    x = images()
    graph, state = nnx.split(model)
    run = jax.jit(lambda key: nnx.merge(graph, state)(x, key=key))
    results = np.stack([run(jax.random.key(i)) for i in range(8)])
    assert np.ptp(results, axis=0).max() > 1e-2
    first, last = model.blocks
    assert (first.drop_path, last.drop_path) == (0.0, 0.5)
    tokens = jnp.ones((3000, 8))
    kept = np.asarray(last._kept(tokens, 3, jax.random.key(0)))
    assert set(np.unique(kept)) == {0.0, 2.0} and abs(kept.mean() - 1) < 0.1
    assert np.ptp(kept.reshape(-1, 24), axis=1).max() == 0  # an image as a whole


@pytest.mark.parametrize(("height", "width"), [(8, 8), (12, 8), (4, 20), (9, 11)])
@pytest.mark.parametrize("positions", ["learned", "sine_cosine", "rotary"])
def test_images_of_any_size_are_taken(positions, height, width):
    config = dataclasses.replace(FULL, positions=positions)
    model = nnx.eval_shape(lambda: ViT(config, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(model)
    tokens = jax.eval_shape(
        lambda state, x: nnx.merge(graph, state).tokens(x), state, images(2, height, width)
    )
    assert tokens.first.shape == (2, 3, 8)
    assert tokens.patches.shape == (2, (height // 4) * (width // 4), 8)


def test_images_without_a_patch_are_refused():
    model = ViT(FULL, rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match="patch_size=4"):
        model(jnp.zeros((1, 3, 8, 3)))
    with pytest.raises(InputError, match="patch_size=4"):
        model(jnp.zeros((1, 8, 8, 1)))


def test_antialiased_bicubic_is_that_of_jax():
    rng = np.random.default_rng(0)
    for n_in, n_out in ((7, 12), (12, 7), (37, 16), (5, 5)):
        x = rng.normal(size=(n_in, 3)).astype(np.float32)
        expected = jax.image.resize(jnp.asarray(x), (n_out, 3), "cubic", antialias=True)
        np.testing.assert_allclose(bicubic(n_in, n_out, antialias=True) @ x, expected, atol=3e-6)


def test_plain_bicubic_repeats_the_border():
    # Recorded from torch 2.13: interpolate(arange(4) ** 2, size, mode="bicubic").
    x = np.arange(4.0) ** 2
    expected = {
        3: [0.09144, 2.125, 8.33449],
        6: [-0.08681, 0.21875, 1.43055, 3.15278, 6.78125, 9.43403],
    }
    for n_out, values in expected.items():
        np.testing.assert_allclose(bicubic(4, n_out, antialias=False) @ x, values, atol=1e-5)


def test_a_table_keeps_its_axes_apart():
    table = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)), jnp.float32)
    down, across = bicubic(2, 3, antialias=False), bicubic(3, 5, antialias=False)
    expected = np.einsum("ij,lk,jkc->ilc", down, across, np.asarray(table).reshape(2, 3, 2))
    resized = resize_table(table, (2, 3), (3, 5), antialias=False)
    np.testing.assert_allclose(resized, expected.reshape(15, 2), atol=1e-6)
    assert resize_table(table, (2, 3), (2, 3), antialias=False) is table


def test_rotated_products_depend_on_the_distance_alone():
    cosine, sine = rotations(4, 4, 8, 100.0, 0)
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(np.tile(rng.normal(size=8), (1, 1, 16, 1)), jnp.float32) for _ in "qk")
    tables = jnp.asarray(cosine)[None, None], jnp.asarray(sine)[None, None]
    product = np.asarray(rotate(q, tables)[0, 0] @ rotate(k, tables)[0, 0].T)
    grid = product.reshape(4, 4, 4, 4)
    np.testing.assert_allclose(grid[0, 0, 1, 2], grid[2, 1, 3, 3], atol=1e-5)
    assert abs(grid[0, 0, 1, 2] - grid[0, 0, 2, 1]) > 1e-3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(pooling="max"), "pooling='max'"),
        (dict(positions="none"), "positions='none'"),
        (dict(class_token=False), "pooling='class_mean' needs class_token=True"),
        (dict(n_registers=-1), "n_registers=-1"),
        (dict(drop_path=1.0), "drop_path=1.0"),
        (dict(mlp_width=0), "mlp_width=0"),
        (dict(norm_epsilon=0.0), "norm_epsilon=0.0"),
        (dict(positions="rotary", n_heads=4), "multiple of 4"),
    ],
)
def test_impossible_architectures_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        dataclasses.replace(FULL, **change)


def test_bfloat16_is_close_to_float32():
    exact = randomized(ViT(FULL, rngs=nnx.Rngs(0)))
    rough = ViT(dataclasses.replace(FULL, precision="bfloat16"), rngs=nnx.Rngs(0))
    nnx.update(rough, nnx.state(exact))
    a, b = features(exact, images()), features(rough, images())
    assert b.dtype == jnp.float32
    cosine = np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)
    assert 0.999 < cosine < 1


@pytest.mark.parametrize("change", [{}, dict(class_token=True, n_registers=2, pooling="class")])
def test_kept_patches_are_encoded_with_their_positions_and_no_others(change):
    config = ViTArchitecture(8, patch_size=2, width=16, depth=1, n_heads=2, **change)
    model = ViT(config, rngs=nnx.Rngs(0))
    images = jax.random.normal(jax.random.key(0), (3, 8, 8, 3))
    whole = model.tokens(images)
    everything = model.tokens(images, keep=jnp.tile(jnp.arange(16)[None], (3, 1)))
    np.testing.assert_allclose(everything.patches, whole.patches, atol=1e-6)
    keep = jnp.array([[3, 0, 7], [15, 1, 2], [8, 9, 4]])
    kept = model.tokens(images, keep=keep)
    assert kept.patches.shape == (3, 3, 16) and kept.first.shape == whole.first.shape
    # The pixels of other patches change nothing, and those of kept patches do.
    is_kept = jnp.zeros((3, 16), bool).at[jnp.arange(3)[:, None], keep].set(True)
    pixels = jnp.repeat(jnp.repeat(is_kept.reshape(3, 4, 4), 2, axis=1), 2, axis=2)[..., None]
    same = model.tokens(jnp.where(pixels, images, 7.0), keep=keep)
    np.testing.assert_array_equal(same.patches, kept.patches)
    other = model.tokens(jnp.where(pixels, 7.0, images), keep=keep)
    assert np.abs(other.patches - kept.patches).max() > 1e-2
    # The order of the patches is that of `keep`.
    turned = model.tokens(images, keep=keep[:, ::-1])
    np.testing.assert_allclose(turned.patches[:, ::-1], kept.patches, atol=1e-5)
    with pytest.raises(ValueError, match="keep of shape"):
        model.tokens(images, keep=keep[:2])
