"""Deduplication compared with brute force, on synthetic arrays and on a real, messy pool."""

import dataclasses
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

import jaxcurate as jc
from jaxcurate.artifacts import folders
from jaxcurate.artifacts.files import DamagedError
from jaxcurate.curation import Duplicates, agreement, content_digests, deduplicate, summary_line
from jaxcurate.curation.dedup import first_of_same
from jaxcurate.neighbors import close_pairs, neighboring_clusters
from jaxcurate.sources.synthetic import raw

pairs_module = importlib.import_module("jaxcurate.neighbors.close_pairs")


@pytest.fixture(scope="module")
def x():
    """600 rows in 8 dimensions: 150 single rows, and 100 groups of up to nine jittered copies."""
    rng = np.random.default_rng(0)
    originals = rng.normal(size=(250, 8))
    copies = np.concatenate([np.arange(250), rng.integers(0, 100, 350)])
    noisy = originals[copies] + 0.05 * rng.normal(size=(600, 8))
    return (noisy * rng.uniform(0.1, 10, (600, 1))).astype(np.float32)


def brute_force(x, threshold):
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    return np.stack(np.nonzero(np.triu(unit @ unit.T >= threshold, 1)), axis=1)


def components(pairs, n):
    graph = coo_array((np.ones(len(pairs)), np.asarray(pairs).reshape(-1, 2).T), shape=(n, n))
    return connected_components(graph, directed=False)[1]


def same_partition(a, b):
    n = len(np.unique(a))
    return n == len(np.unique(b)) == len(np.unique(np.stack([a, b]), axis=1).T)


def test_all_neighbors_find_what_brute_force_finds(x):
    found = deduplicate(x, 0.97, rule="components", n_neighbors=600)
    expected = brute_force(x, 0.97)
    assert len(expected) > 900
    np.testing.assert_array_equal(found.pairs, expected)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = np.sum(unit[expected[:, 0]] * unit[expected[:, 1]], axis=1)
    np.testing.assert_allclose(found.pair_similarity, cosine, atol=1e-6)
    assert same_partition(found.representative, components(expected, 600))
    assert agreement(found, x, 0.97)[:2] == (1, 1)
    cosine = np.sum(unit * unit[found.representative], axis=1)
    np.testing.assert_allclose(found.similarity, cosine, atol=1e-6)


@pytest.mark.parametrize("keep", [None, "random", "ties"])
def test_the_cover_is_the_sequential_one(x, keep):
    """By brute force: a walk over the rows from the best to the worst."""
    rng = np.random.default_rng(3)
    keep = {"random": rng.normal(size=600), "ties": rng.integers(0, 4, 600)}.get(keep)
    found = deduplicate(x, 0.95, n_neighbors=600, keep=keep)
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    near = unit @ unit.T >= 0.95
    worth = np.zeros(600) if keep is None else keep
    kept = []
    for row in np.lexsort((np.arange(600), -near.sum(axis=1), -worth)):
        if not near[row, kept].any():
            kept.append(row)
    np.testing.assert_array_equal(found.kept, np.sort(kept))
    nearest = found.kept[np.argmax(unit @ unit[found.kept].T, axis=1)]
    np.testing.assert_array_equal(found.representative, nearest)
    np.testing.assert_allclose(found.similarity, np.sum(unit * unit[nearest], 1), atol=1e-6)
    assert found.similarity.min() >= np.float32(0.95) and len(kept) < 400
    assert agreement(found, x, 0.95).covered == 1


@pytest.mark.parametrize("rule", ["cover", "components"])
def test_a_higher_threshold_needs_no_search(x, rule):
    many = np.concatenate([x, 2 * x[:50], x[:20]])
    low = deduplicate(many, 0.9)
    for threshold in (0.9, 0.95, 0.99, None):
        for keep in (None, np.arange(670) % 7):
            again = deduplicate(many, threshold, rule=rule, keep=keep)
            told = low.at(threshold, rule=rule, keep=keep, x=many)
            for field in ("kept", "representative", "similarity", "same", "threshold", "rule"):
                np.testing.assert_array_equal(getattr(told, field), getattr(again, field))
            assert told.n_same == 20
    with pytest.raises(jc.InputError, match=r"threshold=0\.89 is below that of the search, 0\.9"):
        low.at(0.89)
    with pytest.raises(jc.InputError, match="deduplicate again"):
        deduplicate(x, None).at(0.99)
    assert np.isnan(low.at(0.9, rule="components").similarity).any()


