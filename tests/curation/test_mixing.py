import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxcurate as jc
from jaxcurate import export
from jaxcurate.curation.mixing import Mix, indices_of, mix
from jaxcurate.curation.sampling import ShortfallWarning
from jaxcurate.neighbors.nearest_rows import Neighbors, nearest_rows


@pytest.fixture(scope="module")
def pool():
    return jc.make_pool(np.random.default_rng(0).normal(size=(300, 4)))


@pytest.fixture(scope="module")
def tree():
    rng = np.random.default_rng(1)
    return jc.ClusterTree.from_labels([rng.integers(0, 20, 300), rng.integers(0, 4, 20)])


@pytest.fixture(scope="module")
def neighbors(pool):
    return nearest_rows(pool.embeddings, pool.embeddings[:12] + 0.1, 10)


@given(st.integers(0, 1000), st.integers(0, 10), st.integers(0, 10))
def test_sizes_add_up_and_follow_the_fractions(size, a, b):
    a, b = (a, b) if a + b <= 10 else (10 - a, 10 - b)
    fractions = Mix(a / 10, b / 10, (10 - a - b) / 10)
    sizes = fractions.sizes(size)
    assert sum(sizes.values()) == size
    for name, fraction in vars(fractions).items():
        assert abs(sizes[name] - fraction * size) < 1


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 1000), st.integers(0, 300), st.sampled_from([(4, 2, 4), (0, 3, 7), (9, 1, 0)])
)
def test_parts_are_disjoint_and_exact(tree, neighbors, seed, size, tenths):
    fractions = Mix(*(t / 10 for t in tenths))
    rows = np.sort(np.random.default_rng(seed).permutation(300)[:290])
    size = min(size, 290)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ShortfallWarning)  # queries with too few neighbors
        parts = mix(tree, size, fractions, neighbors, seed=seed, rows=rows)
    taken = indices_of(parts)
    assert len(taken) == len(np.unique(taken)) == size and np.isin(taken, rows).all()
    wanted = fractions.sizes(size)
    assert len(parts["curated"]) == wanted["curated"]
    assert len(parts["retrieved"]) <= wanted["retrieved"]
    assert np.isin(parts["retrieved"], neighbors.rows).all()
    left = np.setdiff1d(neighbors.rows[np.isin(neighbors.rows, rows)], taken)
    assert len(parts["retrieved"]) == wanted["retrieved"] or not len(left)


def test_curated_part_is_the_balanced_sample(tree, neighbors):
    parts = mix(tree, 100, Mix(0.5, 0.2, 0.3), neighbors, seed=4)
    np.testing.assert_array_equal(parts["curated"], jc.sample(tree, 50, seed=4))
    assert [len(part) for part in parts.values()] == [50, 20, 30]


def test_the_raw_part_is_a_fair_draw_of_what_is_left():
    """All rows that the curated part passed over are equally likely, in clusters of any size."""
    labels = np.repeat(np.arange(11), [1000] + [20] * 10)
    tree = jc.ClusterTree.from_labels([labels])
    drawn = np.zeros(11)
    for seed in range(100):
        parts = mix(tree, 220, Mix(0.5, 0, 0.5), seed=seed)
        assert (np.bincount(labels[parts["curated"]]) == 10).all()
        drawn += np.bincount(labels[parts["raw"]], minlength=11)
    # 110 of 1090 rows, 100 times: of the 100 that are left of small clusters, 1009 (+- 27).
    assert 900 < drawn[1:].sum() < 1120


def test_every_query_has_its_turn():
    tree = jc.ClusterTree.from_labels([np.zeros(20, int)])
    near = Neighbors(
        np.array([[0, 1, 2], [0, 3, 4], [5, 6, 7]]),
        np.array([[0.1, 0.2, 0.3], [0.1, 0.9, 0.9], [5, 6, 7]], np.float32),
    )
    take = lambda n: mix(tree, n, Mix(0, 1, 0), near)["retrieved"].tolist()
    assert take(1) == [0]
    assert take(2) == [0, 5]  # the farthest query's nearest before any second
    assert take(3) == [0, 1, 5]
    assert take(5) == [0, 1, 3, 5, 6]
    with pytest.warns(
        ShortfallWarning, match="10 retrieved items wanted, but the queries have only 8 "
    ):
        parts = mix(tree, 10, Mix(0, 1, 0), near)
    assert parts["retrieved"].tolist() == list(range(8)) and len(parts["raw"]) == 2


