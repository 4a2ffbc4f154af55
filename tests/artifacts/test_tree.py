import itertools
import json
import time

import numpy as np
import pytest

import jaxcurate as jc
from jaxcurate import export
from jaxcurate.artifacts.files import DamagedError
from jaxcurate.config import SampleConfig
from jaxcurate.curation.baselines import flat
from jaxcurate.curation.dedup import deduplicate
from jaxcurate.evaluation.arms import Arms


@pytest.fixture
def tree():
    rng = np.random.default_rng(0)
    return jc.hierarchical_kmeans(rng.normal(size=(200, 3)), [jc.Level(20), jc.Level(4)])


def test_labels_and_counts_follow_the_levels():
    tree = jc.ClusterTree.from_labels([np.array([0, 2, 2, 3]), np.array([1, 0, 1, 0])])
    np.testing.assert_array_equal(tree.point_labels(1), [0, 2, 2, 3])
    np.testing.assert_array_equal(tree.point_labels(2), [1, 1, 1, 0])
    np.testing.assert_array_equal(tree.point_counts(1), [1, 0, 2, 1])  # cluster 1 is empty
    np.testing.assert_array_equal(tree.point_counts(2), [1, 3])
    assert (tree.n_points, tree.n_clusters(1), tree.n_clusters(2)) == (4, 4, 2)


def test_what_is_saved_is_loaded(tree, tmp_path):
    tree.save(tmp_path / "tree")
    loaded = jc.ClusterTree.load(tmp_path / "tree")
    for a, b in zip(tree.levels, loaded.levels, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
    assert [p.name for p in tmp_path.iterdir()] == ["tree"]


def test_saving_again_replaces(tree, tmp_path):
    tree.save(tmp_path / "tree")
    other = jc.ClusterTree.from_labels([np.array([0, 1, 1])])
    other.save(tmp_path / "tree")
    assert jc.ClusterTree.load(tmp_path / "tree").n_points == 3


@pytest.mark.parametrize("damage", ["truncate", "alter", "remove", "card"])
def test_damage_is_refused_by_name(tree, tmp_path, damage):
    tree.save(tmp_path / "tree")
    file = tmp_path / "tree" / ("card.json" if damage == "card" else "l2_labels.npy")
    content = file.read_bytes()
    if damage == "remove":
        file.unlink()
    elif damage == "alter":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedError, match=file.name):
        jc.ClusterTree.load(tmp_path / "tree")


def test_no_byte_of_a_card_can_change_unseen(tmp_path):
    """The card has the pool, the metric and the number of levels."""
    x = np.random.default_rng(0).normal(size=(60, 3))
    tree = jc.hierarchical_kmeans(jc.make_pool(x), [jc.Level(9), jc.Level(3)], metric="cosine")
    tree.save(tmp_path / "tree")
    file = tmp_path / "tree/card.json"
    content = file.read_bytes()
    first_file, rest = content.index(b"l1_distances.npy"), content.index(b"l2_labels.npy")
    refused = 0
    for place in (*range(first_file), *range(rest, len(content))):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            loaded = jc.ClusterTree.load(tmp_path / "tree")
        except DamagedError:
            refused += 1
        else:  # the name of its checksum, without which it passes for an older card
            assert (loaded.pool, loaded.metric, len(loaded.levels)) == (tree.pool, "cosine", 2)
    assert refused == first_file + len(content) - rest - len("checksum")


def test_an_unfinished_folder_is_no_tree(tmp_path):
    (tmp_path / "tree").mkdir()
    with pytest.raises(DamagedError, match="never completed"):
        jc.ClusterTree.load(tmp_path / "tree")


def test_a_tree_knows_its_pool(tmp_path):
    """Every function with a tree and a pool refuses a tree of another pool."""
    x = np.random.default_rng(0).normal(size=(60, 3))
    pool, other = jc.make_pool(x), jc.make_pool(x[::-1])
    tree = jc.hierarchical_kmeans(pool, [jc.Level(9), jc.Level(3)])
    assert tree.pool == pool.fingerprint != other.fingerprint
    tree.save(tmp_path / "tree")
    loaded = jc.ClusterTree.load(tmp_path / "tree")
    assert loaded.pool == flat(loaded).pool == pool.fingerprint
    both = f"pool {pool.fingerprint}, but the pool is {other.fingerprint}"
    for ask in (
        lambda tree, pool: export.save_subset(tmp_path / "s", np.arange(3), pool, tree, {}),
        lambda tree, pool: deduplicate(pool, tree=tree),
        lambda tree, pool: Arms(pool, tree, SampleConfig(5)),
    ):
        ask(loaded, pool)
        with pytest.raises(ValueError, match=both):
            ask(loaded, other)
        # A tree that was made from an array knows the number of its points alone.
        ask(jc.hierarchical_kmeans(x, [jc.Level(9)]), other)
        with pytest.raises(ValueError, match="over 59 points, the pool has 60 rows"):
            ask(jc.hierarchical_kmeans(x[1:], [jc.Level(9)]), other)


