"""DINOv2: its three losses by hand, the mask token, and the features that it learns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distillation import hues, pairs_entropy, sinkhorn, softmax
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from jaxcurate import training
from jaxcurate.evaluation import knn
from jaxcurate.models import ViTArchitecture
from jaxcurate.runtime.devices import ONE_DEVICE
from jaxcurate.training import augment
from jaxcurate.training.features import encoder
from jaxcurate.training.objectives import Batch, DINOv2, ObjectiveConfig
from jaxcurate.training.objectives.block_masks import block_masks
from jaxcurate.training.objectives.dinov2 import koleo, patch_cross_entropy

TINY = ViTArchitecture(image_size=8, patch_size=2, width=16, depth=1, n_heads=2, mlp_ratio=2)
SMALL = DINOv2(
    n_local=2,
    local_size=4,
    global_scale=(0.5, 1.0),
    local_scale=(0.25, 0.5),
    n_hidden=32,
    bottleneck=16,
    n_prototypes=64,
)
STRONG = training.Augmentation(brightness=0.6, contrast=0.6, saturation=0.2, gray=0)
LEARNS = training.PretrainConfig(
    model=TINY,
    augmentation=STRONG,
    n_steps=100,
    batch_size=32,
    learning_rate=1e-2,
    objective=ObjectiveConfig("dinov2", dinov2=SMALL),
    runs_per_device=2,
)


def batch_of(n=8):
    images = jnp.asarray(hues(n, 0)[0])
    views = augment.crops_of(jax.random.key(0), images, SMALL.crops(TINY), STRONG)
    return Batch(views, jnp.arange(n))


def started(objective=SMALL, model=TINY):
    """Variables of a run whose teacher differs from the student."""
    start = jax.jit(objective.init, static_argnums=0)
    variables, other = (start(model, jax.random.key(seed)) for seed in (0, 1))
    return variables._replace(extra=variables.extra._replace(teacher=other.params))


def brute_koleo(x, ids):
    x = np.asarray(x, np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    logs = []
    for i in range(len(x)):
        logs.append(
            np.log(min(np.linalg.norm(x[i] - x[j]) for j in range(len(x)) if ids[j] != ids[i]))
        )
    return -np.mean(logs)


def test_koleo_is_the_log_of_the_distance_to_the_nearest_other_image():
    x = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    x[1] = 2 * x[0]  # the same image in two crops, which are not neighbors
    ids = np.r_[0, 0, np.arange(2, 20)]
    np.testing.assert_allclose(koleo(jnp.asarray(x), jnp.asarray(ids)), brute_koleo(x, ids), 1e-5)


def test_koleo_pushes_equal_features_apart_without_nan():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)
    near = x.at[1].set(x[0] + 1e-3)
    gradient = jax.grad(koleo)(near, jnp.arange(6))
    assert jnp.vdot(gradient[0] - gradient[1], near[0] - near[1]) < 0
    assert np.isfinite(jax.grad(koleo)(x.at[1].set(x[0]), jnp.arange(6))).all()


def test_the_patch_loss_is_a_mean_over_the_masked_patches_of_each_image():
    rng = np.random.default_rng(0)
    scores, is_masked = rng.normal(size=(3 * 4, 6)), rng.random((3, 4)) < 0.6
    is_masked[:, 0] = True
    targets = softmax(rng.normal(size=(3 * 4, 6)))
    each = -(targets * np.log(softmax(scores))).sum(axis=1).reshape(3, 4)
    expected = np.mean([row[mask].mean() for row, mask in zip(each, is_masked, strict=True)])
    got = patch_cross_entropy(jnp.float32(targets), jnp.float32(scores), jnp.asarray(is_masked))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("pooling, shared", [("mean", True), ("class", False)])
def test_the_loss_is_that_of_images_and_masked_patches_and_koleo(pooling, shared):
    model = dataclasses.replace(TINY, class_token=True, n_registers=1, pooling=pooling)
    objective = dataclasses.replace(SMALL, shared_head=shared)
    variables, batch, key = started(objective, model), batch_of(), jax.random.key(5)
    got = jax.jit(objective.loss, static_argnums=0)(model, variables, batch, key, jnp.float32(0.5))

    masks = block_masks(jax.random.split(key)[0], 8, 4, (0.1, 0.5))
    mask = np.r_[masks.mask, np.zeros((8, 16), bool)]

    @jax.jit
    def run(params, views, mask):
        network = objective.merged(model, params)
        features, patches = network.features(views[0], mask)
        # The output of the encoder, and its heads on all patches.
        features = [network.encoder(views[0], mask), *(network.encoder(x) for x in views[1:])]
        head = network.head if shared else network.patch_head
        return features[0], network.head(jnp.concatenate(features)), head(patches.reshape(-1, 16))

    _, seen, seen_patches = run(variables.extra.teacher, batch.views[:1], jnp.zeros_like(mask))
    features, scores, patch_scores = run(variables.params, batch.views, jnp.asarray(mask))
    targets = sinkhorn(np.asarray(seen) / 0.04, 3).reshape(2, 8, -1)
    image = pairs_entropy(targets, np.asarray(scores).reshape(4, 8, -1) / 0.1)
    np.testing.assert_allclose(got.metrics["image"], image, rtol=1e-3)

    places = np.flatnonzero(mask)
    each = sinkhorn(np.asarray(seen_patches)[places] / 0.04, 3)
    each = -(each * np.log(softmax(np.asarray(patch_scores, np.float64)[places] / 0.1))).sum(axis=1)
    patch = np.mean([each[places // 16 == i].mean() for i in range(8)])
    np.testing.assert_allclose(got.metrics["patch"], patch, rtol=1e-3)
    spread = brute_koleo(features[:8], range(8)) + brute_koleo(features[8:], range(8))
    np.testing.assert_allclose(got.loss, image + 0.5 * patch + 0.1 * spread, rtol=1e-3)


def test_a_batch_split_over_devices_has_the_same_loss_and_gradient(devices):
    variables, batch = started(), batch_of()
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("batch")))

    @jax.jit
    def gradient(params, batch):
        def loss(params):
            changed = variables._replace(params=params)
            return SMALL.loss(TINY, changed, batch, jax.random.key(2), jnp.float32(0.5)).loss

        return jax.value_and_grad(loss)(params)

    (loss, one), (split_loss, four) = (gradient(variables.params, b) for b in (batch, split))
    np.testing.assert_allclose(split_loss, loss, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(four), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-4)


@pytest.mark.parametrize("keeps", [False, True])
def test_the_mask_token_is_trained_and_kept_only_by_models_that_have_one(keeps):
    model = dataclasses.replace(TINY, mask_token=keeps)
    variables, batch = started(model=model), batch_of()

    def loss(params):
        changed = variables._replace(params=params)
        return SMALL.loss(model, changed, batch, jax.random.key(2), jnp.float32(0.5)).loss

    of_params = nnx.to_pure_dict(jax.jit(jax.grad(loss))(variables.params))
    of_token = of_params["encoder"]["mask_token"] if keeps else of_params["mask_token"]
    assert np.any(of_token)
    exported = SMALL.encoder(variables)
    assert ("mask_token" in exported) == keeps
    plain = encoder(jax.tree.map(lambda p: p[None], exported), 0, model)
    assert plain(batch.views[0]).shape == (16, 16)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(pooling="attention"), "pooling='attention'"),
        (dict(projection=8), "projection=8"),
        (dict(class_token=True, pooling="class_mean"), "shared_head=True"),
    ],
)
def test_encoders_that_do_not_fit_are_refused(change, words):
    objective = dataclasses.replace(SMALL, shared_head=True)
    with pytest.raises(ValueError, match=words):
        objective.network(dataclasses.replace(TINY, **change), rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    "change", [dict(mask_ratio=(0.5, 0.2)), dict(mask_ratio=(0, 0)), dict(koleo_weight=-1.0)]
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))}="):
        DINOv2(**change)


def test_it_learns():
    images, classes = hues(512, seed=0)
    runs = [training.Run(np.arange(256), seed) for seed in (0, 1)]

    def accuracies(n_steps):
        settings = dataclasses.replace(LEARNS, n_steps=n_steps)
        params = training.pretrain(images, runs, settings, devices=ONE_DEVICE).params
        features = training.encode(params, images, LEARNS, devices=ONE_DEVICE)
        predicted = [knn(z[:256], classes[:256], z[256:]) for z in features]
        return np.array([(labels == classes[256:]).mean() for labels in predicted])

    gains = accuracies(100) - accuracies(0)
    assert gains.min() > 0.1, gains  # 0.17 and 0.22 were measured