def test_what_is_curated_is_not_retrieved_again():
    tree = jc.ClusterTree.from_labels([np.repeat([0, 1], [1, 9])], np.zeros(10))
    near = Neighbors(np.array([[0, 4, 5]]), np.array([[0, 1, 2]], np.float32))
    parts = mix(tree, 3, Mix(0.67, 0.33, 0), near)
    assert parts["curated"][0] == 0  # alone in its cluster
    assert parts["retrieved"].tolist() == [5 if 4 in parts["curated"] else 4]


def test_the_manifest_says_why(tree, pool, neighbors, tmp_path):
    parts = mix(tree, 60, Mix(0.5, 0.25, 0.25), neighbors)
    taken = indices_of(parts)
    export.save_subset(tmp_path / "s", taken, pool, tree, {"seed": 0}, why=parts)
    table = pq.read_table(tmp_path / "s/manifest.parquet")
    why = np.array(table["why"].to_pylist())
    for reason, rows in parts.items():
        np.testing.assert_array_equal(np.array(table["row"])[why == reason], rows)
    subset = export.read_subset(tmp_path / "s", pool)
    assert subset.card["why"] == {"curated": 30, "retrieved": 15, "raw": 15}
    np.testing.assert_array_equal(subset.indices, taken)
    export.save_subset(tmp_path / "plain", taken, pool, tree, {})
    assert "why" not in pq.read_table(tmp_path / "plain/manifest.parquet").column_names


def test_a_tree_over_another_pool_is_refused(tree, pool, tmp_path):
    other = jc.make_pool(pool.embeddings[:299])
    with pytest.raises(ValueError, match="the tree is over 300 points, the pool has 299 rows"):
        export.save_subset(tmp_path / "s", np.arange(3), other, tree, {})


def test_rows_that_the_pool_does_not_have_are_refused(tree, pool, tmp_path):
    with pytest.raises(ValueError, match="indices names row 300, but there are rows 0 to 299"):
        export.save_subset(tmp_path / "s", np.array([3, 300]), pool, tree, {})


@pytest.mark.parametrize(
    "why",
    [
        {"curated": np.array([1, 2])},
        {"curated": np.array([1, 2, 3]), "raw": np.array([3])},
        {"curated": np.array([1, 2, 4])},
        {},
    ],
)
def test_reasons_that_do_not_cover_the_rows_are_refused(tree, pool, tmp_path, why):
    with pytest.raises(ValueError, match="must name each of these once"):
        export.save_subset(tmp_path / "s", np.array([1, 2, 3]), pool, tree, {}, why=why)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": -1}, "size=-1"),
        ({"neighbors": None}, "retrieved=0.5 needs neighbors"),
        (
            {"neighbors": Neighbors(np.array([[300]]), np.zeros((1, 1)))},
            "neighbors names row 300",
        ),
        ({"rows": np.array([0, 300])}, "rows names row 300"),
    ],
)
def test_bad_arguments_are_named(tree, neighbors, change, message):
    usual = {"size": 10, "fractions": Mix(0.5, 0.5, 0), "neighbors": neighbors}
    with pytest.raises(ValueError, match=message):
        mix(tree, **(usual | change))


@pytest.mark.parametrize(
    ("fractions", "message"),
    [((0.5, 0.5, 0.5), "add up to 1.5"), ((-0.1, 1, 0.1), "curated=-0.1"), ((0, 0, 2), "raw=2")],
)
def test_bad_fractions_are_named(fractions, message):
    with pytest.raises(ValueError, match=message):
        Mix(*fractions)


def test_a_pool_that_is_too_small_is_told(tree, neighbors):
    with pytest.warns(ShortfallWarning):
        parts = mix(tree, 400, Mix(0.2, 0.1, 0.7), neighbors)
    np.testing.assert_array_equal(indices_of(parts), np.arange(300))