def test_a_tree_knows_its_metric(tree, tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 3))
    cosine = jc.hierarchical_kmeans(x, [jc.Level(9)], metric="cosine")
    cosine.save(tmp_path / "cosine", {"seed": 0})
    loaded = jc.ClusterTree.load(tmp_path / "cosine")
    assert loaded.metric == flat(loaded).metric == cosine.metric == "cosine"
    assert tree.metric == jc.ClusterTree.from_labels([np.zeros(3, int)]).metric == "euclidean"
    tree.save(tmp_path / "old")
    card = json.loads((tmp_path / "old/card.json").read_text())
    assert card.pop("metric") == "euclidean"
    del card["checksum"]  # older cards do not have that either
    (tmp_path / "old/card.json").write_text(json.dumps(card))
    assert jc.ClusterTree.load(tmp_path / "old").metric == "euclidean"
    with pytest.raises(ValueError, match="metric='dot'; known: 'euclidean', 'cosine'"):
        jc.ClusterTree(tree.levels, metric="dot")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "at least one level"),
        ([np.array([])], "labels of level 1"),
        ([np.array([0.5])], "labels of level 1"),
        ([np.array([0, 1, 2]), np.array([0, 0])], "level 1 has labels outside its 2"),
        ([np.array([0, -1])], "level 1 has labels outside"),
        ([np.array([0, 2**32 + 1]), np.array([0, 0])], "level 1 has labels outside"),
        ([np.array([0, -(2**32)])], "level 1 has labels outside"),
    ],
)
def test_labels_that_make_no_tree_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        jc.ClusterTree.from_labels(labels)


@pytest.mark.parametrize("level", [0, 3])
def test_levels_count_from_one(tree, level):
    with pytest.raises(ValueError, match=f"level={level}, but the tree has levels 1 to 2"):
        tree.point_labels(level)
    with pytest.raises(ValueError, match=f"level={level}"):
        tree.point_counts(level)


def test_members_and_children():
    tree = jc.ClusterTree.from_labels([np.array([2, 0, 2, 3, 0]), np.array([1, 0, 1, 0, 3])])
    np.testing.assert_array_equal(tree.members(1, 2), [0, 2])
    np.testing.assert_array_equal(tree.members(1, 1), [])  # empty
    np.testing.assert_array_equal(tree.members(2, 1), [0, 1, 2, 4])
    np.testing.assert_array_equal(tree.members(2, 3), [])  # its one child is empty
    np.testing.assert_array_equal(tree.members(2, 2), [])  # it has no child
    np.testing.assert_array_equal(tree.children(2, 1), [0, 2])
    np.testing.assert_array_equal(tree.children(2, 3), [4])
    np.testing.assert_array_equal(tree.children(1, 0), [1, 4])
    assert tree.members(2, 1).dtype == np.int64


def test_members_agree_with_labels(tree):
    for level in (1, 2):
        labels = tree.point_labels(level)
        for cluster in range(tree.n_clusters(level)):
            found = tree.members(level, cluster)
            np.testing.assert_array_equal(found, np.flatnonzero(labels == cluster))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda tree: tree.members(3, 0), "level=3"),
        (lambda tree: tree.members(1, 20), "cluster=20, but level 1 has clusters 0 to 19"),
        (lambda tree: tree.children(2, -1), "cluster=-1"),
        (lambda tree: tree.members(1, 1.5), "cluster=1.5 must be a whole number"),
    ],
)
def test_what_is_not_there_is_named(tree, ask, message):
    with pytest.raises(ValueError, match=message):
        ask(tree)


def test_a_tree_is_read_lazily(tree, tmp_path):
    tree.save(tmp_path / "tree")
    loaded = jc.ClusterTree.load(tmp_path / "tree", check=False)
    for a, b in zip(tree.levels, loaded.levels, strict=True):
        for x, y in zip(a, b, strict=True):
            assert isinstance(y, np.memmap)
            np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(loaded.members(2, 1), tree.members(2, 1))
    file = tmp_path / "tree" / "l1_labels.npy"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(DamagedError, match=r"l1_labels\.npy"):
        jc.ClusterTree.load(tmp_path / "tree", check=False)


def test_a_million_points_take_seconds(tmp_path):
    rng = np.random.default_rng(0)
    sizes = (1_000_000, 100_000, 1_000, 10)
    labels = [rng.integers(0, k, n) for n, k in itertools.pairwise(sizes)]
    labels[-1][:] = np.arange(1_000) % 10
    tree = jc.ClusterTree.from_labels(labels)
    begun = time.perf_counter()
    tree.save(tmp_path / "tree")
    loaded = jc.ClusterTree.load(tmp_path / "tree")
    counts = loaded.point_counts(3)
    for cluster in range(10):
        assert len(loaded.members(3, cluster)) == counts[cluster]
    for cluster in range(2000):
        loaded.members(1, cluster)
    assert time.perf_counter() - begun < 8  # a third of a second where nothing else runs