def test_of_equal_content_the_best_stays():
    x = np.array([[1, 0], [0, 1], [1, 0], [1, 0.01], [1, 0]], np.float32)
    keep = np.array(["2020", "2021", "2024", "2022", "2023"], "datetime64[Y]")
    found = deduplicate(x, None, keep=keep)
    np.testing.assert_array_equal(found.representative, [2, 1, 2, 3, 2])
    np.testing.assert_array_equal(found.same, [True, False, False, False, True])
    near = deduplicate(x, 0.99, keep=keep)
    np.testing.assert_array_equal(near.representative, [2, 1, 2, 2, 2])
    np.testing.assert_array_equal(near.kept, [1, 2])
    assert (near.n_same, near.n_near, near.largest_group) == (2, 1, (2, 3))
    assert summary_line(near) == (
        "kept 2 of 5: 2 equal, 1 near at cosine 0.99; row 2 stands for most, 3 others (60.0 %)"
    )
    better = deduplicate(x, 0.99, keep=np.array([0, 0, 0, 1, 0]))
    np.testing.assert_array_equal(better.representative, [3, 1, 3, 3, 3])
    np.testing.assert_array_equal(better.same, [False, False, True, False, True])
    assert summary_line(deduplicate(x[:2])) == "kept 2 of 2: 0 equal, 0 near at cosine 0.95"


def test_too_many_pairs_are_refused(x):
    n = len(deduplicate(x, 0.9, n_clusters=1).pairs)
    assert len(deduplicate(x, 0.9, n_clusters=1, max_pairs=n).pairs) == n
    with pytest.raises(jc.InputError, match=f"more than max_pairs={n - 1} pairs reach"):
        deduplicate(x, 0.9, n_clusters=1, max_pairs=n - 1)


