"""Crops, heads, targets, schedules and masks that DINO and DINOv2 have in common."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distillation import pairs_entropy, sinkhorn, softmax
from flax import nnx

from jaxcurate.models import ViTConfig
from jaxcurate.planning.training_step import lowered_step
from jaxcurate.training import PretrainConfig
from jaxcurate.training.objectives import DINO, DINOv2, ObjectiveConfig
from jaxcurate.training.objectives.block_masks import block_masks
from jaxcurate.training.objectives.self_distillation import (
    Head,
    cosine_momentum,
    cross_entropy,
    different_crops,
    moving_average,
    prototypes_used,
    sinkhorn_knopp,
)
from jaxcurate.training.sharding import mesh_of

SMALL = DINO(n_hidden=12, bottleneck=6, n_prototypes=10)
MODEL = ViTConfig(image_size=8, patch_size=4, width=16, depth=1, n_heads=2, mlp_ratio=2)


def scores_of(n, n_prototypes, scale=1.0, seed=0):
    return scale * np.random.default_rng(seed).normal(size=(n, n_prototypes)).astype(np.float32)


def test_cross_entropy_of_pairs_of_different_crops():
    targets = softmax(scores_of(2 * 5, 7).astype(np.float64)).reshape(2, 5, 7)
    scores = scores_of(6 * 5, 7, 4, seed=1).reshape(6, 5, 7)
    got = cross_entropy(jnp.float32(targets), jnp.asarray(scores), different_crops(2, 6))
    np.testing.assert_allclose(got, pairs_entropy(targets, scores), rtol=1e-6)
    assert different_crops(2, 6).sum() == 10


@pytest.mark.parametrize("n_iterations", [0, 1, 3])
def test_sinkhorn_knopp_equals_the_published_form(n_iterations):
    scores = scores_of(24, 8, 3)
    expected = sinkhorn(scores, n_iterations) if n_iterations else softmax(scores)
    np.testing.assert_allclose(sinkhorn_knopp(jnp.asarray(scores), n_iterations), expected, 1e-4)


def test_sinkhorn_knopp_uses_prototypes_equally_where_softmax_does_not():
    scores = jnp.asarray(scores_of(24, 8, 3)).at[:, 0].add(15)
    assert jax.nn.softmax(scores).sum(axis=0)[0] > 23
    probabilities = sinkhorn_knopp(scores, 30)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=0), 3, rtol=1e-3)


def test_sinkhorn_knopp_does_not_overflow_and_is_float32():
    # Cosines of 1 and -1 at a temperature of 0.002: the exponentials are beyond float32.
    scores = jnp.where(jnp.eye(6, dtype=bool), 500.0, -500.0).astype(jnp.bfloat16)
    probabilities = sinkhorn_knopp(scores, 3)
    assert probabilities.dtype == jnp.float32
    np.testing.assert_allclose(probabilities, np.eye(6), atol=1e-6)


def test_padding_takes_no_part_in_sinkhorn_knopp():
    scores = scores_of(20, 6, 3)
    is_row = np.random.default_rng(2).random(20) < 0.6
    got = sinkhorn_knopp(jnp.asarray(scores), 3, jnp.asarray(is_row))
    np.testing.assert_allclose(got[is_row], sinkhorn(scores[is_row], 3), 1e-4)
    assert np.isfinite(got).all()


def test_momentum_rises_to_one_along_a_cosine():
    done = np.linspace(0, 1, 11)
    expected = 1 - 0.04 * (np.cos(np.pi * done) + 1) / 2
    got = [cosine_momentum(0.96, jnp.float32(x)) for x in done]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_the_teacher_is_a_moving_average_of_all_weights():
    teacher, student = ({"a": {"w": jnp.asarray(scores_of(3, 2, seed=i))}} for i in (3, 4))
    got = moving_average(teacher, student, jnp.float32(0.75))["a"]["w"]
    np.testing.assert_array_equal(got, 0.75 * teacher["a"]["w"] + 0.25 * student["a"]["w"])


def test_the_temperature_changes_linearly_and_then_stays():
    settings = DINO(first_temperature=0.02, teacher_temperature=0.06, temperature_warmup=0.5)
    got = [settings.temperature(jnp.float32(x)) for x in (0, 0.25, 0.5, 1)]
    np.testing.assert_allclose(got, [0.02, 0.04, 0.06, 0.06], rtol=1e-6)
    at_once = dataclasses.replace(settings, temperature_warmup=0.0)
    np.testing.assert_allclose(at_once.temperature(jnp.float32(0)), 0.06, rtol=1e-6)


def test_effective_numbers_of_prototypes_tell_both_collapses():
    equal = jnp.broadcast_to(jnp.eye(8)[:1], (8, 8))
    uniform = jnp.full((8, 8), 1 / 8)
    for targets, n, each in ((jnp.eye(8), 8, 1), (equal, 1, 1), (uniform, 8, 8)):
        used = prototypes_used(targets)
        np.testing.assert_allclose(used["prototypes"], n, rtol=1e-5)
        np.testing.assert_allclose(used["prototypes_each"], each, rtol=1e-5)


def test_a_head_gives_cosines_by_hand():
    head = Head(16, SMALL, MODEL, rngs=nnx.Rngs(0))
    x = scores_of(5, 16)

    def layer(linear, x):
        return x @ np.asarray(linear.kernel[...], np.float64) + np.asarray(linear.bias[...])

    def gelu(x):
        return np.asarray(jax.nn.gelu(jnp.float32(x), approximate=False), np.float64)

    z = layer(head.out, gelu(layer(head.hidden_2, gelu(layer(head.hidden_1, x)))))
    prototypes = np.asarray(head.prototypes[...], np.float64)
    expected = z @ prototypes / np.linalg.norm(z, axis=1)[:, None]
    np.testing.assert_allclose(head(x), expected / np.linalg.norm(prototypes, axis=0), atol=1e-5)


def test_a_head_of_bfloat16_gives_float32_cosines_nearly():
    rough = dataclasses.replace(MODEL, precision="bfloat16")
    x = jnp.asarray(scores_of(5, 16))
    exact, got = (Head(16, SMALL, config, rngs=nnx.Rngs(0))(x) for config in (MODEL, rough))
    assert got.dtype == jnp.float32
    assert 0 < np.abs(got - exact).max() < 0.03


@pytest.mark.parametrize("size, patch, expected", [(224, 16, 96), (224, 14, 98), (32, 8, 16)])
def test_local_crops_have_the_published_sizes(size, patch, expected):
    model = ViTConfig(image_size=size, patch_size=patch)
    crops = DINO(n_local=8).crops(model)
    assert [(c.n, c.size) for c in crops] == [(2, size), (8, expected)]
    assert crops[0].scale == (0.25, 1) and crops[1].scale == (0.05, 0.25)
    assert len(DINO(n_local=0).crops(model)) == 1


def test_local_crops_must_be_whole_patches():
    with pytest.raises(ValueError, match="local_size=10 must be a multiple of patch_size=8"):
        DINO(local_size=10).crops(ViTConfig(image_size=32, patch_size=8))


@pytest.mark.parametrize("kind", [DINO, DINOv2])
@pytest.mark.parametrize(
    "change",
    [
        dict(n_local=-1),
        dict(n_prototypes=1),
        dict(local_size=0),
        dict(global_scale=(0.5, 0.2)),
        dict(local_scale=(0.0, 0.2)),
        dict(student_temperature=float("nan")),
        dict(teacher_temperature=0.0),
        dict(momentum=1.1),
        dict(frozen=-0.1),
        dict(n_iterations=-1),
    ],
)
def test_impossible_settings_are_refused(kind, change):
    with pytest.raises(ValueError, match=f"{next(iter(change))}="):
        kind(**change)


@pytest.mark.parametrize("grid, ratio", [(4, (0.1, 0.5)), (14, (0.1, 0.5)), (2, (0.0, 0.2))])
def test_masks_have_exact_counts_and_name_their_patches(grid, ratio):
    n, n_patches = 400, grid * grid
    mask, places, is_masked = map(np.asarray, block_masks(jax.random.key(0), n, grid, ratio))
    counts = mask.sum(axis=1)
    low, high = (max(1, round(r * n_patches)) for r in ratio)
    assert counts.min() == low and counts.max() == high and places.shape == (n, high)
    np.testing.assert_array_equal(is_masked.sum(axis=1), counts)
    for i in range(n):
        assert sorted(places[i][is_masked[i]]) == np.flatnonzero(mask[i]).tolist()
        assert len(set(places[i])) == high
    if high > low:  # counts are uniform, but for the two ends
        assert np.abs(counts.mean() / n_patches - np.mean(ratio)) < 0.02


def test_masks_are_blocks_everywhere_in_the_picture():
    mask = np.asarray(block_masks(jax.random.key(1), 400, 14, (0.2, 0.4)).mask)
    squares = mask.reshape(400, 14, 14)
    together = (squares[:, 1:] == squares[:, :-1]).mean()
    share = mask.mean()
    single = share**2 + (1 - share) ** 2  # of patches that are masked one by one
    assert together > 0.88 > single + 0.2
    # Blocks reach the corners more rarely, as those of the papers, but no half is preferred.
    of_places = squares.mean(axis=0)
    assert 0.02 < of_places.min() < of_places.max() < 0.65
    for half in (of_places[:7], of_places[7:], of_places[:, :7], of_places[:, 7:]):
        assert abs(half.mean() - share) < 0.03


@pytest.mark.parametrize("name", ["dino", "dinov2"])
def test_devices_keep_the_scores_of_their_pictures(name, devices):
    """Scores are the largest arrays, by far: a device never asks for those of others."""
    few = {"n_local": 4, "n_prototypes": 4096, "n_hidden": 32, "bottleneck": 16}
    chosen = dataclasses.replace(getattr(ObjectiveConfig(name), name), **few)
    settings = PretrainConfig(
        model=ViTConfig(image_size=16, patch_size=8, width=16, depth=1, n_heads=2),
        objective=ObjectiveConfig(name, **{name: chosen}),
        n_steps=10,
        batch_size=64,
    )
    program = lowered_step(settings, mesh_of(devices)).compile().as_text()
    gathered = [
        math.prod(map(int, shape.split(",")))
        for shape in re.findall(r"\[([0-9,]+)\][^ ]* all-gather", program)
    ]
    assert gathered and max(gathered) < 64 * 4096 / 16
