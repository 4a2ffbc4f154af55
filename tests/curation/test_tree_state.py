"""A hierarchical k-means continues from every state as if it had not been interrupted."""

import io

import numpy as np
import pytest

import jaxcurate as jc
from jaxcurate.curation.checkpoint import TreeState

ONE = jc.Devices.first(1)  # where there are several is no matter here, and takes long to compile
LEVELS = [jc.Level(40, n_resamples=2, n_per_cluster=6), jc.Level(9, resample="random"), jc.Level(3)]


class Stopped(Exception):
    pass


def stored(state):
    """Returns a state that was written to a file and read again."""
    file = io.BytesIO()
    np.savez(file, **state.to_arrays())
    file.seek(0)
    return TreeState.from_arrays(dict(np.load(file, allow_pickle=False)))


def assert_same(one, other):
    for a, b in zip(one.levels, other.levels, strict=True):
        for u, v in zip(a, b, strict=True):
            np.testing.assert_array_equal(u, v)


@pytest.fixture(scope="module")
def x():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(60, 24))[rng.integers(0, 60, 3000)] * 3).astype(
        np.float32
    ) + rng.normal(size=(3000, 24)).astype(np.float32)


@pytest.mark.parametrize("memory_limit", [None, pytest.param(200_000, marks=pytest.mark.slow)])
def test_goes_on_from_every_state(x, memory_limit):
    options = dict(seed=3, memory_limit=memory_limit, max_iter=8, devices=ONE)
    whole = jc.hierarchical_kmeans(x, LEVELS, **options)
    states = []
    watched = jc.hierarchical_kmeans(
        x, LEVELS, **options, on_state=lambda state: states.append(stored(state)), state_every=3
    )
    assert_same(whole, watched)
    kinds = {(len(s.levels), s.n_runs, s.kmeans and s.kmeans.phase) for s in states}
    assert {(0, 0, "seeding"), (0, 0, "iterating"), (0, 1, None), (1, 0, None)} <= kinds
    assert any(n_runs and phase for _, n_runs, phase in kinds)
    for state in states[:: max(1, len(states) // 6)] + states[-1:]:
        assert_same(whole, jc.hierarchical_kmeans(x, LEVELS, **options, state=state))


def test_an_interruption_costs_what_came_after_the_last_state(x):
    options = dict(seed=3, max_iter=8, devices=ONE)
    whole, states = jc.hierarchical_kmeans(x, LEVELS, **options), []

    def keep(state):
        states.append(state)
        if len(states) % 3 == 0:
            raise Stopped

    state = None
    for _ in range(30):
        try:
            found = jc.hierarchical_kmeans(
                x, LEVELS, **options, state=state, on_state=keep, state_every=9
            )
            break
        except Stopped:
            state = stored(states[-1])
    assert_same(whole, found)
    assert len(states) > 3


def test_states_are_made_when_they_are_due(x):
    states = []
    jc.hierarchical_kmeans(
        x, LEVELS, 3, max_iter=8, devices=ONE, on_state=states.append, state_due=lambda: False
    )
    assert states == []


@pytest.mark.parametrize(
    "options",
    [
        dict(devices=ONE),
        pytest.param(
            dict(shard_centroids=True, devices=jc.Devices.first(2)), marks=pytest.mark.slow
        ),
    ],
)
def test_splits_go_on_from_every_stack_and_split_centroids_from_whole_runs(x, options):
    levels = [jc.Level(10, n_splits=4), jc.Level(5)]
    whole, states = jc.hierarchical_kmeans(x, levels, 3, **options), []
    # A run with split centroids makes no states.
    jc.hierarchical_kmeans(x, levels, 3, **options, on_state=states.append, state_every=99)
    assert states
    within = [state for state in states if state.splits is not None]
    if not options.get("shard_centroids"):
        # Clusters of other sizes are other stacks; the last state is that after all of them.
        assert [state.splits.n_stacks for state in within] == list(range(1, len(within) + 1))
        assert len(within) > 1 and (within[0].splits.labels == -1).any()
    for state in (states[0], *within[:1], states[-1]):
        again = jc.hierarchical_kmeans(x, levels, 3, **options, state=stored(state))
        assert_same(whole, again)


def test_precision_changes_nothing(x):
    options = dict(seed=3, max_iter=8, devices=ONE)
    one = jc.hierarchical_kmeans(x, LEVELS, **options)
    assert_same(one, jc.hierarchical_kmeans(x, LEVELS, **options, precision="bfloat16"))


def test_a_state_of_something_else_is_refused(x):
    states = []
    jc.hierarchical_kmeans(x, LEVELS, 3, max_iter=8, devices=ONE, on_state=states.append)
    with pytest.raises(jc.InputError, match="another hierarchical k-means at level 1"):
        jc.hierarchical_kmeans(x[:2000], LEVELS, 3, state=states[-1])
    with pytest.raises(jc.InputError, match="state has 3 levels, but 1 are asked for"):
        jc.hierarchical_kmeans(x, LEVELS[:1], 3, state=states[-1])
    with pytest.raises(jc.InputError, match="not that of a hierarchical k-means"):
        TreeState.from_arrays({"n_levels": np.array(1)})
    with pytest.raises(jc.InputError, match="shard_centroids=True goes neither"):
        jc.hierarchical_kmeans(x, LEVELS, 3, shard_centroids=True, memory_limit=200_000)
