"""The cover in rounds beside a walk over the rows, on any graph."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcurate.curation.cover import greedy_cover, representatives
from jaxcurate.neighbors import Pairs


@st.composite
def graphs(draw):
    n = draw(st.integers(1, 30))
    ends = draw(st.sets(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=90))
    pairs = np.array(sorted({(min(e), max(e)) for e in ends if e[0] != e[1]})).reshape(-1, 2)
    rank = np.array(draw(st.permutations(range(n))))
    similarity = draw(st.lists(st.integers(1, 4), min_size=len(pairs), max_size=len(pairs)))
    return Pairs(pairs.astype(np.int64), np.array(similarity, np.float32) / 4), rank


def sequential(pairs, rank):
    near = {row: set() for row in range(len(rank))}
    for i, j in pairs.tolist():
        near[i].add(j)
        near[j].add(i)
    kept = set()
    for row in np.argsort(rank).tolist():
        if not near[row] & kept:
            kept.add(row)
    return near, kept


@settings(deadline=None, max_examples=300)
@given(graphs())
def test_rounds_keep_the_rows_of_the_walk(graph):
    pairs, rank = graph
    near, kept = sequential(pairs.rows, rank)
    assert set(np.flatnonzero(greedy_cover(pairs.rows, rank)).tolist()) == kept
    chosen, similarity = representatives(pairs, rank, "cover")
    cosine = {tuple(ends): c for ends, c in zip(pairs.rows.tolist(), pairs.similarity, strict=True)}
    for row, stands in enumerate(chosen.tolist()):
        if row in kept:
            assert stands == row and similarity[row] == 1
            continue
        by_row = {other: cosine[min(row, other), max(row, other)] for other in near[row] & kept}
        assert stands == min(by_row, key=lambda other: (-by_row[other], rank[other]))
        assert similarity[row] == by_row[stands]


@settings(deadline=None, max_examples=100)
@given(graphs())
def test_the_best_row_of_each_component_stays(graph):
    pairs, rank = graph
    label = np.arange(len(rank))
    for _ in rank:
        for i, j in pairs.rows:
            label[[i, j]] = label[[i, j]].min()
    chosen, similarity = representatives(pairs, rank, "components")
    cosine = {tuple(ends): c for ends, c in zip(pairs.rows.tolist(), pairs.similarity, strict=True)}
    for row, stands in enumerate(chosen.tolist()):
        members = np.flatnonzero(label == label[row])
        assert stands == members[np.argmin(rank[members])]
        pair = min(row, stands), max(row, stands)
        expected = 1 if row == stands else cosine.get(pair, np.nan)
        np.testing.assert_array_equal(similarity[row], np.float32(expected))


@pytest.mark.parametrize("n", [2_000, 2_001])
def test_a_chain_of_falling_rank_takes_many_rounds(n):
    pairs = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
    kept = greedy_cover(pairs, np.arange(n))
    np.testing.assert_array_equal(np.flatnonzero(kept), np.arange(0, n, 2))
