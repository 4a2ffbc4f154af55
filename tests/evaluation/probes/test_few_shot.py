"""Few-shot classification against float64 class means, and its draws."""

import numpy as np
import pytest

from jaxcurate.evaluation import ProbeTask, few_shot
from jaxcurate.evaluation.probes.few_shot import N_DRAWS, drawn, few_shot_scores


def unit(x):
    x = x.astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("n_shots, draw", [(1, 0), (5, 3), (1000, 1)])
def test_few_shot_equals_float64_class_means(blobs, n_shots, draw):
    train_x, train_y, test_x, _ = blobs
    known, classes = np.unique(train_y, return_inverse=True)
    rows = drawn(classes, n_shots, draw)
    means = np.stack([unit(train_x)[rows[classes[rows] == c]].mean(axis=0) for c in range(5)])
    cosine = np.sort(unit(test_x) @ unit(means).T, axis=1)
    clear = cosine[:, -1] - cosine[:, -2] > 1e-6
    expected = known[(unit(test_x) @ unit(means).T).argmax(axis=1)]
    got = few_shot(train_x, train_y, test_x, n_shots=n_shots, draw=draw)
    assert clear.mean() > 0.98
    np.testing.assert_array_equal(got[clear], expected[clear])


def test_scores_are_means_over_draws(blobs):
    train_x, train_y, test_x, test_y = blobs
    each = [few_shot(train_x, train_y, test_x, n_shots=2, draw=d) for d in range(N_DRAWS)]
    scores = few_shot_scores(ProbeTask(*blobs), n_shots=2)
    np.testing.assert_allclose(scores, np.mean([got == test_y for got in each], axis=0))
    assert len({got.tobytes() for got in each}) == N_DRAWS


def test_more_shots_are_better(blobs):
    one, five, all_rows = (few_shot_scores(ProbeTask(*blobs), n_shots=n).mean() for n in (1, 5, 99))
    assert one + 0.05 < five < all_rows


def test_draws_take_as_many_rows_as_there_are_and_are_nested():
    classes = np.array([2, 0, 1, 1, 1, 1, 0, 1])
    for draw in range(5):
        few, more = drawn(classes, 2, draw), drawn(classes, 4, draw)
        assert np.bincount(classes[few]).tolist() == [2, 2, 1]
        assert np.bincount(classes[more]).tolist() == [2, 4, 1]
        assert set(few) < set(more)
    assert len({tuple(drawn(classes, 1, draw)) for draw in range(20)}) > 5
    rows = np.concatenate([drawn(np.zeros(10, int), 3, draw) for draw in range(2000)])
    times = np.bincount(rows, minlength=10)
    assert abs(times - 600).max() < 100  # five standard deviations


def test_few_shot_keeps_names_and_an_empty_test_set():
    x, y = np.eye(3, dtype=np.float32), np.array(["cat", "dog", "eel"])
    assert few_shot(x, y, x[[2, 0]], n_shots=5).tolist() == ["eel", "cat"]
    assert few_shot(x, y, x[:0], n_shots=5).tolist() == []
