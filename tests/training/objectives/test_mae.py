"""MAE: masks, the loss, and what pretraining by it makes of an encoder."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from labeled_patterns import accuracies_and_ranks, labeled_textures, settings

from jaxcurate import training
from jaxcurate.checks import InputError
from jaxcurate.models.vit_config import ViTArchitecture
from jaxcurate.training import augment
from jaxcurate.training.objectives import MAE, Batch, Variables
from jaxcurate.training.objectives.mae import random_masks, targets

TINY = ViTArchitecture(image_size=8, patch_size=2, width=16, depth=1, n_heads=2, mlp_ratio=2)
WITH_CLASS = dataclasses.replace(TINY, class_token=True, n_registers=2, pooling="class")
OBJECTIVE = MAE(decoder_width=8)
BEGIN = np.float32(0)
MODELS = pytest.mark.parametrize("model", [TINY, WITH_CLASS], ids=["mean", "class"])


@pytest.fixture(scope="module")
def batch():
    images = jax.random.uniform(jax.random.key(3), (8, 8, 8, 3), minval=-1, maxval=1)
    return Batch((images,), jnp.arange(8))


@pytest.fixture(scope="module")
def variables():
    return jax.jit(lambda key: OBJECTIVE.init(TINY, key))(jax.random.key(0))


@jax.jit
def step(params, batch, key):
    """Outcome of the loss, its gradient, and the gradient by the pixels."""

    def loss(params, images):
        seen = Batch((images,), batch.ids)
        outcome = OBJECTIVE.loss(TINY, Variables(params), seen, key, BEGIN)
        return outcome.loss, outcome

    (_, outcome), gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
        params, batch.views[0]
    )
    return outcome, *gradients


# Masks.


def test_masks_are_two_parts_of_all_patches():
    seen, masked = random_masks(jax.random.key(0), 50, 16, 4)
    assert seen.shape == (50, 4) and masked.shape == (50, 12) and seen.dtype == jnp.int32
    both = np.sort(np.concatenate([seen, masked], axis=1), axis=1)
    np.testing.assert_array_equal(both, np.tile(np.arange(16), (50, 1)))
    other, _ = random_masks(jax.random.key(1), 50, 16, 4)
    assert (np.sort(seen, axis=1) != np.sort(other, axis=1)).any(axis=1).mean() > 0.9


def test_masks_are_uniform():
    seen = np.asarray(random_masks(jax.random.key(2), 30000, 5, 2)[0])
    counts = np.zeros((5, 5))
    np.add.at(counts, (seen[:, 0], seen[:, 1]), 1)
    # All 20 ordered pairs of different patches are as frequent: 1500 each, give or take 38.
    assert (np.diag(counts) == 0).all()
    assert np.abs(counts[~np.eye(5, dtype=bool)] - 1500).max() < 5 * 38


@pytest.mark.parametrize("ratio, expected", [(0.75, 4), (0.5, 8), (0.9, 2), (0.1, 14)])
def test_the_number_of_kept_patches(ratio, expected):
    assert MAE(mask_ratio=ratio).n_kept(TINY) == expected


@pytest.mark.parametrize("ratio", [0.01, 0.99])
def test_masks_of_none_or_all_are_refused(ratio):
    with pytest.raises(InputError, match=f"mask_ratio={ratio} of 16 patches leaves"):
        MAE(mask_ratio=ratio).network(TINY, rngs=nnx.Rngs(0))


# The loss.


@pytest.mark.parametrize("normalize", [True, False])
def test_targets_are_the_pixels_of_masked_patches(batch, normalize):
    images = np.asarray(batch.views[0], np.float64)
    _, masked = random_masks(jax.random.key(0), 8, 16, 4)
    got = targets(batch.views[0], 2, masked, normalize=normalize)
    assert got.shape == (8, 12, 12)
    for i in range(8):
        for j, number in enumerate(np.asarray(masked[i])):
            row, column = 2 * (number // 4), 2 * (number % 4)
            patch = images[i, row : row + 2, column : column + 2].reshape(-1)
            if normalize:
                patch = (patch - patch.mean()) / np.sqrt(patch.var() + 1e-6)
            np.testing.assert_allclose(got[i, j], patch, atol=1e-4)


def test_flat_patches_have_targets_of_zero():
    flat = jnp.full((1, 8, 8, 3), 0.3)
    np.testing.assert_allclose(targets(flat, 2, jnp.arange(16)[None], normalize=True), 0, atol=1e-3)


def drawn_in_place(network, images, seen, masked):
    """Drawings by the decoder of the paper: mask tokens in the places of masked patches."""
    c = network.encoder.config
    tokens = network.encoder.tokens(images, keep=seen)
    place = _sine_cosine(c.grid, 8)
    rows = np.arange(len(images))[:, None]
    full = np.tile(np.asarray(network.mask_token[...]), (len(images), c.grid**2, 1))
    full[rows, np.asarray(seen)] = network.embed(tokens.patches)
    full = np.concatenate([network.embed(tokens.first), full + place[None]], axis=1)
    x, n_tokens = jnp.asarray(full.reshape(-1, 8)), full.shape[1]
    for block in network.blocks:
        x = block(x, n_tokens)
    drawn = network.out(network.norm(x)).reshape(len(images), n_tokens, -1)[:, c.n_prefix :]
    return np.asarray(drawn)[rows, np.asarray(masked)]


def _sine_cosine(grid, width):
    """Positions of patches in float64: sines and cosines of the row, then of the column."""
    frequency = [100.0 ** -(i / (width // 4)) for i in range(width // 4)]
    table = []
    for row in range(grid):
        for column in range(grid):
            table.append(
                [f(a * w) for a in (row, column) for f in (np.sin, np.cos) for w in frequency]
            )
    return np.array(table, np.float32)


@MODELS
def test_the_order_of_tokens_does_not_matter(batch, model):
    network = OBJECTIVE.network(model, rngs=nnx.Rngs(0))
    seen, masked = random_masks(jax.random.key(5), 8, 16, 4)
    got = network(batch.views[0], seen, masked)
    assert got.shape == (8, 12, 12) and got.dtype == jnp.float32
    expected = drawn_in_place(network, batch.views[0], seen, masked)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_loss_equals_the_reference(variables, batch):
    key = jax.random.key(7)
    outcome, _, _ = step(variables.params, batch, key)
    seen, masked = random_masks(jax.random.split(key)[0], 8, 16, 4)
    network = OBJECTIVE.merged(TINY, variables.params)
    drawn = np.asarray(drawn_in_place(network, batch.views[0], seen, masked), np.float64)
    pixels = np.asarray(batch.views[0], np.float64).reshape(8, 4, 2, 4, 2, 3)
    pixels = pixels.transpose(0, 1, 3, 2, 4, 5).reshape(8, 16, 12)
    pixels = (pixels - pixels.mean(axis=2, keepdims=True)) / pixels.std(axis=2, keepdims=True)
    wanted = pixels[np.arange(8)[:, None], np.asarray(masked)]
    np.testing.assert_allclose(outcome.loss, np.square(drawn - wanted).mean(), rtol=1e-4)
    explained = 1 - np.square(drawn - wanted).mean() / wanted.var(axis=(0, 1)).mean()
    # The variance is about the mean patch.
    np.testing.assert_allclose(outcome.metrics["explained"], explained, atol=1e-3)


@MODELS
def test_masked_pixels_do_not_reach_the_drawing(batch, model):
    network = OBJECTIVE.network(model, rngs=nnx.Rngs(0))
    seen, masked = random_masks(jax.random.key(5), 1, 16, 4)
    image = batch.views[0][:1]
    sensitivity = jax.jit(jax.grad(lambda x: jnp.sum(jnp.square(network(x, seen, masked)))))(image)
    by_patch = np.abs(sensitivity).reshape(4, 2, 4, 2, 3).sum(axis=(1, 3, 4)).reshape(-1)
    assert (by_patch[np.asarray(masked[0])] == 0).all()
    assert (by_patch[np.asarray(seen[0])] > 0).all()


def test_the_loss_depends_on_all_weights(variables, batch):
    _, gradient, _ = step(variables.params, batch, jax.random.key(0))
    for path, leaf in jax.tree.leaves_with_path(nnx.to_pure_dict(gradient)):
        assert np.abs(leaf).max() > 1e-7, path


def test_masks_are_new_at_each_step(variables, batch):
    a, b, again = (step(variables.params, batch, jax.random.key(k))[0].loss for k in (0, 1, 0))
    assert a != b and a == again


def test_two_runs_under_vmap_equal_runs_alone(variables, batch):
    other = jax.tree.map(lambda p: 1.1 * p + 0.01, variables.params)
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), variables.params, other)
    key = jax.random.key(9)
    together, gradients, _ = jax.jit(jax.vmap(step, in_axes=(0, None, None)))(both, batch, key)
    for i, params in enumerate((variables.params, other)):
        alone, gradient, _ = step(params, batch, key)
        np.testing.assert_allclose(together.loss[i], alone.loss, rtol=1e-4)
        for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(gradient), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-2, atol=1e-4)


def test_a_batch_over_four_devices_equals_the_batch_on_one(variables, batch, devices):
    rows = jax.sharding.NamedSharding(devices.mesh, jax.sharding.PartitionSpec("rows"))
    same = jax.sharding.NamedSharding(devices.mesh, jax.sharding.PartitionSpec())
    key = jax.random.key(1)
    split = step(jax.device_put(variables.params, same), jax.device_put(batch, rows), key)
    alone = step(variables.params, batch, key)
    for a, b in zip(jax.tree.leaves(split), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_bfloat16_is_near_float32(variables, batch):
    low = dataclasses.replace(TINY, precision="bfloat16")
    key = jax.random.key(1)
    exact = step(variables.params, batch, key)[0].loss
    near = jax.jit(lambda: OBJECTIVE.loss(low, variables, batch, key, BEGIN).loss)()
    assert near.dtype == jnp.float32
    assert 0 < abs(near - exact) < 0.05 * exact


# Settings.


def test_the_crop_keeps_its_colors():
    (crop,) = OBJECTIVE.crops(TINY)
    image = jnp.full((4, 8, 8, 3), 100, jnp.uint8)
    (view,) = augment.crops_of(jax.random.key(0), image, (crop,), training.Augmentation())
    np.testing.assert_allclose(view, 100 / 127.5 - 1, atol=1e-5)


def test_the_encoder_starts_as_that_of_other_objectives(variables):
    encoder = nnx.to_pure_dict(nnx.state(training.ViT(TINY, rngs=nnx.Rngs(jax.random.key(0)))))
    got = OBJECTIVE.encoder(variables)
    for a, b in zip(jax.tree.leaves(encoder), jax.tree.leaves(got), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        dict(mask_ratio=0.0),
        dict(mask_ratio=1.0),
        dict(mask_ratio=float("nan")),
        dict(scale=(0.0, 1.0)),
        dict(scale=(0.9, 0.5)),
        dict(decoder_width=0),
        dict(decoder_width=6),
        dict(decoder_depth=0),
        dict(decoder_heads=3),
    ],
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(InputError, match=f"{next(iter(change))}="):
        MAE(**change)


# Pretraining.

QUICK = settings(
    MAE(decoder_width=32, scale=(1.0, 1.0)),
    n_steps=500,
    learning_rate=1e-2,
    augmentation=training.Augmentation(crop_ratio=1.0),
)
"""The tiles stay in the places of the patches."""


def test_pretraining_makes_classes_neighbors():
    (untrained, _), (trained, _), losses = accuracies_and_ranks(QUICK, labeled_textures)
    assert (trained > untrained + 0.1).all(), (untrained, trained)
    assert (losses < 0.95).all(), losses


def test_a_drawing_that_is_the_same_for_all_is_noticed():
    noise = partial(labeled_textures, contrast=0)
    (_, before), (_, after), losses = accuracies_and_ranks(QUICK, noise)
    # The variance of the targets is 1: nothing is explained.
    assert (losses > 0.99).all(), losses
    assert (after < 0.8 * before).all(), (before, after)