def test_too_many_pairs_are_refused_early_and_before_they_are_held(monkeypatch):
    """The last cluster has 200 rows, and more pairs than the 300 other clusters together."""
    rng = np.random.default_rng(0)
    n_small, n_large = 600, 200
    unit = np.zeros((n_small + n_large, 8), np.float32)
    unit[:n_small] = rng.normal(size=(n_small, 8))
    unit[n_small:] = np.eye(8)[0] + 0.05 * rng.normal(size=(n_large, 8))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    labels = np.concatenate([np.arange(n_small) // 2, np.full(n_large, 300)])
    within = np.repeat(np.arange(301), 2).reshape(-1, 2)
    across = np.stack([np.arange(300), np.arange(1, 301)], 1)
    clusters = np.concatenate([within[:-1], across, within[-1:]])
    similarity = unit[n_small:].astype(np.float64) @ unit[n_small:].T
    close = similarity[np.triu_indices(n_large, 1)]
    held = []
    exact = pairs_module._exact

    def counted(*args):
        held.append(exact(*args))
        return held[-1]

    monkeypatch.setattr(pairs_module, "_exact", counted)
    limit = 5000  # the first block has 32 rows, and those of a pair of blocks 1024 pairs at most
    with pytest.raises(jc.InputError) as caught:
        close_pairs(unit, labels, clusters, 0.9, max_pairs=limit)
    n_held = sum(len(pairs.rows) for pairs in held)
    assert limit < n_held <= limit + 32 * 32
    assert all((pairs.rows >= n_small).all() for pairs in held)  # the large cluster came first
    reach = sum(int((pairs.similarity >= np.float32(0.95)).sum()) for pairs in held)
    message = str(caught.value)
    assert f"max_pairs={limit} pairs reach threshold=0.9: {n_held} after" in message
    assert f"of which {reach} reach 0.95" in message and 0 < reach < n_held
    assert "higher threshold" in message and "The largest cluster has 200 rows" in message
    assert float(message.split("after ")[1].split("%")[0]) < 5
    held.clear()
    found = close_pairs(unit, labels, clusters, 0.9)
    assert (close >= 0.9).sum() <= len(found.rows)
    assert (np.diff(found.rows[:, 0]) >= 0).all()


def test_neighbors_across_clusters_are_found(x):
    alone = agreement(deduplicate(x, 0.97, n_neighbors=0, n_clusters=300), x, 0.97)
    with_neighbors = agreement(deduplicate(x, 0.97, n_neighbors=8, n_clusters=300), x, 0.97)
    assert alone.precision == with_neighbors.precision == 1
    assert alone.recall < 0.97
    assert with_neighbors.recall > 0.995
    assert alone.n_alike == 2 * len(brute_force(x, 0.97))


def test_neither_blocks_nor_devices_change_a_bit(x, devices, monkeypatch):
    unit = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    labels = np.random.default_rng(0).integers(0, 3, 600)
    clusters = np.array([[0, 0], [0, 1], [1, 1], [2, 2]])
    one = close_pairs(unit, labels, clusters, 0.9)
    steps = []
    monkeypatch.setattr(pairs_module, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(pairs_module, "block_rows", lambda: 64)
    four = close_pairs(
        unit, labels, clusters, 0.9, devices=devices, progress=lambda *step: steps.append(step)
    )
    np.testing.assert_array_equal(one.rows, four.rows)
    np.testing.assert_array_equal(one.similarity, four.similarity)
    assert steps[-1][0] == steps[-1][1] > 10
    i, j = brute_force(x, 0.9).T
    inside = (labels[i] == labels[j]) | (np.sort([labels[i], labels[j]], axis=0).T == [0, 1]).all(1)
    np.testing.assert_array_equal(one.rows, np.stack([i, j], axis=1)[inside])


def test_equal_rows_are_searched_once(x):
    """Copies at other lengths, of different content, count as one, ranked as the best."""
    rng = np.random.default_rng(2)
    copies = x[rng.integers(0, 5, 3000)] * 2.0 ** rng.integers(-3, 4, (3000, 1))
    many = np.concatenate([x, copies]).astype(np.float32)[rng.permutation(3600)]
    keep = rng.normal(size=3600)
    unit = many.astype(np.float64) / np.linalg.norm(many.astype(np.float64), axis=1, keepdims=True)
    near = unit @ unit.T >= 0.97
    for given in (None, keep):
        found = deduplicate(
            many, 0.97, keep=given, digests=np.arange(3600), n_clusters=60, n_neighbors=60
        )
        assert found.n_same == 0 and len(found.pairs) < 10_000
        kept = []
        worth = np.zeros(3600) if given is None else given
        for row in np.lexsort((np.arange(3600), -near.sum(axis=1), -worth)):
            if not near[row, kept].any():
                kept.append(row)
        np.testing.assert_array_equal(found.kept, np.sort(kept))


def test_equal_rows_of_different_clusters_are_each_searched():
    """A tree distinguishes lengths: a copy may have neighbors that the first row does not have."""
    x = np.array([[1, 0], [1, 0.01], [50, 0], [50, 1], [90, 1], [1, 0]], np.float32)
    leaf = np.array([0, 0, 1, 1, 2, 0], np.int32)
    centroids = np.array([[1, 0], [50, 0.5], [90, 1]], np.float32)
    tree = jc.ClusterTree((jc.TreeLevel(centroids, leaf, np.zeros(6, np.float32)),))
    found = deduplicate(x, 0.999, digests=np.arange(6), tree=tree, n_neighbors=0)
    np.testing.assert_array_equal(found.direction, [0, 1, 0, 3, 4, 0])
    np.testing.assert_array_equal(found.pairs, [[0, 1], [0, 3]])
    np.testing.assert_array_equal(found.representative, [0, 0, 0, 0, 4, 0])


def test_same_content_by_hand():
    x = np.array([[1, 0], [0, 1], [1, 0], [-0.0, 1], [2, 0], [0, 1], [0, 0]], np.float32)
    found = deduplicate(x, None)
    np.testing.assert_array_equal(found.kept, [0, 1, 4, 6])
    np.testing.assert_array_equal(found.representative, [0, 1, 0, 1, 4, 1, 6])
    np.testing.assert_array_equal(found.same, np.isin(np.arange(7), [2, 3, 5]))
    assert (found.n_same, found.n_near) == (3, 0)
    near = deduplicate(x, 1.0, n_clusters=1)  # the cosine of rows 0 and 4 is 1
    np.testing.assert_array_equal(near.representative, [0, 1, 0, 1, 0, 1, 6])
    assert (near.n_same, near.n_near) == (3, 1)
    assert len(near.pairs) == 0 and (near.similarity == 1).all()


def test_digests_of_the_items_decide():
    x = np.eye(4, dtype=np.float32)
    items = np.array([[7, 7], [1, 2], [7, 7], [0, 0]], np.uint8)
    found = deduplicate(x, 0.5, digests=content_digests(items))
    np.testing.assert_array_equal(found.kept, [0, 1, 3])
    first, group = first_of_same(np.array([5, 3, 5, 3, 9]))
    np.testing.assert_array_equal(first, [0, 1, 4])
    np.testing.assert_array_equal(group, [0, 1, 0, 1, 2])


def test_a_chain_is_one_component_and_no_cover():
    angles = np.deg2rad([0, 10, 20, 90])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    threshold = np.cos(np.deg2rad(11))
    settings = {"n_clusters": 2, "n_neighbors": 1, "keep": np.array([3, 2, 1, 0])}
    chained = deduplicate(x, threshold, rule="components", **settings)
    np.testing.assert_array_equal(chained.representative, [0, 0, 0, 3])
    np.testing.assert_allclose(chained.similarity, np.cos(angles * [1, 1, 1, 0]), atol=1e-6)
    recall, precision, purity, covered, n_alike = agreement(chained, x, threshold)
    assert (recall, precision, covered, n_alike) == (1, 1, 0.5, 4)
    assert purity == pytest.approx(4 / 6)
    cover = deduplicate(x, threshold, **settings)
    np.testing.assert_array_equal(cover.representative, [0, 0, 2, 3])
    assert agreement(cover, x, threshold)[2:4] == (1, 1)
    densest = deduplicate(x, threshold, n_clusters=2, n_neighbors=1)
    np.testing.assert_array_equal(densest.representative, [1, 1, 1, 3])


def test_rows_of_any_size_have_a_direction():
    x = np.array([[1e-30, 0], [1e30, 1e24], [0, 1e-38], [0, 0], [0, 5]], np.float32)
    found = deduplicate(x, 0.99, n_clusters=2)
    np.testing.assert_array_equal(found.representative, [0, 0, 2, 3, 2])


def test_what_does_not_fit_in_memory_streams(x):
    many = np.concatenate([x + 0.01 * i for i in range(12)])
    whole, streamed = (
        deduplicate(many, 0.97, n_clusters=24, memory_limit=m) for m in (None, 200_000)
    )
    assert 4 * many.size > 200_000
    assert agreement(streamed, many, 0.97, np.arange(0, 7200, 9)).recall > 0.99
    assert abs(len(whole.kept) - len(streamed.kept)) <= 2


def test_neighboring_clusters_by_hand():
    centroids = np.array([[0.0], [1.0], [3.0], [50.0], [7.0]])
    found = neighboring_clusters(centroids, np.array([1, 1, 0, 1, 4]), 1)
    expected = [[0, 0], [0, 1], [1, 1], [1, 4], [3, 3], [3, 4], [4, 4]]
    np.testing.assert_array_equal(found, expected)
    assert len(neighboring_clusters(centroids, np.ones(5, int), 9)) == 15
    assert len(neighboring_clusters(centroids, np.ones(5, int), 0)) == 5


@pytest.mark.parametrize("threshold", [0.97, None])
def test_what_is_saved_is_loaded(x, tmp_path, threshold):
    found = deduplicate(x, threshold)
    found.save(tmp_path / "dedup", {"pool": "abc"})
    loaded = Duplicates.load(tmp_path / "dedup")
    for field in dataclasses.fields(found):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(found, field.name))
    card = json.loads((tmp_path / "dedup/card.json").read_text())
    assert card["pool"] == "abc" and card["summary"] == summary_line(found)
    assert card["kept"] + card["same"] + card["near"] == 600
    dropped = np.setdiff1d(np.arange(600), found.kept)
    assert card["lowest_similarity"] == (found.similarity[dropped].min() if threshold else None)
    file = tmp_path / "dedup" / "kept.npy"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(DamagedError, match=r"kept\.npy"):
        Duplicates.load(tmp_path / "dedup")


def test_a_folder_of_an_older_release_is_refused(tmp_path):
    with folders.new_folder(tmp_path / "dedup", {"kept": 2}, "duplicates") as folder:
        for name in ("kept", "components", "pairs", "similarity", "same"):
            folder.save_array(f"{name}.npy", np.arange(2))
    with pytest.raises(jc.InputError, match=r"of an older release, .* run dedup again"):
        Duplicates.load(tmp_path / "dedup")


def test_valid_rows_go_on_to_clustering_and_sampling(x):
    found = deduplicate(x, 0.97)
    tree = jc.hierarchical_kmeans(x, [jc.Level(40)], rows=found.kept)
    taken = jc.sample(tree, 100, rows=found.kept)
    assert len(np.unique(found.representative[taken])) == 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 0}, "threshold=0 must"),
        ({"threshold": 1.01}, "threshold=1.01 must"),
        ({"threshold": float("nan")}, "threshold=nan must"),
        ({"n_neighbors": -1}, "n_neighbors=-1"),
        ({"rule": "leader"}, "rule='leader'; known: 'cover', 'components'"),
        ({"max_pairs": -1}, "max_pairs=-1"),
        ({"keep": np.ones(3)}, r"keep has the shape \(3,\), but x has 4 rows"),
        ({"keep": np.array([1, np.nan, 2, 3])}, "keep has no number in row 1"),
        ({"keep": np.array(list("abcd"))}, "keep must hold numbers or dates, not <U1"),
        ({"n_clusters": 9}, "n_clusters=9"),
        ({"digests": np.zeros((3, 2))}, "digests has 3 entries, but x has 4"),
        ({"x": np.ones(3)}, "x must have two axes"),
        ({"x": np.array([[1.0], [np.nan]])}, "x has a NaN or an infinity, first in row 1"),
        ({"tree": jc.ClusterTree.from_labels([np.zeros(3, int)])}, "tree has 3 points"),
        ({"tree": jc.ClusterTree.from_labels([np.zeros(4, int)])}, "tree has no centroids"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        deduplicate(**({"x": np.eye(4)} | change))


def test_clip_art(data_dir):
    """Pool with 16 % exact duplicates, which are in the archive."""
    pixels = raw.read_clipart(Path(data_dir) / "raw/clipart", 32).pixels
    flat = pixels.reshape(len(pixels), -1)
    seen = {}
    group = np.array([seen.setdefault(row.tobytes(), len(seen)) for row in flat])
    digests = content_digests(pixels)
    exact = deduplicate(flat.astype(np.float32), None, digests=digests)
    assert 0.14 < 1 - len(seen) / len(pixels) < 0.18
    assert len(exact.kept) == len(seen)
    assert same_partition(exact.representative, group)
    # Near-duplicates among principal components, against brute force of a sample of queries.
    centered = flat.astype(np.float32) - flat.mean(axis=0, dtype=np.float64).astype(np.float32)
    directions = np.linalg.svd(centered[::16], full_matrices=False)[2][:64]
    x = centered @ directions.T
    found = deduplicate(x, 0.95, digests=digests)
    measured = agreement(found, x, 0.95, np.arange(0, len(x), 16))
    print(f"clip art: {found.n_same} same, {found.n_near} near, {measured}")
    assert found.n_same == len(pixels) - len(seen)
    assert measured.precision == measured.covered == 1
    assert measured.recall > 0.999
    assert measured.n_alike > 50_000
