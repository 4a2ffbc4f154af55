"""Balance of levels, coverage and KL divergence, by hand and against scipy."""

import numpy as np
import pytest
import scipy.stats

import jaxcurate as jc
from jaxcurate.evaluation.coverage import kl_to_uniform, level_balance, measure_coverage
from jaxcurate.sources.synthetic.simulations import SIDES, skewed_square


def test_balance_of_levels_by_hand():
    tree = jc.ClusterTree.from_labels([np.array([0, 0, 1, 3, 3, 4]), np.array([0, 0, 1, 1, 3])])
    low, high = level_balance(tree, np.array([0, 1, 2, 2]))
    # Of clusters 0, 1, 3 and 4 (2 is empty in the pool) the subset has 2, 2, 0 and 0.
    assert (low.level, low.n_clusters, low.empty) == (1, 4, 0.5)
    assert low.entropy == pytest.approx(0.5)
    assert low.gini == pytest.approx(0.5)
    assert (high.n_clusters, high.empty, high.entropy) == (3, pytest.approx(2 / 3), 0)
    assert [level.empty for level in level_balance(tree, [])] == [1, 1]
    even = level_balance(tree, np.array([0, 2, 3, 5]))[0]
    assert (even.empty, even.entropy, even.gini) == (0, pytest.approx(1), pytest.approx(0))


def test_a_balanced_subset_is_more_even_than_a_random_one():
    x = skewed_square(0)
    tree = jc.hierarchical_kmeans(x, [jc.Level(300), jc.Level(30)])
    random = np.random.default_rng(0).choice(len(x), 300, replace=False)
    for curated, drawn in zip(
        level_balance(tree, jc.sample(tree, 300)), level_balance(tree, random), strict=True
    ):
        assert curated.entropy > drawn.entropy + 0.03
        assert curated.gini < drawn.gini
        assert curated.empty <= drawn.empty


def test_coverage_is_the_distance_to_the_nearest(devices, monkeypatch):
    rng = np.random.default_rng(0)
    x = (100 + rng.normal(size=(500, 4))).astype(np.float32)
    rows = rng.permutation(500)[:40]
    expected = np.sqrt(((x[:, None] - x[None, rows]) ** 2).sum(-1)).min(1)
    covered = measure_coverage(x, np.append(rows, rows[:3]), devices=devices)
    assert covered.mean == pytest.approx(expected.mean(), rel=1e-5)
    assert covered.largest == pytest.approx(expected.max(), rel=1e-5)
    assert (covered.error, covered.n_measured) == (0, 500)
    assert measure_coverage(x, np.arange(500)).largest == 0
    monkeypatch.setattr("jaxcurate.evaluation.coverage._CENTROIDS", 7)
    assert measure_coverage(x, rows).mean == pytest.approx(covered.mean, rel=1e-6)
    some = measure_coverage(x, rows, n_measured=200)
    assert some.n_measured == 200
    assert 0 < abs(some.mean - covered.mean) < 4 * some.error < 0.5


def test_coverage_of_directions(devices):
    rng = np.random.default_rng(0)
    x, rows = rng.normal(size=(500, 4)).astype(np.float32), np.arange(40)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = np.sqrt(((unit[:, None] - unit[None, rows]) ** 2).sum(-1)).min(1)
    long = x * rng.uniform(0.1, 9, (500, 1)).astype(np.float32)
    covered = measure_coverage(long, rows, metric="cosine", devices=devices)
    assert covered.mean == pytest.approx(expected.mean(), rel=1e-5)
    assert covered.largest == pytest.approx(expected.max(), rel=1e-5)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_kl_is_that_of_a_sum_of_gaussians(d):
    """Compares with densities and entropies of scipy, point by point."""
    rng = np.random.default_rng(d)
    points, low, high = rng.normal(size=(30, d)), np.full(d, -2.0), np.linspace(1, 2, d)
    width, n_grid = np.linspace(0.3, 0.6, d), 12
    axes = [a + (b - a) * np.arange(n_grid) / n_grid for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, d)
    density = sum(
        scipy.stats.multivariate_normal(point, np.diag(width**2)).pdf(grid) for point in points
    )
    expected = scipy.stats.entropy(density, np.ones(len(grid)))
    divergence = kl_to_uniform(points, low, high, width, n_grid)
    assert divergence == pytest.approx(expected, rel=1e-9)
    assert expected > 0.05


def test_the_default_width_is_the_published_one():
    x = skewed_square(0)
    assert kl_to_uniform(x, *SIDES) == kl_to_uniform(x, *SIDES, 0.5)
    assert kl_to_uniform(x, *SIDES) == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_kl_of_even_points_is_near_zero_and_of_a_heap_is_not(d):
    corners = np.stack(np.meshgrid(*[np.linspace(0.02, 0.98, 12)] * d), axis=-1).reshape(-1, d)
    assert 0 <= kl_to_uniform(corners, 0, 1) < 0.04 * d
    heap = np.full((50, d), 0.5)
    # A Gaussian of standard deviation 1/12 well inside of a unit box.
    entropy = d * 0.5 * np.log(2 * np.pi * np.e / 144)
    assert kl_to_uniform(heap, 0, 1) == pytest.approx(-entropy, rel=1e-3)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: kl_to_uniform(np.ones((3, 4)), 0, 1), r"points must be \[n, d\] with d"),
        (lambda: kl_to_uniform(np.ones((0, 2)), 0, 1), "points must be"),
        (lambda: kl_to_uniform(np.ones((3, 2)), 0, [1, 0]), "high must lie above low"),
        (lambda: kl_to_uniform(np.ones((3, 2)), 0, 1, 0), "bandwidth=0 must be above 0"),
        (lambda: measure_coverage(np.ones((3, 2)), np.array([], int)), "rows is empty"),
        (lambda: measure_coverage(np.ones((3, 2)), np.array([3])), "rows names row 3"),
        (lambda: measure_coverage(np.ones((3, 2)), np.array([0]), n_measured=0), "n_measured=0"),
        (
            lambda: level_balance(jc.ClusterTree.from_labels([np.zeros(3, int)]), np.array([5])),
            "rows names row 5",
        ),
    ],
)
def test_bad_arguments_are_named(ask, message):
    with pytest.raises(ValueError, match=message):
        ask()
