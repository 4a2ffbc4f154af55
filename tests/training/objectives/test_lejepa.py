"""LeJEPA: the statistic, the loss, and what pretraining by it makes of an encoder."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from labeled_patterns import SMALL, accuracies_and_ranks, settings

from jaxcurate import training
from jaxcurate.checks import InputError
from jaxcurate.models.vit_config import ViTArchitecture
from jaxcurate.runtime.devices import ONE_DEVICE, Devices
from jaxcurate.training.objectives import Batch, Crop, LeJEPA, Variables
from jaxcurate.training.objectives.lejepa import directions, epps_pulley, sigreg

TINY = training.ViTConfig(image_size=8, patch_size=4, width=16, depth=1, n_heads=2, mlp_ratio=2)
OBJECTIVE = LeJEPA(n_slices=8, projection=(16, 12, 4))
BEGIN = np.float32(0)


def closed_form(x):
    """Statistic of Epps and Pulley of ``[n]`` in float64: its integral is known."""
    x = np.asarray(x, np.float64)
    n = len(x)
    pairs = np.exp(-np.square(x[:, None] - x[None, :]) / 2).sum() * np.sqrt(2 * np.pi) / n
    return pairs - 2 * np.sqrt(np.pi) * np.exp(-np.square(x) / 4).sum() + n * np.sqrt(np.pi / 1.5)


def quadrature(x):
    """Statistic of Epps and Pulley of ``[n]`` in float64, as a fine sum over frequencies."""
    x = np.asarray(x, np.float64)
    t = np.linspace(-9, 9, 20001)
    empirical = np.zeros(len(t), complex)
    for value in x:
        empirical += np.exp(1j * t * value) / len(x)
    normal = np.exp(-np.square(t) / 2)
    return len(x) * np.sum(np.abs(empirical - normal) ** 2 * normal) * (t[1] - t[0])


@pytest.fixture(scope="module")
def batch():
    """Views of five pictures, two global and two local ones of each."""
    views = jax.random.uniform(jax.random.key(3), (2, 10, 8, 8, 3), minval=-1, maxval=1)
    return Batch((views[0], views[1]), jnp.arange(5))


@pytest.fixture(scope="module")
def variables():
    return jax.jit(lambda key: OBJECTIVE.init(TINY, key))(jax.random.key(0))


@jax.jit
def step(params, batch, key):
    """Outcome of the loss, and its gradient."""

    def loss(params):
        outcome = OBJECTIVE.loss(TINY, Variables(params), batch, key, BEGIN)
        return outcome.loss, outcome

    (_, outcome), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    return outcome, gradient


# The statistic.


@pytest.mark.parametrize(
    "samples",
    [
        np.random.default_rng(0).normal(size=40),
        np.random.default_rng(1).normal(2, 3, size=25),
        np.random.default_rng(2).exponential(size=30),
        np.random.default_rng(3).uniform(-7, 7, size=12),
        np.full(9, 0.7),
        np.array([4.0]),
    ],
)
def test_epps_pulley_equals_the_closed_form_and_the_sum(samples):
    expected = closed_form(samples)
    np.testing.assert_allclose(quadrature(samples), expected, rtol=1e-9)
    got = epps_pulley(jnp.asarray(samples, jnp.float32)[:, None])
    assert got.shape == (1,)
    np.testing.assert_allclose(got, [expected], rtol=2e-5, atol=2e-5)


def test_gradient_of_epps_pulley_equals_differences_of_the_closed_form():
    x = np.random.default_rng(4).normal(0.5, 2, size=7)
    gradient = jax.grad(lambda x: epps_pulley(x[:, None])[0])(jnp.asarray(x, jnp.float32))
    step = 1e-5 * np.eye(7)
    expected = [(closed_form(x + e) - closed_form(x - e)) / 2e-5 for e in step]
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


def test_tests_and_groups_do_not_mix():
    x = np.random.default_rng(5).normal(size=(3, 20, 4)).astype(np.float32)
    got = epps_pulley(jnp.asarray(x))
    expected = [[closed_form(x[i, :, j]) for j in range(4)] for i in range(3)]
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_sigreg_is_the_mean_over_slices():
    z = np.random.default_rng(6).normal(1, 2, size=(30, 5)).astype(np.float32)
    slices = np.asarray(directions(jax.random.key(0), 5, 7))
    expected = np.mean([closed_form(z @ slices[:, j]) for j in range(7)])
    np.testing.assert_allclose(sigreg(jnp.asarray(z), jnp.asarray(slices)), expected, rtol=1e-4)


def test_sigreg_is_small_for_a_gaussian_alone():
    rng = np.random.default_rng(7)
    slices = directions(jax.random.key(1), 8, 256)

    def distance(z):
        return float(sigreg(jnp.asarray(z, jnp.float32), slices))

    gaussian = rng.normal(size=(4000, 8))
    # By its definition the mean is sqrt(2 pi) - sqrt(2 pi / 3) for normal samples of any number.
    assert abs(distance(gaussian) - 1.06) < 0.3
    assert distance(np.zeros((4000, 8))) > 1500
    others = {
        "shifted": gaussian + 1,
        "narrow": 0.5 * gaussian,
        "wide": 2 * gaussian,
        "in a plane": gaussian * np.array([2, 2, 0, 0, 0, 0, 0, 0]),
        "on the axes": np.eye(8)[rng.integers(0, 8, 4000)] * 8**0.5,
        "two clusters": np.sign(gaussian[:, :1]) + 0.1 * gaussian,
    }
    for name, z in others.items():
        assert distance(z) > 15, name


def test_directions_are_uniform_on_the_sphere():
    vectors = np.asarray(directions(jax.random.key(2), 3, 20000))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(vectors.mean(axis=1), 0, atol=0.02)
    # A coordinate of a uniform vector of the sphere in three dimensions is uniform (Archimedes).
    np.testing.assert_allclose(np.quantile(vectors[0], [0.1, 0.5, 0.9]), [-0.8, 0, 0.8], atol=0.03)


# The loss.


def embeddings(params, views):
    """Embeddings of the projection head by NumPy in float64, from features by the encoder."""
    pure = nnx.to_pure_dict(params)
    network = OBJECTIVE.merged(TINY, params)
    z = np.concatenate([np.asarray(network.encoder(x), np.float64) for x in views])
    last = len(pure["layers"]) - 1
    for i in range(last + 1):
        layer = pure["layers"][i]
        z = z @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"])
        if i < last:
            z = (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5)
            z = np.maximum(0, z * np.asarray(pure["scales"][i]) + np.asarray(pure["offsets"][i]))
    return z.reshape(4, 5, -1)


def test_the_loss_equals_the_reference(variables, batch):
    key = jax.random.key(8)
    outcome, _ = step(variables.params, batch, key)
    z = embeddings(variables.params, batch.views)
    center = (z[0] + z[1]) / 2
    prediction = np.mean([np.square(view - center).mean() for view in z])
    slices = np.asarray(directions(jax.random.split(key)[0], 4, 8))
    shape = np.mean([closed_form(view @ slices[:, j]) for view in z for j in range(8)])
    np.testing.assert_allclose(outcome.metrics["prediction"], prediction, rtol=1e-4)
    np.testing.assert_allclose(outcome.metrics["sigreg"], shape, rtol=1e-4)
    np.testing.assert_allclose(outcome.loss, 0.95 * prediction + 0.05 * shape, rtol=1e-4)
    assert outcome.loss.dtype == jnp.float32


def test_slices_are_new_at_each_step(variables, batch):
    a, b, again = (
        step(variables.params, batch, jax.random.key(seed))[0].metrics for seed in (0, 1, 0)
    )
    assert a["sigreg"] != b["sigreg"] and a["sigreg"] == again["sigreg"]
    assert a["prediction"] == b["prediction"]


def test_the_gradient_is_stopped_nowhere(variables, batch):
    key = jax.random.key(2)
    _, gradient = step(variables.params, batch, key)
    for path, leaf in jax.tree.leaves_with_path(nnx.to_pure_dict(gradient["encoder"])):
        # A shift of all features is undone by the normalization of the head.
        assert np.abs(leaf).max() > 1e-5 or "norm" in str(path), path
    length = sum(float(jnp.sum(jnp.square(g))) for g in jax.tree.leaves(gradient))
    ahead, behind = (
        step(jax.tree.map(lambda p, g, e=e: p + e * g, variables.params, gradient), batch, key)[0]
        for e in (3e-3, -3e-3)
    )
    np.testing.assert_allclose((ahead.loss - behind.loss) / 6e-3, length, rtol=0.02)


def test_two_runs_under_vmap_equal_runs_alone(variables, batch):
    other = jax.tree.map(lambda p: 1.1 * p + 0.01, variables.params)
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), variables.params, other)
    key = jax.random.key(9)
    together, gradients = jax.jit(jax.vmap(step, in_axes=(0, None, None)))(both, batch, key)
    for i, params in enumerate((variables.params, other)):
        alone, gradient = step(params, batch, key)
        np.testing.assert_allclose(together.loss[i], alone.loss, rtol=1e-4)
        for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(gradient), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-2, atol=1e-4)


def test_a_batch_over_four_devices_equals_the_batch_on_one(variables, devices):
    views = jax.random.uniform(jax.random.key(3), (2, 16, 8, 8, 3), minval=-1, maxval=1)
    batch = Batch((views[0], views[1]), jnp.arange(8))
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
    exact = step(variables.params, batch, key)[0].metrics
    near = jax.jit(lambda: OBJECTIVE.loss(low, variables, batch, key, BEGIN).metrics)()
    assert near["sigreg"].dtype == jnp.float32
    for name, value in exact.items():
        assert 0 < abs(near[name] - value) < 0.1 * value, name


# Settings.


def test_local_views_may_be_smaller_for_an_encoder_of_any_size():
    objective = LeJEPA(n_local=3, local_size=4)
    free = ViTArchitecture(image_size=8, patch_size=4, width=16, n_heads=2, any_size=True)
    assert objective.crops(free) == (Crop(2, 8, (0.3, 1.0)), Crop(3, 4, (0.2, 0.5)))
    with pytest.raises(InputError, match="local_size=4 is not image_size=8"):
        objective.crops(TINY)
    small = dataclasses.replace(objective, n_slices=4, projection=(4,))
    views = (jnp.ones((4, 8, 8, 3)), jnp.ones((6, 4, 4, 3)))
    outcome = jax.eval_shape(
        lambda key: small.loss(
            free, small.init(free, key), Batch(views, jnp.arange(2)), key, BEGIN
        ),
        jax.random.key(0),
    )
    assert outcome.loss.shape == ()


def test_without_local_views_there_is_one_group():
    assert LeJEPA(n_local=0).crops(TINY) == (Crop(2, 8, (0.3, 1.0)),)


@pytest.mark.parametrize(
    "change",
    [
        dict(regularization=1.5),
        dict(regularization=float("nan")),
        dict(n_global=0),
        dict(n_global=1, n_local=0),
        dict(n_local=-1),
        dict(n_slices=0),
        dict(global_scale=(0.5, 0.3)),
        dict(local_scale=(0.0, 0.3)),
        dict(projection=()),
        dict(projection=(8, 0)),
        dict(local_size=0),
    ],
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(InputError, match=rf"{list(change)[-1]}="):
        LeJEPA(**change)


# Pretraining.


def test_pretraining_makes_classes_neighbors():
    config = settings(LeJEPA(n_local=0, n_slices=64), n_steps=200, learning_rate=1e-2)
    (untrained, _), (trained, _), _ = accuracies_and_ranks(config)
    assert (trained > untrained + 0.2).all(), (untrained, trained)


def test_without_regularization_features_collapse():
    config = settings(
        LeJEPA(regularization=0.0, n_local=0, n_slices=64), n_steps=200, learning_rate=1e-2
    )
    (untrained, high), (trained, low), _ = accuracies_and_ranks(config)
    assert (low < 0.6 * high).all(), (high, low)
    assert (trained < untrained).all(), (untrained, trained)


def test_runs_over_devices_equal_runs_alone_nearly():
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8)
    objective = LeJEPA(n_local=1, n_slices=8, projection=(8, 4))
    config = settings(objective, n_steps=5, batch_size=8)
    config = dataclasses.replace(config, model=SMALL, runs_per_device=1)
    runs = [training.Run(np.arange(40), seed) for seed in range(4)]
    together = training.pretrain(images, runs, config, devices=Devices.first(4))
    alone = training.pretrain(images, runs[:1], config, devices=ONE_DEVICE)
    np.testing.assert_allclose(together.losses[0], alone.losses[0], rtol=1e-3)
