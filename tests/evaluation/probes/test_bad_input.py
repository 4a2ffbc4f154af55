"""Features, labels and options that every probe refuses by name."""

from functools import partial

import numpy as np
import pytest

from jaxcurate.evaluation import average_precisions, few_shot, knn, linear, ridge


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(train_x=np.zeros((0, 3))), "train_x"),
        (dict(train_x=np.zeros(4)), "train_x"),
        (dict(train_y=np.zeros(3, int)), "train_y"),
        (dict(test_x=np.zeros((2, 4))), "test_x"),
        (dict(test_x=np.full((2, 3), np.nan)), "test_x has values that are not finite"),
        (dict(train_x=np.full((4, 3), np.inf)), "train_x has values that are not finite"),
    ],
)
@pytest.mark.parametrize("classify", [knn, ridge, linear, partial(few_shot, n_shots=2)])
def test_bad_features_are_refused(classify, change, words):
    given = dict(train_x=np.ones((4, 3)), train_y=np.arange(4), test_x=np.ones((2, 3))) | change
    with pytest.raises(ValueError, match=words):
        classify(**given)


def test_bad_options_are_refused():
    x, y = np.ones((4, 3)), np.arange(4)
    with pytest.raises(ValueError, match="k=0"):
        knn(x, y, x, k=0)
    with pytest.raises(ValueError, match="temperature=0"):
        knn(x, y, x, temperature=0)
    with pytest.raises(ValueError, match="l2=-1"):
        ridge(x, y, x, l2=-1)
    with pytest.raises(ValueError, match="l2=0"):
        linear(x, y, x, l2=0)
    with pytest.raises(ValueError, match="n_shots=0"):
        few_shot(x, y, x, n_shots=0)
    with pytest.raises(ValueError, match="draw=-1"):
        few_shot(x, y, x, n_shots=1, draw=-1)
    with pytest.raises(ValueError, match="test_x of shape"):
        average_precisions(x, y, x[:, :2], y)
