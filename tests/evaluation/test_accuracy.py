"""Means over classes and domains against sums by hand."""

import numpy as np
import pytest

from jaxcurate.evaluation import domain_accuracies, macro_accuracy
from jaxcurate.evaluation.accuracy import class_means, domain_means, macro_mean


def test_accuracies_by_hand():
    labels = np.array(["a", "a", "a", "b", "c", "c"])
    predicted = np.array(["a", "a", "b", "b", "c", "a"])
    domains = np.array([0, 0, 0, 0, 1, 1])
    assert domain_accuracies(predicted, labels, domains) == {
        0: pytest.approx((2 / 3 + 1) / 2),
        1: pytest.approx(1 / 2),
    }
    assert macro_accuracy(predicted, labels, domains) == pytest.approx((5 / 6 + 1 / 2) / 2)


def test_domains_may_have_names_and_share_a_class():
    labels = np.array([1, 1, 1, 2])
    predicted = np.array([1, 0, 0, 2])
    domains = np.array(["x", "y", "y", "y"])
    assert domain_accuracies(predicted, labels, domains) == {"x": 1.0, "y": 0.5}


def test_means_of_scores_are_those_of_each_class_in_each_domain():
    rng = np.random.default_rng(0)
    scores, labels = rng.random(200), rng.integers(0, 6, 200)
    domains = np.array(["x", "y", "z"])[rng.integers(0, 3, 200)]
    expected = {
        domain: np.mean(
            [
                scores[(domains == domain) & (labels == label)].mean()
                for label in np.unique(labels[domains == domain])
            ]
        )
        for domain in ("x", "y", "z")
    }
    assert domain_means(scores, labels, domains) == pytest.approx(expected)
    assert macro_mean(scores, labels, domains) == pytest.approx(np.mean(list(expected.values())))
    assert class_means(scores, labels)[4] == pytest.approx(scores[labels == 4].mean())


def test_rows_that_do_not_fit_are_refused():
    y = np.arange(4)
    with pytest.raises(ValueError, match="3 domains"):
        macro_accuracy(y, y, y[:3])
    with pytest.raises(ValueError, match="labels is empty"):
        macro_accuracy(y[:0], y[:0], y[:0])
