"""Masked language modeling: which tokens are masked, the loss, and what is learned."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcurate import training
from jaxcurate.evaluation.probes import knn
from jaxcurate.models.bert import BertConfig
from jaxcurate.runtime.devices import ONE_DEVICE, Devices
from jaxcurate.training.objectives import MLM, Batch, ObjectiveConfig
from jaxcurate.training.objectives.mlm import Predicting, choose, cross_entropy

TINY = BertConfig(vocab_size=60, n_positions=16, width=16, depth=1, n_heads=2, hidden=32)
MASKS = MLM(fraction=0.3, mask_id=4, n_special=10)
CLS, SEP = 1, 2


def texts(n, rng, lengths=(4, 14)):
    """Returns token ids of random texts between two special tokens, padded."""
    ids = np.zeros((n, 16), np.int32)
    for row in ids:
        length = rng.integers(*lengths)
        row[: length + 2] = [CLS, *rng.integers(10, 60, length), SEP]
    return ids


@pytest.fixture(scope="module")
def ids():
    return texts(400, np.random.default_rng(0))


def test_chosen_places_are_distinct_tokens_of_the_text_and_uniform(ids):
    places, weight = choose(jax.random.key(0), jnp.asarray(ids), 0.3, 0, 10)
    assert places.shape == weight.shape == (400, round(0.3 * 16))
    hits = np.zeros(ids.shape)
    for row, (at, used) in enumerate(zip(np.asarray(places), np.asarray(weight) > 0, strict=True)):
        assert len(set(at[used])) == used.sum()
        assert (ids[row, at[used]] >= 10).all()  # neither padding nor a special token
        assert used.sum() == max(1, round(0.3 * (ids[row] >= 10).sum()))
        hits[row, at[used]] = 1
    long = ids[:, 13] >= 10  # texts that have all of the first places
    rate = hits[long, 1:13].mean(axis=0)
    assert abs(rate - rate.mean()).max() < 0.2


def test_a_text_without_tokens_has_no_part_in_the_loss():
    alone = jnp.array([[CLS, SEP, 0, 0], [CLS, 20, 30, SEP]])
    _, weight = choose(jax.random.key(0), alone, 0.5, 0, 10)
    assert weight.sum(axis=1).tolist() == [0, 1]


def test_most_chosen_tokens_are_masked_some_are_random_and_some_stay(ids):
    many = jnp.asarray(np.tile(ids, (10, 1)))
    places, weight = choose(jax.random.key(0), many, 0.3, 0, 10)
    seen = np.asarray(MASKS.replaced(jax.random.key(1), many, places, weight, 60))
    is_chosen = np.zeros(many.shape, bool)
    for row, (at, used) in enumerate(zip(np.asarray(places), np.asarray(weight) > 0, strict=True)):
        is_chosen[row, at[used]] = True
    np.testing.assert_array_equal(seen[~is_chosen], np.asarray(many)[~is_chosen])
    new, old = seen[is_chosen], np.asarray(many)[is_chosen]
    assert np.mean(new == 4) == pytest.approx(0.8, abs=0.02)
    assert np.mean(new == old) == pytest.approx(0.1 + 0.1 / 50, abs=0.02)
    assert (new[new != 4] >= 10).all()


def test_cross_entropy_is_that_of_float64():
    rng = np.random.default_rng(0)
    logits, target = 9 * rng.normal(size=(3, 4, 50)), rng.integers(0, 50, (3, 4))
    shifted = logits - logits.max(axis=-1, keepdims=True)
    chance = np.exp(shifted) / np.exp(shifted).sum(axis=-1, keepdims=True)
    expected = -np.log(np.take_along_axis(chance, target[..., None], -1))[..., 0]
    loss, correct = cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(target))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_array_equal(correct, logits.argmax(-1) == target)


def test_logits_are_those_of_the_places(ids):
    network = Predicting(TINY, rngs=nnx.Rngs(0))
    few = jnp.asarray(ids[:3])
    everywhere = network(few, jnp.tile(jnp.arange(16)[None], (3, 1)))
    places = jnp.array([[3, 0], [1, 5], [2, 2]])
    got = network(few, places)
    assert got.shape == (3, 2, 60) and got.dtype == jnp.float32
    expected = jnp.take_along_axis(everywhere, places[..., None], axis=1)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_first_loss_is_that_of_a_guess(ids, precision):
    model = dataclasses.replace(TINY, precision=precision)
    variables = MASKS.init(model, jax.random.key(0))
    batch = Batch((jnp.asarray(ids[:64]),), jnp.arange(64))
    outcome = MASKS.loss(model, variables, batch, jax.random.key(1), jnp.float32(0))
    assert outcome.loss.dtype == jnp.float32
    assert outcome.loss == pytest.approx(np.log(60), abs=0.6)
    assert 0 <= outcome.metrics["masked_accuracy"] <= 1


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(fraction=0.0), "fraction=0.0"),
        (dict(fraction=1.5), "fraction=1.5"),
        (dict(mask_id=106), "mask_id=106"),
    ],
)
def test_impossible_settings_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        MLM(**change)


def topics(n, rng):
    """Returns texts of four topics, each with a part of the vocabulary of its own."""
    topic = rng.integers(0, 4, n)
    ids = np.zeros((n, 16), np.int32)
    common = rng.integers(50, 60, ids.shape)
    own = 10 + 10 * topic[:, None] + rng.integers(0, 10, ids.shape)
    ids[:, 1:15] = np.where(rng.random(ids.shape) < 0.35, own, common)[:, 1:15]
    ids[:, 0], ids[:, 15] = CLS, SEP
    return ids, topic


def settings(**change):
    objective = ObjectiveConfig("mlm", mlm=dataclasses.replace(MASKS, **change))
    return training.PretrainConfig(
        bert=TINY,
        objective=objective,
        n_steps=250,
        batch_size=64,
        learning_rate=1e-2,
        runs_per_device=1,
    )


def accuracy(trained, run, config, data):
    (train, train_y), (test, test_y) = data
    features = [
        training.encode(trained.params, ids, config, devices=ONE_DEVICE)[run]
        for ids in (train, test)
    ]
    return np.mean(knn(features[0], train_y, features[1]) == test_y)


def test_topics_are_learned_and_not_when_all_is_masked():
    rng = np.random.default_rng(0)
    (pool, _), *data = (topics(n, rng) for n in (1000, 200, 200))
    runs = [training.Run(np.arange(1000), seed) for seed in (0, 1)]
    found = {}
    for name, change in (("a third", {}), ("all", dict(fraction=1.0))):
        config = settings(**change)
        trained = training.pretrain(pool, runs, config, devices=ONE_DEVICE)
        found[name] = np.mean([accuracy(trained, run, config, data) for run in (0, 1)])
    config = dataclasses.replace(settings(), n_steps=0)
    random = training.pretrain(pool, runs, config, devices=ONE_DEVICE)
    found["none"] = np.mean([accuracy(random, run, config, data) for run in (0, 1)])
    print(found)
    assert found["a third"] > found["none"] + 0.05
    assert found["a third"] > found["all"] + 0.05


def test_runs_together_are_runs_alone():
    ids, _ = topics(100, np.random.default_rng(0))
    config = dataclasses.replace(settings(), n_steps=5)
    runs = [training.Run(np.arange(n), n) for n in (100, 50, 80)]
    alone = [training.pretrain(ids, [run], config, devices=ONE_DEVICE).losses[0] for run in runs]
    together = training.pretrain(
        ids, runs, dataclasses.replace(config, runs_per_device=2), devices=Devices.first(2)
    )
    np.testing.assert_allclose(together.losses, alone, rtol=1e-4)


@pytest.mark.parametrize(
    "items, words",
    [
        (np.zeros((5, 17), np.int32), "n_positions=16"),
        (np.zeros((5, 16), np.uint8), "int32"),
        (np.full((5, 16), 60, np.int32), "vocab_size=60"),
    ],
)
def test_other_items_are_refused(items, words):
    with pytest.raises(ValueError, match=words):
        training.pretrain(items, [training.Run(np.arange(5), 0)], settings(), devices=ONE_DEVICE)
