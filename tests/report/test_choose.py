"""Clusters and items of the page are those that it says they are."""

import numpy as np
import pytest

from jaxcurate.artifacts.pool import make_pool
from jaxcurate.artifacts.tree import ClusterTree, TreeLevel
from jaxcurate.report import choose as choosing
from jaxcurate.report.choose import choose
from jaxcurate.report.clusters import clusters
from jaxcurate.report.findings import Findings
from jaxcurate.report.gallery import gallery
from jaxcurate.report.items import LARGE, SMALL, read_items


def findings_of(tree, kind="picture", x=None, indices=None):
    n = tree.n_points
    x = np.random.default_rng(0).normal(size=(n, 3)) if x is None else x
    return Findings(
        title="", source="npy:x", kind=kind, made_from="ab", settings={}, cards={},
        pool=make_pool(x), tree=tree, indices=np.arange(0, n, 5) if indices is None else indices,
        contents=lambda rows: [None] * len(rows), links=lambda rows: [None] * len(rows),
        results=None, losses={},
    )  # fmt: skip


def chosen(findings):
    is_kept = np.zeros(len(findings.pool), bool)
    is_kept[findings.indices] = True
    return choose(findings, is_kept), is_kept


def two_levels():
    labels = np.repeat([0, 1, 2, 4, 5], [60, 20, 10, 6, 4])
    return ClusterTree.from_labels([labels, np.array([0, 0, 1, 1, 3, 3])])


def test_strips_and_sheets_are_of_the_clusters_and_parts_they_name():
    tree = two_levels()
    choices, is_kept = chosen(findings_of(tree))
    tops = tree.point_labels(2)
    assert [(c.cluster, c.n_pool, c.n_kept) for c in choices.strips] == [
        (0, 80, 16), (1, 10, 2), (3, 10, 2),
    ]  # fmt: skip
    for choice in (*choices.strips, *choices.listed):
        assert len(set(choice.rows.tolist())) == len(choice.rows) == min(12, choice.n_pool)
        assert (tops[choice.rows] == choice.cluster).all()
        first = is_kept[choice.rows]
        assert (np.sort(first)[::-1] == first).all()
    assert is_kept[choices.kept].all() and len(choices.kept) == 20
    assert not is_kept[choices.dropped].any() and len(choices.dropped) == choosing.N_SHEET


def test_any_cluster_can_be_opened_with_the_sizes_of_its_sub_clusters():
    tree = two_levels()
    findings = findings_of(tree)
    choices, is_kept = chosen(findings)
    rows = np.concatenate([c.rows for c in (*choices.listed, *choices.strips)])
    rows = np.concatenate([rows, choices.kept, choices.dropped])
    large, small = read_items(
        findings.contents, findings.links, findings.pool.ids, is_kept,
        [(LARGE, rows), (SMALL, rows)],
    )  # fmt: skip
    section = clusters(tree, choices, small, is_kept)
    assert (section.n_listed, section.n_filled, section.n_empty) == (3, 3, 1)
    (group,) = section.groups
    parts = {cluster.number: [tuple(part) for part in cluster.parts] for cluster in group}
    assert parts == {0: [(0, 60, 12), (1, 20, 4)], 1: [(2, 10, 2)], 3: [(4, 6, 2), (5, 4, 0)]}
    assert [strip.cluster for strip in gallery(choices, large).strips] == [0, 1, 3]
    flat = ClusterTree.from_labels([np.zeros(100, np.int32)])
    assert not clusters(flat, chosen(findings_of(flat))[0], dict(enumerate([None] * 100)),
                        is_kept).has_parts  # fmt: skip


def test_too_many_clusters_are_listed_by_their_extremes_and_at_random():
    k = choosing.N_LISTED + 500
    sizes = np.arange(k) // 100 + 1
    tree = ClusterTree.from_labels([np.repeat(np.arange(k), sizes)])
    choices, _ = chosen(findings_of(tree))
    listed = [choice.cluster for choice in choices.listed]
    order = np.argsort(-sizes, kind="stable").tolist()
    assert len(listed) == len(set(listed)) == choosing.N_LISTED
    assert choices.n_filled == k
    assert listed == [cluster for cluster in order if cluster in set(listed)]
    assert listed[:250] == order[:250] and listed[-250:] == order[-250:]
    assert {choice.cluster for choice in choices.strips} <= set(listed)
    assert all(1 <= len(choice.rows) <= 3 for choice in choices.listed)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("known", [True, False])
def test_vectors_are_those_nearest_to_the_centroid(metric, known):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4)).astype(np.float32)
    labels = (np.arange(300) % 3).astype(np.int32)
    rows = x.astype(np.float64)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True) if metric == "cosine" else rows
    shift = 0.3 if known else 0.0
    centroids = np.stack([rows[labels == c].mean(axis=0) + shift for c in range(3)])
    level = TreeLevel(
        (centroids if known else np.zeros((3, 0))).astype(np.float32),
        labels,
        np.zeros(300, np.float32),
    )
    tree = ClusterTree((level,), metric=metric)
    choices, _ = chosen(findings_of(tree, "vector", x))
    for choice in choices.strips:
        members = np.flatnonzero(labels == choice.cluster)
        far = np.square(rows[members] - centroids[choice.cluster]).sum(axis=1)
        assert choice.rows.tolist() == members[np.argsort(far)[:12]].tolist()
