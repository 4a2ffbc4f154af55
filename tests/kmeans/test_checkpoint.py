"""A k-means that is stopped anywhere and goes on gives the bits of one that was not."""

import io

import numpy as np
import pytest

import jaxcurate as jc
from jaxcurate.kmeans.checkpoint import NO_STOPS, KMeansState
from jaxcurate.kmeans.streaming import _one_ahead
from jaxcurate.runtime.devices import ONE_DEVICE, Devices


def blobs(n, d, k, seed=0):
    rng = np.random.default_rng(seed)
    own = rng.integers(0, k, n)
    return (rng.normal(size=(k, d))[own] + 0.6 * rng.normal(size=(n, d))).astype(np.float32)


def stored(state):
    """The state after a way through a file."""
    file = io.BytesIO()
    np.savez(file, phase=state.phase, **state.arrays)
    file.seek(0)
    arrays = dict(np.load(file, allow_pickle=False))
    return KMeansState(str(arrays.pop("phase")), arrays)


def assert_same(a, b):
    np.testing.assert_array_equal(a.centroids, b.centroids)
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.distances, b.distances)
    np.testing.assert_array_equal(a.distance_fraction, b.distance_fraction)
    assert a.n_iter == b.n_iter


@pytest.mark.parametrize(
    ("memory_limit", "mapper"),
    [
        (None, "shard_map"),
        pytest.param(800_000, "shard_map", marks=pytest.mark.slow),
        pytest.param(None, "pmap", marks=pytest.mark.slow),
    ],
)
def test_goes_on_from_every_stop_bit_for_bit(memory_limit, mapper):
    devices = Devices.first(4, mapper)
    x = blobs(5000, 48, 12)  # the seeding draws for some steps at once
    options = dict(max_iter=12, seed=3, memory_limit=memory_limit, devices=devices)
    whole = jc.kmeans(x, 70, **options)
    states = []
    watched = jc.kmeans(x, 70, **options, on_state=states.append, state_every=2)
    assert_same(whole, watched)
    phases = [state.phase for state in states]
    assert phases.count("seeding") >= 2
    assert phases.count("iterating") >= 3
    first_of_each = {phase: phases.index(phase) for phase in ("seeding", "iterating")}
    for i in (*first_of_each.values(), len(states) - 1):
        assert_same(whole, jc.kmeans(x, 70, **options, state=stored(states[i])))


def test_a_state_goes_on_stopping():
    x = blobs(2000, 5, 12)
    states, later = [], []
    whole = jc.kmeans(x, 30, on_state=states.append, state_every=1)
    again = jc.kmeans(x, 30, state=states[2], on_state=later.append, state_every=1)
    assert_same(whole, again)
    assert len(later) == len(states) - 3


def test_goes_on_with_another_number_of_devices():
    x = blobs(3000, 8, 12)
    states = []
    whole = jc.kmeans(x, 40, on_state=states.append, state_every=2)
    for state in (states[0], states[-1]):
        fewer = jc.kmeans(x, 40, state=state, devices=Devices.first(2))
        assert (fewer.labels == whole.labels).mean() > 0.999
        assert fewer.inertia == pytest.approx(whole.inertia, rel=1e-5)


def test_a_state_of_another_kmeans_is_refused():
    x = blobs(600, 5, 12)
    states = []
    jc.kmeans(x, 30, on_state=states.append, state_every=1)
    with pytest.raises(ValueError, match="state is of another k-means: centroids is"):
        jc.kmeans(x, 31, state=states[0])
    with pytest.raises(ValueError, match="state is of another k-means: centroids is"):
        jc.kmeans(x, 31, state=states[-1])
    with pytest.raises(ValueError, match="state is of another k-means: closest"):
        jc.kmeans(x[:100], 30, state=states[0])
    with pytest.raises(ValueError, match=r"state has \['nothing'\], but"):
        jc.kmeans(x, 30, state=KMeansState("iterating", {"nothing": np.zeros(3)}))
    with pytest.raises(ValueError, match="state_every=0"):
        jc.kmeans(x, 30, state_every=0)


def test_cpu_devices_together_are_called_for_each_iteration(devices):
    """They free what a loop took when the call ends."""
    assert NO_STOPS.every(1, 50, devices) == 1
    assert NO_STOPS.every(1, 50, ONE_DEVICE) == 50


def test_a_chunk_is_over_before_the_second_next_is_read():
    told = []

    class Launched:
        def __init__(self, chunk):
            self.chunk = chunk

        def block_until_ready(self):
            told.append(f"over {self.chunk}")
            return self

    class RowStream:
        def __iter__(self):
            for chunk in range(3):
                told.append(f"wanted {chunk}")  # the next is read from here on
                yield slice(chunk), None

    def launch(chunk, part, rows):
        told.append(f"launched {chunk}")
        return Launched(chunk)

    for launched in _one_ahead(launch, RowStream()):
        told.append(f"taken in {launched.chunk}")
    assert told == [
        "wanted 0", "launched 0", "over 0",
        "wanted 1", "launched 1", "taken in 0", "over 1",
        "wanted 2", "launched 2", "taken in 1", "over 2",
        "taken in 2",
    ]  # fmt: skip
