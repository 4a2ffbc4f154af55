"""Loop of a large run, which gives the same losses on any number of devices and in any parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from jaxcurate import training
from jaxcurate.checks import InputError
from jaxcurate.models import BertConfig, load_bert
from jaxcurate.runtime.devices import ONE_DEVICE, Devices
from jaxcurate.training import loop, sharding
from jaxcurate.training.objectives import ObjectiveConfig
from jaxcurate.training.objectives.base import Batch


@pytest.fixture(scope="module")
def alone():
    """The run on one device."""
    return loop.train(tiny_run.settings(), tiny_run.data(), seed=0, devices=ONE_DEVICE)


def test_the_losses_are_those_of_many_small_runs(alone):
    run = training.Run(np.arange(60), seed=0)
    small = training.pretrain(tiny_run.images(), [run], tiny_run.settings(), devices=ONE_DEVICE)
    np.testing.assert_allclose(alone.losses, small.losses[0], atol=1e-5)
    assert alone.losses[-5:].mean() < alone.losses[:5].mean()


@pytest.mark.parametrize("shard_bytes", [2**30, 0], ids=["copied", "split"])
def test_four_devices_give_the_losses_of_one(alone, devices, shard_bytes):
    settings = tiny_run.settings(shard_bytes=shard_bytes)
    four = loop.train(settings, tiny_run.data(), seed=0, devices=devices)
    np.testing.assert_allclose(four.losses, alone.losses, atol=1e-4)
    assert jax.tree.structure(four.params) == jax.tree.structure(alone.params)
    for leaf, other in zip(*map(jax.tree.leaves, (four.params, alone.params)), strict=True):
        assert isinstance(leaf, np.ndarray) and leaf.shape == other.shape


def test_fsdp_splits_weights_and_optimizer_before_and_after_a_step(devices):
    settings, data, mesh = tiny_run.settings(), tiny_run.data(), sharding.mesh_of(devices)
    begin = lambda seed: loop.start(seed, settings)
    shardings = sharding.state_shardings(jax.eval_shape(begin, np.uint32(0)), mesh, 0)
    state = jax.jit(begin, out_shardings=shardings)(np.uint32(0))
    fed = next(data.fed(0))
    step = jax.jit(loop.make_step(settings, data, mesh, shardings), donate_argnums=0)
    place = np.uint32(0), np.int32(0)
    ids, constants = sharding.put_batch(fed.ids, mesh), sharding.put_same(data.constants, mesh)
    after, _ = step(state, constants, (), ids, *place)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))  # donated
    whole, held = 0, 0
    for leaf in jax.tree.leaves(after):
        shard = leaf.addressable_shards[0].data
        assert len(leaf.addressable_shards) == 4
        whole, held = whole + leaf.size, held + shard.size
        if leaf.ndim > 1:
            assert 4 * shard.size == leaf.size, leaf.shape
    assert held < 0.35 * whole


def test_a_state_below_the_limit_is_copied(devices):
    state = {"kernel": np.zeros((6, 8), np.float32), "odd": np.zeros((3, 5), np.float32)}
    mesh = sharding.mesh_of(devices)
    for limit, kernel in ((252, (None, "rows")), (253, ())):
        shardings = sharding.state_shardings(state, mesh, limit)
        assert tuple(shardings["kernel"].spec) == kernel
        assert tuple(shardings["odd"].spec) == ()


@pytest.mark.parametrize("n_devices", [1, 2])
def test_parts_of_a_batch_add_up_to_the_whole(n_devices):
    devices = Devices.first(n_devices)
    whole, parts = (
        loop.train(tiny_run.regression(n_accumulate=n), tiny_run.data(), seed=0, devices=devices)
        for n in (1, 4)
    )
    np.testing.assert_allclose(parts.losses, whole.losses, rtol=1e-4)
    for one, other in zip(whole.metrics, parts.metrics, strict=True):
        for name in ("loss", "gradient_norm", "red"):
            assert one[name] == pytest.approx(other[name], rel=1e-3), name


def test_after_step_gets_the_mean_over_the_parts():
    settings = tiny_run.regression(n_accumulate=2)
    data, mesh = tiny_run.data(), sharding.mesh_of(ONE_DEVICE)
    begin = lambda seed: loop.start(seed, settings)
    shardings = sharding.state_shardings(jax.eval_shape(begin, np.uint32(0)), mesh, 2**30)
    step = jax.jit(loop.make_step(settings, data, mesh, shardings))
    ids = next(data.fed(0)).ids
    state, _ = step(begin(np.uint32(0)), data.constants, (), ids, np.uint32(0), np.int32(0))
    color = (data.constants[ids].astype(np.float64) / 127.5 - 1).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(state.variables.extra["sum"], color, atol=1e-5)
    assert state.variables.extra["n"] == 1


class Crops:
    """Input of pictures that the host has cropped: two crops of each."""

    def __init__(self, n_parts=1, part=0):
        self._pictures, self.constants, self.closed = tiny_run.images(), (), False
        self._part = slice(16 * part // n_parts, 16 * (part + 1) // n_parts)

    def fed(self, first_step):
        for step in range(first_step, tiny_run.N_STEPS):
            rows = (np.arange(step, step + 16) % 60)[self._part]
            crops = np.stack([self._pictures[rows], 255 - self._pictures[rows]], axis=1)
            yield training.input.Fed((crops,), rows.astype(np.int32))

    def views(self, constants, arrays, ids, key, crops, augmentation):
        assert [crop.n for crop in crops] == [2]
        crops_first = arrays[0].swapaxes(0, 1).reshape(-1, 8, 8, 3)
        return Batch((crops_first.astype(jnp.float32) / 127.5 - 1,), ids)

    def state(self):
        return {}

    def restore(self, state):
        pass

    def close(self):
        self.closed = True


def test_crops_of_the_host_are_split_over_the_devices(devices):
    inputs = Crops(), Crops()
    one, four = (
        loop.train(tiny_run.settings(), data, seed=0, devices=used)
        for data, used in zip(inputs, (ONE_DEVICE, devices), strict=True)
    )
    assert all(data.closed for data in inputs)
    np.testing.assert_allclose(four.losses, one.losses, atol=1e-4)


def test_a_loss_that_is_no_number_names_its_step_and_rows():
    settings, data = tiny_run.regression(bad_step=7), tiny_run.data()
    with pytest.raises(InputError) as raised:
        loop.train(settings, data, seed=0, devices=ONE_DEVICE)
    line = str(raised.value)
    rows = ", ".join(map(str, next(tiny_run.data().fed(7)).ids[:8]))
    assert line.startswith(f"the loss is not finite at step 7 (rows {rows}, ...): try a learning")
    assert "\n" not in line


def test_fewer_images_than_a_batch_are_repeated():
    trained = loop.train(tiny_run.settings(), tiny_run.data(5), seed=0, devices=ONE_DEVICE)
    assert np.isfinite(trained.losses).all() and trained.losses.shape == (20,)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(batch_size=10), "batch_size=10 cannot be split over 4 devices; a multiple of 4 can"),
        (dict(n_accumulate=8), "n_accumulate=8 parts cannot be split over 4 devices"),
        (dict(batch_size=32), "the input gives 16 items to each of 1 process"),
    ],
)
def test_batches_that_do_not_fit_are_refused(devices, change, words):
    with pytest.raises(InputError, match=words):
        loop.train(tiny_run.settings(**change), tiny_run.data(), seed=0, devices=devices)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(n_accumulate=3), "n_accumulate=3 does not divide batch_size=16"),
        (dict(n_accumulate=16), "parts of at least 2"),
        (dict(n_accumulate=0), "n_accumulate=0"),
        (dict(clip_norm=0), "clip_norm=0"),
        (dict(log_every=0), "log_every=0"),
        (dict(eval_every=0), "eval_every=0"),
        (dict(checkpoint_steps=0), "checkpoint_steps=0"),
        (dict(checkpoint_minutes=0), "checkpoint_minutes=0"),
        (dict(keep=0), "keep=0"),
        (dict(b2=1), "b2=1"),
        (dict(weight_decay_end=-1), "weight_decay_end=-1"),
        (dict(learning_rate_end=1), "learning_rate_end=1 is above learning_rate=0.005"),
    ],
)
def test_settings_out_of_range_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        tiny_run.settings(**change)


def test_without_steps_the_weights_are_those_of_the_start():
    data = training.ResidentInput(tiny_run.images(), training.Run(np.arange(60), 0), 0, 16)
    trained = loop.train(tiny_run.settings(n_steps=0), data, seed=0, devices=ONE_DEVICE)
    small = training.pretrain(
        tiny_run.images(),
        [training.Run(np.arange(60), 0)],
        tiny_run.settings(n_steps=0),
        devices=ONE_DEVICE,
    )
    assert trained.losses.shape == (0,) and trained.metrics == []
    for one, other in zip(*map(jax.tree.leaves, (trained.params, small.params)), strict=True):
        np.testing.assert_array_equal(one, other[0])


def test_texts_are_trained_and_read_back(tmp_path):
    bert = BertConfig(vocab_size=150, n_positions=8, width=16, depth=1, n_heads=2, hidden=32)
    tokens = np.random.default_rng(0).integers(106, 150, (40, 8), dtype=np.int32)
    settings = tiny_run.settings(objective=ObjectiveConfig("mlm"), bert=bert, eval_every=10)
    data = training.TokenInput(tokens, training.Run(np.arange(40), seed=0), 20, 16)
    trained = loop.train(settings, data, seed=0, devices=ONE_DEVICE, folder=tmp_path)
    assert [line["step"] for line in trained.metrics if "rankme" in line] == [10, 20]
    words = load_bert(tmp_path / "encoder" / "last").words.embedding[...]
    np.testing.assert_array_equal(words, trained.params["words"]["embedding"])
