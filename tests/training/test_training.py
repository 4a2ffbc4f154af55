"""The encoder, its random views, the loss, and the pretraining loop."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxcurate as jc
from jaxcurate import training
from jaxcurate.curation.stratified_batches import Batches
from jaxcurate.models import vit
from jaxcurate.models.positions import sine_cosine
from jaxcurate.runtime.devices import ONE_DEVICE, Devices
from jaxcurate.training import augment
from jaxcurate.training.objectives import ObjectiveConfig, simclr
from jaxcurate.training.pretrain import STEPS_PER_CALL
from jaxcurate.training.runs import schedule

TINY = training.ViTConfig(image_size=8, patch_size=4, width=16, depth=1, n_heads=2, mlp_ratio=2)
WEAK = training.Augmentation(
    crop_scale=(0.5, 1), brightness=0.1, contrast=0.1, saturation=0.1, gray=0
)
FAST = training.PretrainConfig(
    model=TINY,
    augmentation=WEAK,
    n_steps=30,
    batch_size=16,
    learning_rate=5e-3,
    objective=ObjectiveConfig(simclr=simclr.SimCLR(projection=(16, 8))),
    runs_per_device=1,
)


@pytest.fixture(scope="module")
def images():
    """60 images of 8 x 8 pixels: a color each, and noise."""
    rng = np.random.default_rng(0)
    color = rng.integers(0, 200, (60, 1, 1, 3))
    return (color + rng.integers(0, 55, (60, 8, 8, 3))).astype(np.uint8)


@pytest.fixture(scope="module")
def runs():
    rng = np.random.default_rng(1)
    return [
        training.Run(rng.choice(60, size, replace=False), seed)
        for size, seed in ((60, 0), (20, 0), (10, 1), (33, 2), (60, 3))
    ]


@pytest.fixture(scope="module")
def alone(images, runs):
    """Results of every run by itself, on one device."""
    return [training.pretrain(images, [run], FAST, devices=ONE_DEVICE) for run in runs]


def leaves(trained, run=slice(None)):
    return [leaf[run] for leaf in jax.tree.leaves(trained.params)]


# The encoder.


def test_patches_hold_the_pixels_of_their_square():
    x = np.arange(2 * 4 * 6 * 6).reshape(2, 6, 6, 4)
    got = np.asarray(vit.patches(jnp.asarray(x), 3)).reshape(2, 2, 2, 3, 3, 4)
    for row in range(2):
        for column in range(2):
            square = x[:, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
            np.testing.assert_array_equal(got[:, row, column], square)


def test_positions_tell_every_place_apart():
    p = sine_cosine(8, 8, 32)
    assert p.shape == (64, 32) and p.dtype == np.float32
    distance = np.linalg.norm(p[:, None] - p[None], axis=-1)
    assert distance[~np.eye(64, dtype=bool)].min() > 0.5


def test_images_of_a_batch_do_not_mix(images):
    model = training.ViT(TINY, rngs=nnx.Rngs(0))
    x = augment.scale(jnp.asarray(images))
    together, by_itself = model(x), model(x[7:8])
    assert together.shape == (60, 16) and together.dtype == jnp.float32
    np.testing.assert_allclose(together[7:8], by_itself, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-2


def test_places_matter(images):
    model = training.ViT(TINY, rngs=nnx.Rngs(0))
    x = augment.scale(jnp.asarray(images[:4]))
    swapped = jnp.concatenate([x[:, 4:], x[:, :4]], axis=1)  # the same patches, rows exchanged
    assert np.abs(model(x) - model(swapped)).max() > 1e-3


def test_bfloat16_keeps_float32_weights_and_features(images):
    config = dataclasses.replace(TINY, precision="bfloat16")
    model, exact = training.ViT(config, rngs=nnx.Rngs(0)), training.ViT(TINY, rngs=nnx.Rngs(0))
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(nnx.state(model)))
    x = augment.scale(jnp.asarray(images))
    features = model(x)
    assert features.dtype == jnp.float32
    gap = np.abs(features - exact(x)).max()
    assert 0 < gap < 0.1


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(patch_size=3), "patch_size=3"),
        (dict(n_heads=3), "n_heads=3"),
        (dict(width=6, n_heads=1), "width=6"),
        (dict(depth=0), "depth=0"),
        (dict(precision="float16"), "float16"),
    ],
)
def test_impossible_models_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(TINY, **change)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="image_size=8"):
        training.ViT(TINY, rngs=nnx.Rngs(0))(jnp.zeros((1, 12, 12, 3)))


# Random views.


def drawn(n=1, **change):
    """Returns changes that change nothing, except those that are named."""
    plain = dict(height=1, width=1, top=0, left=0, brightness=1, contrast=1, saturation=1)
    values = {k: jnp.full(n, v, jnp.float32) for k, v in {**plain, **change}.items()}
    return augment.Draw(**{"flip": jnp.zeros(n, bool), **values})


def test_no_change_is_no_change(images):
    x = augment.scale(jnp.asarray(images))
    np.testing.assert_allclose(augment.apply(x, drawn(60)), x, atol=1e-6)


def test_flip_mirrors(images):
    x = augment.scale(jnp.asarray(images))
    got = augment.apply(x, drawn(60)._replace(flip=jnp.ones(60, bool)))
    np.testing.assert_allclose(got, x[:, :, ::-1], atol=1e-6)


def test_a_crop_shows_its_part_of_the_image():
    ramp = np.linspace(-1, 1, 8, dtype=np.float32)
    x = jnp.asarray(np.broadcast_to(ramp[None, :, None, None], (1, 8, 8, 3)))
    got = augment.apply(x, drawn(height=0.5, top=0.25, width=0.5))[0, :, 0, 0]
    # Pixel i of the view has its center at row 2 + (i + 0.5) / 2 - 0.5 of the image.
    expected = np.interp(2 + (np.arange(8) + 0.5) / 2 - 0.5, np.arange(8), ramp)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_color_changes_by_hand():
    pixel = jnp.asarray([0.2, -0.4, 0.6]).reshape(1, 1, 1, 3) * jnp.ones((1, 2, 2, 1))
    luma = float(np.dot(np.asarray(pixel[0, 0, 0]), augment.LUMA))
    bright = augment.apply(pixel, drawn(brightness=0.5))[0, 0, 0]
    np.testing.assert_allclose(bright, (np.array([1.2, 0.6, 1.6]) * 0.5) - 1, atol=1e-6)
    gray = augment.apply(pixel, drawn(saturation=0))[0, 0, 0]
    np.testing.assert_allclose(gray, np.full(3, luma), atol=1e-6)
    flat = augment.apply(pixel, drawn(contrast=0.5))[0, 0, 0]
    expected = luma + 0.5 * (np.asarray(pixel[0, 0, 0]) - luma)
    np.testing.assert_allclose(flat, expected, atol=1e-6)


def test_views_are_random_within_range_and_repeatable(images):
    strength = training.Augmentation()
    key = jax.random.key(0)
    views = augment.augment(key, jnp.asarray(images), strength)
    assert views.shape == images.shape and views.dtype == jnp.float32
    assert views.min() >= -1 and views.max() <= 1
    np.testing.assert_array_equal(views, augment.augment(key, jnp.asarray(images), strength))
    other = augment.augment(jax.random.key(1), jnp.asarray(images), strength)
    assert (np.abs(views - other).max(axis=(1, 2, 3)) > 0.01).all()


def test_draws_keep_to_the_strengths():
    strength = training.Augmentation(crop_scale=(0.2, 0.6), flip=0.25, brightness=0.3, gray=0.1)
    d = augment.draw(jax.random.key(3), 4000, strength)
    area = np.asarray(d.height * d.width)
    assert area.min() >= 0.2 - 1e-5 and area.max() <= 0.6 + 1e-5
    assert (d.top >= 0).all() and (d.top + d.height <= 1 + 1e-6).all()
    assert (d.left >= 0).all() and (d.left + d.width <= 1 + 1e-6).all()
    assert abs(d.flip.mean() - 0.25) < 0.03
    assert abs((d.saturation == 0).mean() - 0.1) < 0.02
    assert d.brightness.min() >= 0.7 and d.brightness.max() <= 1.3


@pytest.mark.parametrize(
    "change", [dict(crop_scale=(0, 1)), dict(crop_ratio=0.5), dict(gray=1.5), dict(flip=-0.1)]
)
def test_impossible_strengths_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        training.Augmentation(**change)


# The loss.


def test_nt_xent_by_brute_force():
    rng = np.random.default_rng(0)
    z_1, z_2 = rng.normal(size=(2, 5, 4))
    ids = np.array([0, 1, 2, 1, 4])
    z, image = np.concatenate([z_1, z_2]), np.concatenate([ids, ids])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    losses = []
    for i in range(10):
        partner = (i + 5) % 10
        others = [j for j in range(10) if image[j] != image[i]] + [partner]
        score = z[others] @ z[i] / 0.3
        losses.append(np.log(np.exp(score).sum()) - z[partner] @ z[i] / 0.3)

    def as_f32(a):
        return jnp.asarray(a, jnp.float32)

    got = simclr.nt_xent(as_f32(z_1), as_f32(z_2), jnp.asarray(ids), 0.3)
    np.testing.assert_allclose(got, np.mean(losses), rtol=1e-5)


def test_nt_xent_has_a_finite_gradient_at_zero():
    z = jnp.zeros((4, 3))
    gradient = jax.grad(lambda z: simclr.nt_xent(z, z, jnp.arange(4), 0.1))(z)
    assert np.isfinite(gradient).all()


# The loop.


@pytest.mark.parametrize("m", [2, 16, 37, 64, 500])
def test_schedule_is_epoch_after_epoch(m):
    rows = np.random.default_rng(m).choice(1000, m, replace=False)
    batches = schedule(rows, 5, 40, 16)
    assert batches.shape == (40, 16) and batches.dtype == np.int32
    stream = batches.reshape(-1)
    for first in range(0, len(stream) - m + 1, m):
        assert sorted(stream[first : first + m]) == sorted(rows)
    rest = stream[len(stream) // m * m :]
    assert len(np.unique(rest)) == len(rest) and np.isin(rest, rows).all()
    if m > 2:
        assert (schedule(rows, 6, 40, 16) != batches).any()
        assert 2 * m > 640 or (stream[:m] != stream[m : 2 * m]).any()


def test_the_loss_falls(alone):
    for trained in alone:
        assert trained.losses.shape == (1, 30) and trained.losses.dtype == np.float32
        assert trained.losses[0, -5:].mean() < 0.8 * trained.losses[0, :5].mean()


def test_the_same_run_gives_the_same_bits(images, runs, alone):
    again = training.pretrain(images, runs[1:2], FAST, devices=ONE_DEVICE)
    np.testing.assert_array_equal(again.losses, alone[1].losses)
    for a, b in zip(leaves(again), leaves(alone[1]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_may_bring_its_own_batches(images, runs, alone):
    rows, seed, _ = runs[1]
    same = training.Run(rows, seed, schedule(rows, seed, 30, 16))
    np.testing.assert_array_equal(
        training.pretrain(images, [same], FAST, devices=ONE_DEVICE).losses, alone[1].losses
    )
    tree = jc.ClusterTree.from_labels([np.arange(60) % 7])
    batches = Batches(tree, 16, 40, rows=rows, equal="clusters", seed=seed)
    stratified = training.pretrain(
        images, [training.Run(rows, seed, batches), same], FAST, devices=ONE_DEVICE
    )
    assert (stratified.losses[0] != alone[1].losses[0]).any()
    assert stratified.losses[0, -5:].mean() < 0.8 * stratified.losses[0, :5].mean()
    # Images that are in no batch make no difference.
    blank = np.where(np.isin(np.arange(60), rows)[:, None, None, None], images, 0)
    again = training.pretrain(
        blank, [training.Run(rows, seed, batches), same], FAST, devices=ONE_DEVICE
    )
    np.testing.assert_array_equal(again.losses, stratified.losses)


@pytest.mark.parametrize(
    "batches, words",
    [
        (np.zeros((29, 16), int), "batches of run 1 are 29, but n_steps=30"),
        (np.zeros((30, 8), int), "batch 0 of run 1 is int64 of shape"),
        (np.zeros((30, 16)), "batch 0 of run 1 is float64"),
        (np.r_[np.zeros((20, 16), int), np.full((10, 16), 5)], "batch 20 of run 1 has a row"),
    ],
)
def test_batches_that_do_not_fit_are_refused(images, runs, batches, words):
    with pytest.raises(ValueError, match=words):
        training.pretrain(
            images, [runs[0], training.Run(np.arange(5), 0, batches)], FAST, devices=ONE_DEVICE
        )


@pytest.mark.parametrize("n_devices, per_device", [(4, 1), (2, 2)])
def test_runs_side_by_side_equal_runs_alone_nearly(images, runs, alone, n_devices, per_device):
    # Products are split differently, and rounding grows over thirty steps: 4e-6 was measured.
    settings = dataclasses.replace(FAST, runs_per_device=per_device)
    together = training.pretrain(images, runs, settings, devices=Devices.first(n_devices))
    assert together.losses.shape == (5, 30)
    for i, trained in enumerate(alone):
        np.testing.assert_allclose(together.losses[i], trained.losses[0], atol=1e-4)


def test_the_place_among_other_runs_does_not_show(images, runs):
    devices = Devices.first(4)
    forth, back = (
        training.pretrain(images, order, FAST, devices=devices) for order in (runs, runs[::-1])
    )
    np.testing.assert_array_equal(forth.losses, back.losses[::-1])
    for a, b in zip(leaves(forth), leaves(back), strict=True):
        np.testing.assert_array_equal(a, b[::-1])


def test_equal_seeds_start_equal_and_arms_differ(images, runs):
    untrained = dataclasses.replace(FAST, n_steps=0)
    start = training.pretrain(images, runs, untrained, devices=ONE_DEVICE)
    assert start.losses.shape == (5, 0)
    assert all(np.array_equal(leaf[0], leaf[1]) for leaf in jax.tree.leaves(start.params))
    assert any((leaf[1] != leaf[2]).any() for leaf in jax.tree.leaves(start.params))


def test_the_number_of_steps_in_a_call_does_not_show(images, runs, alone, monkeypatch):
    assert FAST.n_steps % STEPS_PER_CALL
    loop = importlib.import_module("jaxcurate.training.pretrain")
    monkeypatch.setattr(loop, "STEPS_PER_CALL", 7)
    # Another learning rate, only so that the compiled function of 25 steps is not reused.
    settings = dataclasses.replace(FAST, learning_rate=5.00001e-3)
    reports = []
    other = training.pretrain(
        images, runs[:1], settings, progress=lambda *p: reports.append(p), devices=ONE_DEVICE
    )
    np.testing.assert_allclose(other.losses, alone[0].losses, atol=1e-3)
    assert reports == [(7, 30), (14, 30), (21, 30), (28, 30), (30, 30)]


def test_progress_counts_runs_not_copies(images, runs):
    reports = []
    devices = Devices.first(4)
    training.pretrain(images, runs, FAST, devices=devices, progress=lambda *p: reports.append(p))
    assert reports == [(100, 150), (120, 150), (145, 150), (150, 150)]


def test_the_trained_weights_come_back(images, runs, alone):
    start = training.pretrain(
        images, runs[:1], dataclasses.replace(FAST, n_steps=0), devices=ONE_DEVICE
    )
    for before, after in zip(leaves(start), leaves(alone[0]), strict=True):
        assert before.shape == after.shape and (before != after).any()


def test_encode_equals_the_module_whatever_the_devices(images, runs):
    trained = training.pretrain(images, runs[:2], FAST, devices=ONE_DEVICE)
    features = training.encode(trained.params, images, FAST, devices=ONE_DEVICE)
    assert features.shape == (2, 60, 16) and features.dtype == np.float32
    for run in range(2):
        model = training.encoder(trained.params, run, TINY)
        expected = model(augment.scale(jnp.asarray(images)))
        np.testing.assert_allclose(features[run], expected, atol=1e-5)
    split = training.encode(trained.params, images, FAST, devices=Devices.first(4), batch_size=8)
    np.testing.assert_allclose(split, features, atol=1e-5)
    assert training.encode(trained.params, images[:0], FAST, devices=ONE_DEVICE).shape == (2, 0, 16)


@pytest.mark.parametrize(
    "rows, seed, words",
    [
        (np.zeros(0, np.int64), 0, "rows of run 1: at least 2"),
        (np.array([3, 3]), 0, "rows of run 1: at least 2"),
        (np.array([0, 60]), 0, "rows of run 1 reach outside"),
        (np.array([-1, 5]), 0, "rows of run 1 reach outside"),
        (np.array([0.0, 1.0]), 0, "rows of run 1 must be"),
        (np.arange(5), -1, "seed=-1"),
    ],
)
def test_bad_runs_are_refused(images, runs, rows, seed, words):
    with pytest.raises(ValueError, match=words):
        training.pretrain(images, [runs[0], training.Run(rows, seed)], FAST, devices=ONE_DEVICE)


def test_bad_images_are_refused(images, runs):
    with pytest.raises(ValueError, match="image_size=8"):
        training.pretrain(images[:, :6], runs, FAST, devices=ONE_DEVICE)
    with pytest.raises(ValueError, match="float32"):
        training.pretrain(images.astype(np.float32), runs, FAST, devices=ONE_DEVICE)
    with pytest.raises(ValueError, match="runs is empty"):
        training.pretrain(images, [], FAST, devices=ONE_DEVICE)


@pytest.mark.parametrize(
    "change",
    [
        dict(n_steps=-1),
        dict(batch_size=1),
        dict(learning_rate=0.0),
        dict(weight_decay=-0.1),
        dict(warmup=2.0),
        dict(runs_per_device=0),
    ],
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))}="):
        training.PretrainConfig(**change)


@pytest.mark.parametrize("change", [dict(temperature=float("nan")), dict(projection=(0, 8))])
def test_impossible_settings_of_simclr_are_refused(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))}="):
        simclr.SimCLR(**change)


def test_a_loss_that_is_not_finite_is_reported(images, runs):
    settings = dataclasses.replace(FAST, learning_rate=1e38)
    with pytest.raises(ValueError, match=r"run 0 \(seed 0\): the loss is not finite at step"):
        training.pretrain(images, runs[:1], settings, devices=ONE_DEVICE)
