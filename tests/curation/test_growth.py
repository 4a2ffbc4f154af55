import numpy as np
import pytest

import jaxcurate as jc
from jaxcurate.curation.branch_refit import branches_to_refit, refit_branches
from jaxcurate.curation.growth import LevelDrift, drift, grow


def mixture(rng, n):
    wide = rng.random((n, 1)) < 0.3
    return np.where(wide, rng.normal(size=(n, 6)) + 2, 0.3 * rng.normal(size=(n, 6)))


@pytest.fixture(scope="module")
def x():
    return mixture(np.random.default_rng(0), 2000)


@pytest.fixture(scope="module")
def tree(x):
    return jc.hierarchical_kmeans(x, [jc.Level(150, 2, 5), jc.Level(30), jc.Level(8)])


def nearest(x, centroids):
    return ((x[:, None] - centroids[None]) ** 2).sum(-1).argmin(1)


def test_new_rows_join_the_nearest_leaf_and_nothing_else_changes(x, tree):
    new = mixture(np.random.default_rng(1), 300)
    grown = grow(tree, new)
    assert grown.n_points == 2300
    np.testing.assert_array_equal(grown.levels[0].labels[:2000], tree.levels[0].labels)
    np.testing.assert_array_equal(grown.levels[0].distances[:2000], tree.levels[0].distances)
    labels = grown.levels[0].labels[2000:]
    np.testing.assert_array_equal(labels, nearest(new, tree.levels[0].centroids))
    own = ((new - tree.levels[0].centroids[labels]) ** 2).sum(1)
    np.testing.assert_allclose(grown.levels[0].distances[2000:], own, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(grown.levels[0].centroids, tree.levels[0].centroids)
    assert grown.levels[1:] == tree.levels[1:]
    assert grown.levels[0].labels.dtype == np.int32


def drift_of(tree, x, new):
    return drift(grow(tree, new), np.concatenate([x, new]), len(x))


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("n_new", [15, 1000])
def test_more_of_the_same_is_no_drift(x, tree, seed, n_new):
    for level in drift_of(tree, x, mixture(np.random.default_rng(seed), n_new)):
        assert level.verdict == "keep", level
        assert len(level.branches) == 0
        assert level.mean_new == pytest.approx(level.mean_old, rel=0.4)


def test_rows_from_elsewhere_call_for_a_refit(x, tree):
    """Rows further away are far more often."""
    new = mixture(np.random.default_rng(1), 1000)
    shares = []
    for shift in (0, 1, 2, 4):
        told = drift_of(tree, x, new + shift * np.array([-1, 1, -1, 1, -1, 1]))
        shares.append([level.far for level in told])
    assert (np.diff(shares, axis=0) > 0).all()
    assert told[-1].verdict == "refit"
    assert [level.level for level in told] == [1, 2, 3]
    assert "1000 new rows are farther than 99%" in told[-1].reason
    assert all(level.mean_new > 1.5 * level.mean_old for level in told)


def test_one_new_heap_calls_for_its_branch(x, tree):
    rng = np.random.default_rng(1)
    heap = 8 + 0.1 * rng.normal(size=(200, 6))
    told = drift_of(tree, x, np.concatenate([mixture(rng, 800), heap]))
    low = told[0]
    assert low.verdict == "refit branches"
    joined = np.unique(nearest(heap, tree.levels[0].centroids))
    assert np.isin(low.branches, joined).all()
    assert low.growth[low.branches[0]] > 5
    assert 0.2 <= low.far < 0.25
    assert np.isfinite(low.growth).all()


@pytest.fixture(scope="module")
def directions():
    """Rows of length 1: 500 old ones, then 100 new ones."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(600, 4)) + np.array([2, 0, 0, 0])
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def cosine_tree(directions):
    return jc.hierarchical_kmeans(directions[:500], [jc.Level(30), jc.Level(5)], metric="cosine")


def test_a_cosine_tree_sees_directions_alone(directions, cosine_tree):
    """New rows of any length join by their angle, and the drift does not depend on lengths."""
    new = directions[500:] * np.random.default_rng(0).uniform(0.01, 50, (100, 1))
    grown = grow(cosine_tree, new)
    assert (grown.metric, grown.pool) == ("cosine", "")
    cosine = directions[500:] @ cosine_tree.levels[0].centroids.T
    np.testing.assert_array_equal(grown.levels[0].labels[500:], cosine.argmax(1))
    np.testing.assert_allclose(
        grown.levels[0].distances[500:], 2 - 2 * cosine.max(1), rtol=1e-4, atol=1e-6
    )
    every = np.concatenate([directions[:500], new])
    told = drift(grown, every, 500)
    for level, same in zip(told, drift(grown, directions, 500), strict=True):
        assert level.verdict == same.verdict == "keep", level
        assert level.mean_new == pytest.approx(same.mean_new, rel=1e-6)
    assert told[0].mean_old == pytest.approx(np.sqrt(cosine_tree.levels[0].distances).mean(), 1e-5)
    opposite = np.concatenate([directions[:500], -7 * directions[500:]])
    far = drift(grow(cosine_tree, opposite[500:]), opposite, 500)
    assert {level.verdict for level in far} <= {"refit", "refit branches"}
    zeros = np.zeros((1, 4))
    with pytest.raises(ValueError, match="x has no direction in row 0"):
        grow(cosine_tree, zeros)
    with pytest.raises(ValueError, match="x has no direction in row 500"):
        drift(grow(cosine_tree, new[:1]), np.concatenate([directions[:500], zeros]), 500)


def test_a_branch_of_a_cosine_tree_is_refitted_by_angles(directions, cosine_tree):
    lengths = 2.0 ** np.random.default_rng(1).integers(-3, 4, (500, 1))
    tree = refit_branches(cosine_tree, directions[:500] * lengths, 2, [0])
    assert tree.metric == "cosine"
    below = directions[:500]
    for level in tree.levels:
        np.testing.assert_allclose(np.linalg.norm(level.centroids, axis=1), 1, atol=1e-6)
        own = 2 - 2 * (below * level.centroids[level.labels]).sum(1)
        np.testing.assert_allclose(level.distances, own, atol=1e-5)
        below = level.centroids
    inside = tree.members(2, 0)
    ids = tree.children(2, 0)
    cosine = directions[inside] @ tree.levels[0].centroids[ids].T
    np.testing.assert_array_equal(tree.levels[0].labels[inside], ids[cosine.argmax(1)])


def test_growth_counts_rows():
    x = np.array([[0.0], [0.2], [10], [10.2], [20], [20.2]], np.float32)
    leaf = jc.TreeLevel(
        np.array([[0.1], [10.1], [20.1], [30]], np.float32),
        np.array([0, 0, 1, 1, 2, 2], np.int32),
        np.full(6, 0.01, np.float32),
    )
    new = np.array([[0.1], [0.2], [0.3], [31]], np.float32)
    (told,) = drift_of(jc.ClusterTree((leaf,)), x, new)
    np.testing.assert_array_equal(told.growth, [1.5, 0, 0, np.inf])
    assert told.mean_old == pytest.approx(0.1, abs=1e-6)
    assert told.mean_new == pytest.approx((0 + 0.1 + 0.2 + 1) / 4, abs=1e-6)
    # Without itself an old row lies 0.2 from its cluster: only the last new row is beyond.
    assert told.far == 0.25


@pytest.mark.parametrize("level", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_a_branch_is_refitted_and_the_rest_stays(x, tree, level):
    rng = np.random.default_rng(1)
    new = 0.2 * rng.normal(size=(400, 6)) - 3
    grown, every = grow(tree, new), np.concatenate([x, new])
    cluster = int(grown.point_labels(level)[2000])
    refitted = refit_branches(grown, every, level, [cluster])
    inside = grown.members(level, cluster)
    np.testing.assert_array_equal(refitted.members(level, cluster), inside)
    assert [one.centroids.shape for one in refitted.levels] == [(150, 6), (30, 6), (8, 6)]
    rows, ids = np.ones(2400, bool), {}
    rows[inside] = False
    for number in range(1, level):
        ids[number] = np.unique(grown.point_labels(number)[inside])
        others = np.setdiff1d(np.arange(grown.n_clusters(number)), ids[number])
        np.testing.assert_array_equal(
            refitted.point_labels(number)[rows], grown.point_labels(number)[rows]
        )
        assert np.isin(refitted.point_labels(number)[inside], ids[number]).all()
        for name in ("centroids",):
            a, b = (getattr(one.levels[number - 1], name) for one in (refitted, grown))
            np.testing.assert_array_equal(a[others], b[others])
    np.testing.assert_array_equal(
        refitted.levels[0].distances[rows], grown.levels[0].distances[rows]
    )
    for a, b in zip(refitted.levels[level:], grown.levels[level:], strict=True):
        assert a is b
    np.testing.assert_array_equal(
        refitted.levels[level - 1].centroids, grown.levels[level - 1].centroids
    )
    # Distances are those to the new centroids, level by level, and smaller on the whole.
    below = every
    for one in refitted.levels:
        squared = ((below - one.centroids[one.labels]) ** 2).sum(1)
        np.testing.assert_allclose(one.distances, squared, rtol=1e-4, atol=1e-5)
        below = one.centroids
    before, after = (t.levels[0].distances[inside].sum() for t in (grown, refitted))
    assert after < 0.6 * before


def test_a_branch_with_fewer_rows_than_clusters_keeps_empty_ones():
    x = np.array([[0.0], [1], [2], [9]], np.float32)
    leaf = jc.TreeLevel(
        np.array([[0.0], [1], [2], [3], [9]], np.float32),
        np.array([0, 0, 2, 4], np.int32),
        np.array([0, 1, 0, 0], np.float32),
    )
    top = jc.TreeLevel(
        np.array([[1.5], [9]], np.float32), np.array([0, 0, 0, 0, 1], np.int32), np.zeros(5)
    )
    tree = refit_branches(jc.ClusterTree((leaf, top)), x, 2, [0])
    np.testing.assert_array_equal(np.sort(tree.point_counts(1)), [0, 1, 1, 1, 1])
    np.testing.assert_array_equal(tree.levels[1].labels, [0, 0, 0, 0, 1])
    assert tree.levels[0].labels[3] == 4
    assert tree.levels[0].centroids[3] == 3


def test_empty_clusters_of_a_branch_are_measured_to_where_its_centroids_are_now():
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    tree = jc.hierarchical_kmeans(x, [jc.Level(30), jc.Level(12), jc.Level(2)])
    # Of one branch a few rows are left, fewer than it has clusters at either level below.
    rows = np.concatenate([tree.members(3, 0)[::7], tree.members(3, 1)])
    leaf = tree.levels[0]
    leaf = leaf._replace(labels=leaf.labels[rows], distances=leaf.distances[rows])
    tree = refit_branches(jc.ClusterTree((leaf, *tree.levels[1:])), x[rows], 3, [0])
    assert len(tree.members(3, 0)) < len(tree.children(3, 0))
    below = x[rows]
    for one in tree.levels:
        squared = ((below - one.centroids[one.labels]) ** 2).sum(1)
        np.testing.assert_allclose(one.distances, squared, rtol=1e-4, atol=1e-5)
        below = one.centroids


def test_an_empty_branch_has_nothing_to_refit():
    """The cluster has empty clusters below (level 2), or no clusters at all (level 3)."""
    x = np.array([[0.0], [1]], np.float32)
    labels = [0, 0], [0, 1], [0, 0, 1]
    centroids = (np.zeros((k, 1), np.float32) for k in (2, 3, 2))
    levels = [
        jc.TreeLevel(made, np.array(of, np.int32), np.zeros(len(of), np.float32))
        for made, of in zip(centroids, labels, strict=True)
    ]
    tree = jc.ClusterTree((*levels, jc.TreeLevel(levels[2].centroids[:2], *levels[0][1:])))
    for level, cluster in ((2, 1), (2, 2), (3, 1), (4, 1)):
        with pytest.raises(
            ValueError, match=rf"clusters=\[{cluster}\] of level {level} have no rows"
        ):
            refit_branches(tree, x, level, [cluster])


def test_several_branches_are_refitted_together(x, tree):
    """New rows between two top clusters; both branches are refitted, and rows may change sides."""
    rng = np.random.default_rng(2)
    middle = tree.levels[2].centroids[:2].mean(0)
    new = 0.2 * rng.normal(size=(300, 6)) + middle
    grown, every = grow(tree, new), np.concatenate([x, new])
    levels = [jc.Level(150, 1, 3), jc.Level(30), jc.Level(8)]
    refitted = refit_branches(grown, every, 3, [1, 0], levels=levels)
    inside = np.isin(grown.point_labels(3), [0, 1])
    np.testing.assert_array_equal(np.isin(refitted.point_labels(3), [0, 1]), inside)
    np.testing.assert_array_equal(refitted.levels[2].centroids, grown.levels[2].centroids)
    for number in (1, 2, 3):
        after, before = (t.point_labels(number)[~inside] for t in (refitted, grown))
        np.testing.assert_array_equal(after, before)
    below = every
    for level in refitted.levels:
        squared = ((below - level.centroids[level.labels]) ** 2).sum(1)
        np.testing.assert_allclose(level.distances, squared, rtol=1e-4, atol=1e-5)
        below = level.centroids
    # The clusters of level 2 hang from the nearest of the two.
    moved = np.flatnonzero(np.isin(refitted.levels[2].labels, [0, 1]))
    top = refitted.levels[2].centroids[:2]
    squared = ((refitted.levels[1].centroids[moved][:, None] - top[None]) ** 2).sum(2)
    np.testing.assert_array_equal(refitted.levels[2].labels[moved], squared.argmin(1))
    before, after = (t.levels[0].distances[inside].sum() for t in (grown, refitted))
    assert after < 0.8 * before
    with pytest.raises(ValueError, match="levels has 1 settings for the 2 levels below"):
        refit_branches(grown, every, 3, [0], levels=levels[:1])


def test_the_lowest_level_with_branches_is_refitted(tree):
    def drifted(*verdicts):
        none = np.zeros(0)
        return [
            LevelDrift(number, 0, 0, 0, none, np.array([3, 4]), verdict, "")
            for number, verdict in enumerate(verdicts, 1)
        ]

    level, clusters = branches_to_refit(tree, drifted("refit", "refit branches", "keep"))
    assert (level, clusters.tolist()) == (2, [3, 4])
    level, clusters = branches_to_refit(tree, drifted("refit branches", "keep", "keep"))
    np.testing.assert_array_equal(clusters, np.unique(tree.levels[1].labels[[3, 4]]))
    assert level == 2
    assert branches_to_refit(tree, drifted("keep", "refit", "keep")) is None
    alone = jc.ClusterTree(tree.levels[:1])
    assert branches_to_refit(alone, drifted("refit branches")) is None


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda t, x: grow(t, x[:, :2]), "x has 2 columns, but the tree's centroids have 6"),
        (lambda t, x: grow(t, np.full((2, 6), np.inf)), "x has a NaN or an infinity"),
        (
            lambda t, x: grow(jc.ClusterTree.from_labels([np.zeros(3, int)]), x),
            "tree has no centroids",
        ),
        (lambda t, x: drift(t, x[:-1], 5), "x has 1999 rows, but the tree has 2000 points"),
        (lambda t, x: drift(t, np.full_like(x, np.nan), 5), "x has a NaN or an infinity"),
        (lambda t, x: drift(t, x, 2000), "n_old=2000"),
        (lambda t, x: drift(t, x, 0), "n_old=0"),
        (lambda t, x: refit_branches(t, x, 1, [0]), "level=1 must be from 2 to 3"),
        (lambda t, x: refit_branches(t, x, 4, [0]), "level=4 must be from 2 to 3"),
        (
            lambda t, x: refit_branches(t, x, 2, [30]),
            "cluster=30, but level 2 has",
        ),
        (lambda t, x: refit_branches(t, x[1:], 2, [0]), "x has 1999 rows"),
    ],
)
def test_bad_arguments_are_named(tree, x, ask, message):
    with pytest.raises(ValueError, match=message):
        ask(tree, x)
