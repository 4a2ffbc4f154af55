"""The arms' draws: drawn anew for every seed, tied to the items, independent of each other."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import jaxcurate as jc
from jaxcurate.artifacts.subset import save_subset
from jaxcurate.checks import InputError
from jaxcurate.config import (
    ClusterConfig,
    Config,
    DedupConfig,
    EvaluateConfig,
    MixConfig,
    SampleConfig,
)
from jaxcurate.curation.mixing import mix
from jaxcurate.evaluation.arms import Arms, Common
from jaxcurate.evaluation.draws import deduplicated, steps_of
from jaxcurate.evaluation.manifests import read_manifest
from jaxcurate.stateless_random import other_seed
from jaxcurate.training import PretrainConfig


@pytest.fixture(scope="module")
def pool():
    return jc.make_pool(np.random.default_rng(0).normal(size=(400, 3)))


@pytest.fixture(scope="module")
def tree(pool):
    return jc.hierarchical_kmeans(pool, [jc.Level(30), jc.Level(6)])


def in_another_order(pool, tree, order):
    """Returns the same items and the same clusters, in other rows."""
    leaf = tree.levels[0]
    leaf = leaf._replace(labels=leaf.labels[order], distances=leaf.distances[order])
    return (
        jc.make_pool(pool.embeddings[order], pool.ids[order]),
        jc.ClusterTree((leaf, *tree.levels[1:])),
    )


OLD_SUMS = {
    "curated": [1225, 10016, 9355],
    "random": [10223, 9534, 9478],
    "pool": [79800, 79800, 79800],
    "flat": [8867, 10596, 10105],
}
TRAINING = PretrainConfig(n_steps=30, batch_size=20)


def test_arms_are_drawn_anew_for_every_seed(pool, tree):
    arms = Arms(pool, tree, SampleConfig(50))
    draws = arms.draw(np.arange(50), EvaluateConfig(("flat",), n_seeds=3, flat_level=2), seed=7)
    assert list(draws) == ["curated", "random", "pool", "flat"]
    np.testing.assert_array_equal(draws["curated"][0].rows, np.arange(50))
    expected = jc.sample(tree, 50, seed=9, ids=pool.ids)
    np.testing.assert_array_equal(draws["curated"][2].rows, expected)
    for arm in ("random", "flat"):
        for draw in draws[arm]:
            assert draw.rows.dtype == np.int64 and len(np.unique(draw.rows)) == 50
            assert (np.diff(draw.rows) > 0).all() and draw.batches is None
        assert len({tuple(draw.rows) for draw in draws[arm]}) == 3
    assert all(len(draw.rows) == 400 for draw in draws["pool"])


def test_the_flat_arm_is_balanced_over_one_level(pool, tree):
    arms = Arms(pool, tree, SampleConfig(60, strategy="closest"), np.arange(350))
    for level, k in ((1, 30), (2, 6)):
        rows = arms.flat(3, level)
        counts = np.bincount(tree.point_labels(level)[rows], minlength=k)
        most = np.bincount(tree.point_labels(level)[:350], minlength=k)
        assert len(rows) == 60 and rows.max() < 350
        # As even as the clusters' sizes allow: no cluster could give to one that has less.
        assert counts.max() <= counts[counts < most].min(initial=99) + 1
    closest = arms.flat(3, 1)
    for cluster in range(30):
        valid = np.flatnonzero(tree.levels[0].labels[:350] == cluster)
        taken = np.isin(valid, closest)
        distances = tree.levels[0].distances[valid]
        assert distances[taken].max(initial=0) <= distances[~taken].min(initial=np.inf)


def test_the_stratified_arm_sees_all_clusters_of_the_whole_pool_equally_often(pool, tree):
    arms = Arms(pool, tree, SampleConfig(60))
    settings = EvaluateConfig(("stratified",), n_seeds=2, pretraining=TRAINING)
    first, second = arms.draw(np.arange(60), settings, 4)["stratified"]
    np.testing.assert_array_equal(first.rows, np.arange(400))
    assert len(first.batches) == 30 and first.batches.fingerprint != second.batches.fingerprint
    tops = np.bincount(tree.point_labels(2)[first.seen], minlength=6)
    assert tops.sum() == 600 and tops.max() - tops.min() <= 1
    by_rows = EvaluateConfig(("stratified",), 1, "rows", 1, pretraining=TRAINING)
    (rows,) = arms.draw(np.arange(60), by_rows, 4)["stratified"]
    times = np.bincount(rows.seen, minlength=400)
    assert (times.min(), times.max()) == (1, 2)


def test_a_pool_in_another_order_gives_the_same_items(pool, tree):
    order = np.random.default_rng(1).permutation(400)
    other_pool, other_tree = in_another_order(pool, tree, order)
    valid = np.arange(0, 400, 2)
    valid_in_other = np.flatnonzero(np.isin(order, valid))
    settings = EvaluateConfig(("flat",), n_seeds=3)
    draws = Arms(pool, tree, SampleConfig(50), valid).draw(np.arange(3), settings, 0)
    others = Arms(other_pool, other_tree, SampleConfig(50), valid_in_other).draw(
        np.arange(3), settings, 0
    )
    for arm in ("curated", "random", "flat"):
        for a, b in zip(draws[arm][1:], others[arm][1:], strict=True):
            assert set(pool.ids[a.rows]) == set(other_pool.ids[b.rows])
            assert not np.array_equal(a.rows, b.rows)


def test_the_random_arm_does_not_follow_the_curated_one(pool, tree):
    arms = Arms(pool, tree, SampleConfig(100))
    shared = [len(np.intersect1d(arms.curated(s), arms.random(s, 100))) for s in range(60)]
    # 25 of 100 by chance, with a standard error of 0.5 over sixty draws.
    assert 23 < np.mean(shared) < 27


def test_what_the_pool_cannot_give_is_not_asked_for(pool, tree):
    assert Arms(pool, tree, SampleConfig(500)).size == 400
    assert Arms(pool, tree, SampleConfig(500, max_repeats=2)).size == 500
    few = Arms(pool, tree, SampleConfig(500), np.array([3, 8]))
    np.testing.assert_array_equal(few.curated(0), [3, 8])
    np.testing.assert_array_equal(few.random(0, 500), np.arange(400))


def test_the_deduplicated_arm_takes_kept_rows_alone(pool, tree):
    kept = np.arange(0, 400, 3)
    arms = Arms(pool, tree, SampleConfig(50), kept, deduplicated=True)
    draws = arms.draw(np.arange(50), EvaluateConfig(("deduplicated",), n_seeds=3), 0)
    for draw, random in zip(draws["deduplicated"], draws["random"], strict=True):
        assert len(np.unique(draw.rows)) == 50 and np.isin(draw.rows, kept).all()
        assert not np.isin(random.rows, kept).all()
    assert len({tuple(draw.rows) for draw in draws["deduplicated"]}) == 3
    # Every kept row is as likely: 50 of 134 rows, with a standard error of 0.03 over 300 draws.
    common = Common(arms, np.arange(50), EvaluateConfig(), 0)
    rows = np.concatenate([deduplicated(common, seed).rows for seed in range(300)])
    counts = np.bincount(rows, minlength=400)[kept] / 300
    assert abs(counts - 50 / 134).max() < 0.12
    few = Common(dataclasses.replace(arms, valid=kept[:7]), np.arange(50), EvaluateConfig(), 0)
    np.testing.assert_array_equal(deduplicated(few, 1).rows, kept[:7])
    with pytest.raises(InputError, match="which is off"):
        Arms(pool, tree, SampleConfig(50), kept).draw(
            np.arange(50), EvaluateConfig(("deduplicated",)), 0
        )


def test_the_mixed_arm_has_the_fractions_that_are_asked_for(pool, tree):
    settings = EvaluateConfig(("mixed",), n_seeds=2, mix=MixConfig(curated=0.25, raw=0.75))
    arms = Arms(pool, tree, SampleConfig(80), np.arange(350))
    draws = arms.draw(np.arange(80), settings, 3)["mixed"]
    assert all(len(np.unique(draw.rows)) == 80 and draw.rows.max() < 350 for draw in draws)
    assert not np.array_equal(draws[0].rows, draws[1].rows)
    expected = mix(
        tree, 80, settings.mix.fractions, seed=other_seed(3, 5), rows=arms.valid, ids=pool.ids
    )
    assert {name: len(rows) for name, rows in expected.items()} == {
        "curated": 20,
        "retrieved": 0,
        "raw": 60,
    }
    np.testing.assert_array_equal(draws[0].rows, np.sort(np.concatenate([*expected.values()])))
    # Without fractions of its own, the mixture is that of the subset.
    of_sample = Arms(pool, tree, SampleConfig(80, mix=settings.mix), arms.valid)
    without = dataclasses.replace(settings, mix=MixConfig())
    again = of_sample.draw(np.arange(80), without, 3)["mixed"]
    np.testing.assert_array_equal(again[1].rows, draws[1].rows)
    with pytest.raises(InputError, match="'mixed' needs a mixture"):
        arms.draw(np.arange(80), without, 3)


def test_the_plain_flat_arm_is_balanced_over_its_own_clusters(pool, tree):
    plain = jc.hierarchical_kmeans(pool, [jc.Level(6)])
    arms = Arms(pool, tree, SampleConfig(60), plain=plain)
    settings = EvaluateConfig(("flat", "flat_plain"), n_seeds=2, flat_level=2)
    draws = arms.draw(np.arange(60), settings, 0)
    counts = np.bincount(plain.levels[0].labels[draws["flat_plain"][0].rows], minlength=6)
    assert counts.tolist() == [10] * 6
    assert not np.array_equal(draws["flat"][0].rows, draws["flat_plain"][0].rows)
    with pytest.raises(InputError, match="clusters of its own"):
        Arms(pool, tree, SampleConfig(60)).draw(np.arange(60), settings, 0)


def test_arms_of_older_releases_are_drawn_as_before(pool, tree):
    """The sums are those of the release before other arms were added."""
    arms = Arms(pool, tree, SampleConfig(50))
    draws = arms.draw(np.arange(50), EvaluateConfig(("flat",), n_seeds=3, flat_level=2), seed=7)
    sums = {arm: [int(draw.rows.sum()) for draw in drawn] for arm, drawn in draws.items()}
    assert sums == OLD_SUMS


def test_equal_epochs_give_larger_arms_more_steps(pool, tree):
    training = PretrainConfig(n_steps=30, batch_size=20)
    settings = EvaluateConfig(
        ("curated", "pool", "stratified"), n_seeds=2, pretraining=training, budget="epochs"
    )
    arms = Arms(pool, tree, SampleConfig(60))
    draws = arms.draw(np.arange(60), settings, 0)
    steps = steps_of(draws, settings, 60)
    assert steps == {"curated": 30, "pool": 200, "stratified": 200}
    assert len(draws["stratified"][0].batches) == 200
    epochs = {arm: steps[arm] * 20 / len(draws[arm][0].rows) for arm in steps}
    assert set(epochs.values()) == {10}
    assert steps_of(draws, dataclasses.replace(settings, budget="steps"), 60) == {
        "curated": 30,
        "pool": 30,
        "stratified": 30,
    }
    untrained = dataclasses.replace(settings, pretraining=PretrainConfig(n_steps=0))
    assert set(steps_of(draws, untrained, 60).values()) == {0}


# --- subsets from elsewhere -------------------------------------------------------------------


def test_a_manifest_names_rows_by_their_ids(pool, tree, tmp_path):
    rows = np.array([7, 399, 12])
    pq.write_table(pa.table({"id": pool.ids[rows]}), tmp_path / "theirs.parquet")
    np.testing.assert_array_equal(read_manifest(tmp_path / "theirs.parquet", pool), [7, 12, 399])
    order = np.random.default_rng(1).permutation(400)
    other, _ = in_another_order(pool, tree, order)
    found = read_manifest(tmp_path / "theirs.parquet", other)
    assert set(other.ids[found]) == set(pool.ids[rows])
    counted = pa.table({"id": pool.ids[rows], "count": [2, 0, 1]})
    pq.write_table(counted, tmp_path / "counted.parquet")
    np.testing.assert_array_equal(read_manifest(tmp_path / "counted.parquet", pool), [7, 7, 12])


def test_a_subset_of_this_package_is_read_from_its_folder(pool, tree, tmp_path):
    indices = np.array([2, 7, 7, 30])
    ours = jc.ClusterTree(tree.levels, pool.fingerprint)
    save_subset(tmp_path / "mine", indices, pool, ours, {})
    for path in ("mine", "mine/manifest.parquet", "mine/indices.npy"):
        np.testing.assert_array_equal(read_manifest(tmp_path / path, pool), indices)
    other = jc.make_pool(pool.embeddings, np.array([f"x{i}" for i in range(400)]))
    with pytest.raises(InputError, match=r"names 3 item\(s\) that the pool does not have.*'2'"):
        read_manifest(tmp_path / "mine", other)
    with pytest.raises(InputError, match="was drawn from pool"):
        read_manifest(tmp_path / "mine/indices.npy", other)


def test_manifests_that_cannot_be_used_are_refused(pool, tmp_path):
    write = lambda name, columns: pq.write_table(pa.table(columns), tmp_path / name)
    write("none.parquet", {"id": pa.array([], pa.string())})
    write("other.parquet", {"name": ["1"]})
    write("unknown.parquet", {"id": ["1", "cat"]})
    write("below.parquet", {"id": ["1"], "count": [-1]})
    (tmp_path / "text.parquet").write_text("no parquet")
    np.save(tmp_path / "far.npy", np.array([400]))
    np.save(tmp_path / "floats.npy", np.zeros(3))
    (tmp_path / "text.npy").write_text("no array")
    for name, words in (
        ("none.parquet", "names no item"),
        ("other.parquet", "no column 'id', only name"),
        ("unknown.parquet", "1 item.* that the pool does not have, the first 'cat'"),
        ("below.parquet", "'count' must have whole numbers"),
        ("text.parquet", "cannot be read as Parquet"),
        ("far.npy", "names row 400, but there are rows 0 to 399"),
        ("floats.npy", "must hold whole numbers"),
        ("text.npy", "text.npy"),
        ("missing.parquet", "there is no manifest"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            read_manifest(tmp_path / name, pool)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_manifests_are_arms_beside_the_others(pool, tree):
    elsewhere = {"theirs": np.arange(5)}
    draws = Arms(pool, tree, SampleConfig(50), elsewhere=elsewhere).draw(
        np.arange(50), EvaluateConfig(("curated",), n_seeds=3), 0
    )
    assert list(draws) == ["curated", "random", "pool", "theirs"]
    assert [draw.rows.tolist() for draw in draws["theirs"]] == [[0, 1, 2, 3, 4]] * 3
    settings = EvaluateConfig(("curated",), manifests=("theirs=a=b.npy",))
    assert settings.manifest_paths == {"theirs": "a=b.npy"}
    assert settings.trained == ("curated", "theirs")
    assert EvaluateConfig(arms=(), manifests=("theirs=a.npy",)).trained == ()


@pytest.mark.parametrize(
    ("manifests", "words"),
    [
        (("a.npy",), "'a.npy' is not NAME=PATH"),
        (("a=",), "'a=' is not NAME=PATH"),
        (("../a=b",), "must be of letters"),
        (("pool=b",), "'pool' is the name of an arm"),
        (("untrained=b",), "'untrained' is the name of an arm"),
        (("a=b", "a=c"), "must name each arm once"),
    ],
)
def test_manifests_without_a_name_of_their_own_are_refused(manifests, words):
    with pytest.raises(InputError, match=words):
        EvaluateConfig(manifests=manifests)


def test_arms_that_other_settings_must_allow(tmp_path):
    common = {
        "source": "npy:x.npy",
        "cluster": ClusterConfig((jc.Level(5),)),
        "sample": SampleConfig(5),
    }
    wanting = EvaluateConfig(("deduplicated",))
    assert Config(**common, evaluate=wanting).dedup.enabled
    with pytest.raises(InputError, match=r"evaluate\.arms has 'deduplicated'"):
        Config(**common, evaluate=wanting, dedup=DedupConfig(enabled=False))
    with pytest.raises(InputError, match=r"evaluate\.arms has 'mixed'"):
        Config(**common, evaluate=EvaluateConfig(("mixed",)))
    Config(**common, evaluate=EvaluateConfig(("mixed",), mix=MixConfig(curated=0.5, raw=0.5)))
