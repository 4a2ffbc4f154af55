"""Batches by step, and the input of resident pictures and of tokens."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcurate as jc
from jaxcurate.checks import InputError
from jaxcurate.curation.stratified_batches import Batches
from jaxcurate.training import Augmentation, Run, augment
from jaxcurate.training.input import ResidentInput, TokenInput
from jaxcurate.training.objectives import Crop
from jaxcurate.training.runs import batches_of, schedule
from jaxcurate.training.schedule import Epochs, Schedule

ROWS = np.array([3, 4, 7, 8, 9, 11, 15, 16, 18, 19])
RUN = Run(ROWS, seed=5)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3)).astype(np.uint8)


@pytest.mark.parametrize("n_rows, batch_size", [(10, 4), (10, 10), (3, 8), (100, 7)])
def test_epochs_are_the_schedule_in_any_order(n_rows, batch_size):
    rows = np.arange(n_rows) * 3
    wanted = schedule(rows, 7, 30, batch_size)
    epochs = Epochs(rows, 7, 30, batch_size)
    assert len(epochs) == 30 and epochs[0].dtype == np.int32
    for step in (29, 0, 17, 16, 3, *range(30)):
        np.testing.assert_array_equal(epochs[step], wanted[step])
    with pytest.raises(IndexError):
        epochs[30]


def test_resident_pictures_are_those_of_pretraining(images):
    data = ResidentInput(images, RUN, n_steps=6, batch_size=4)
    batches = batches_of(RUN, 6, 4)
    key, crops = jax.random.key(1), (Crop(2, 8), Crop(1, 4))
    fed = list(data.fed(0))
    assert len(fed) == 6 and fed[0].arrays == () and fed[0].ids.dtype == np.int32
    for step, (_, ids) in enumerate(fed):
        np.testing.assert_array_equal(data.constants[ids], images[batches[step]])
    batch = data.views(jnp.asarray(data.constants), (), fed[2].ids, key, crops, Augmentation())
    wanted = augment.crops_of(key, jnp.asarray(images[batches[2]]), crops, Augmentation())
    for got, view in zip(batch.views, wanted, strict=True):
        np.testing.assert_array_equal(got, view)
    np.testing.assert_array_equal(batch.ids, fed[2].ids)


def test_texts_are_their_tokens():
    tokens = np.arange(60, dtype=np.int32).reshape(20, 3)
    data = TokenInput(tokens, RUN, n_steps=3, batch_size=4)
    for step, ((given,), ids) in enumerate(data.fed(0)):
        np.testing.assert_array_equal(ids, batches_of(RUN, 3, 4)[step])
        np.testing.assert_array_equal(given, tokens[ids])
    batch = data.views((), (jnp.asarray(given),), ids, jax.random.key(0), (), Augmentation())
    np.testing.assert_array_equal(batch.views[0], given)


def test_processes_read_parts_that_make_up_the_batch(images):
    whole = list(ResidentInput(images, RUN, 5, 6).fed(0))
    parts = [list(ResidentInput(images, RUN, 5, 6, n_parts=3, part=i).fed(0)) for i in range(3)]
    for step in range(5):
        joined = np.concatenate([part[step].ids for part in parts])
        np.testing.assert_array_equal(joined, whole[step].ids)


def test_stratified_batches_are_taken_as_they_are(images):
    tree = jc.ClusterTree.from_labels([np.repeat([0, 1], [14, 6])])
    batches = Batches(tree, 4, n_steps=5, rows=ROWS)
    data = ResidentInput(images, Run(ROWS, 5, batches), 5, 4)
    for step, (_, ids) in enumerate(data.fed(0)):
        np.testing.assert_array_equal(ROWS[ids], batches[step])
    state = data.state()
    other = Batches(tree, 4, n_steps=5, rows=ROWS, seed=1)
    with pytest.raises(InputError, match="batches are others"):
        ResidentInput(images, Run(ROWS, 5, other), 5, 4).restore(state)
    tables = [np.stack(list(of)) for of in (batches, other)]  # arrays have no fingerprint
    states = [Schedule(Run(ROWS, 5, list(table)), 5, 4).state() for table in tables]
    assert states[0] != states[1]


def test_a_state_continues_where_it_was(images):
    whole = [fed.ids for fed in ResidentInput(images, RUN, 6, 4).fed(0)]
    first = ResidentInput(images, RUN, 6, 4)
    given = first.fed(0)
    for _ in range(2):
        next(given)
    state = json.loads(json.dumps(first.state()))
    assert state["step"] == 2
    second = ResidentInput(images, RUN, 6, 4, n_parts=2, part=1)  # another number of processes
    second.restore(state)
    assert second.state() == state
    rest = [fed.ids for fed in second.fed(state["step"])]
    np.testing.assert_array_equal(rest, np.stack(whole[2:])[:, 2:])


@pytest.mark.parametrize(
    "run, batch_size, state, words",
    [
        (Run(ROWS, 6), 4, {}, "batches are others"),
        (Run(ROWS[1:], 5), 4, {}, "batches are others"),
        (RUN, 5, {}, "batches are others"),
        (RUN, 4, {"step": 7}, "at step 7 of 6"),
        (RUN, 4, {"step": "x"}, "at step 'x'"),
    ],
)
def test_a_state_of_other_batches_is_refused(images, run, batch_size, state, words):
    state = {**ResidentInput(images, RUN, 6, 4).state(), **state}
    with pytest.raises(InputError, match=words):
        ResidentInput(images, run, 6, batch_size).restore(state)


def test_bad_arguments_are_named(images):
    with pytest.raises(InputError, match=r"float64 of shape \(20, 8, 8, 3\)"):
        ResidentInput(images / 255, RUN, 5, 4)
    with pytest.raises(InputError, match="int64 of shape"):
        TokenInput(np.zeros((20, 3), np.int64), RUN, 5, 4)
    with pytest.raises(InputError, match="outside the 5"):
        TokenInput(np.zeros((5, 3), np.int32), RUN, 5, 4)
    with pytest.raises(InputError, match="multiple of the 3 processes"):
        ResidentInput(images, RUN, 5, 4, n_parts=3)
    with pytest.raises(InputError, match="part=2"):
        ResidentInput(images, RUN, 5, 4, n_parts=2, part=2)
    with pytest.raises(InputError, match="first_step=9"):
        next(ResidentInput(images, RUN, 5, 4).fed(9))
