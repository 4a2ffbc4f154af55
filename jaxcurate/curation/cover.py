"""Rows that stand for others in a graph of close pairs: a greedy cover, or connected components."""

from typing import Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from jaxcurate.neighbors.close_pairs import Pairs

Rule = Literal["cover", "components"]


def representatives(pairs: Pairs, rank: np.ndarray, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """Returns the row that stands for each row, and the similarity of the two.

    Args:
        pairs: Close pairs among ``n`` rows.
        rank: Distinct whole numbers ``[n]``; the lowest is the best.
        rule: ``"cover"`` keeps the rows of :func:`greedy_cover`, and the most similar kept row
            stands for each other row, of equally similar ones the best. ``"components"`` keeps the
            best row of each connected component.

    Returns:
        Numbers of the rows that stand for each row, int64 ``[n]``, and similarities, float32
        ``[n]``: 1 for a kept row, and NaN for a row of a component whose pair with the kept row is
        not among the pairs.

    Examples:
        In a chain of three rows, the middle one stands for the others if it is the best. If an end
        is the best, the other end is no duplicate of it, but in its component:

        >>> import numpy as np
        >>> from jaxcurate.curation.cover import representatives
        >>> from jaxcurate.neighbors import Pairs
        >>> chain = Pairs(np.array([[0, 1], [1, 2]]), np.array([0.9, 0.8], np.float32))
        >>> representatives(chain, np.array([1, 0, 2]), "cover")
        (array([1, 1, 1]), array([0.9, 1. , 0.8], dtype=float32))
        >>> representatives(chain, np.array([0, 1, 2]), "cover")
        (array([0, 0, 2]), array([1. , 0.9, 1. ], dtype=float32))
        >>> representatives(chain, np.array([0, 1, 2]), "components")
        (array([0, 0, 0]), array([1. , 0.9, nan], dtype=float32))
    """
    n = len(rank)
    rows_by_rank = np.empty(n, np.int64)
    rows_by_rank[rank] = np.arange(n)
    if rule == "components":
        chosen = rows_by_rank[_best_of_components(pairs.rows, rank)]
        similarity = np.full(n, np.nan, np.float32)
        similarity[chosen] = 1
        for stays, goes in (pairs.rows.T, pairs.rows.T[::-1]):
            link = np.flatnonzero(chosen[goes] == stays)
            similarity[goes[link]] = pairs.similarity[link]
        return chosen, similarity
    kept = greedy_cover(pairs.rows, rank)
    similarity = np.where(kept, np.float32(1), np.float32(-np.inf))
    best = np.where(kept, rank, n)
    links = []
    for stays, goes in (pairs.rows.T, pairs.rows.T[::-1]):
        link = np.flatnonzero(kept[stays] & ~kept[goes])
        links.append((stays[link], goes[link], pairs.similarity[link]))
        np.maximum.at(similarity, goes[link], pairs.similarity[link])
    for stays, goes, cosine in links:
        most = cosine == similarity[goes]
        np.minimum.at(best, goes[most], rank[stays[most]])
    return rows_by_rank[best], similarity


def greedy_cover(pairs: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Marks the rows that a greedy cover keeps: each row that is close to no better kept row.

    Every other row is close to a kept one, and no two kept rows are close to each other.

    Rows are decided in rounds, and each pair is looked at twice at most. A row is kept once all
    better rows that are close to it have been dropped, and dropped once one of them is kept. A walk
    over the rows from the best to the worst decides by the same two conditions, which depend on
    better rows alone, so that by induction over the rank it keeps the same rows. With ranks in
    random order there are few rounds (Blelloch et al.); in a chain of falling rank there is one
    round for every second row.

    Args:
        pairs: Close pairs of rows, int ``[p, 2]``.
        rank: Distinct whole numbers ``[n]``; the lowest is the best.

    Returns:
        bool ``[n]``.

    References:
        Blelloch, Fineman and Shun, Greedy Sequential Maximal Independent Set and Matching are
        Parallel on Average, 2012. https://arxiv.org/abs/1202.3205

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.curation.cover import greedy_cover
        >>> greedy_cover(np.array([[0, 1], [1, 2], [2, 3]]), np.array([3, 0, 1, 2]))
        array([False,  True, False,  True])
    """
    n = len(rank)
    index = np.int32 if n < 2**31 else np.int64
    swapped = rank[pairs[:, 0]] > rank[pairs[:, 1]]
    better = np.where(swapped, pairs[:, 1], pairs[:, 0]).astype(index)
    worse = np.where(swapped, pairs[:, 0], pairs[:, 1]).astype(index)
    graph = coo_array((np.ones(len(pairs), bool), (better, worse)), shape=(n, n)).tocsr()
    del swapped, better, worse
    n_open = np.bincount(graph.indices, minlength=n)  # undecided rows that are better and close
    undecided, kept = np.ones(n, bool), np.zeros(n, bool)
    place = np.empty(n, np.int64)
    found = np.flatnonzero(n_open == 0)
    while len(found):
        kept[found], undecided[found] = True, False
        close = graph[found].indices
        dropped = _distinct(close[undecided[close]], place)
        undecided[dropped] = False
        close = graph[dropped].indices
        close = close[undecided[close]]
        np.subtract.at(n_open, close, 1)
        found = _distinct(close[n_open[close] == 0], place)
    return kept


def _distinct(rows: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Returns row numbers without repeats, in linear time.

    Args:
        rows: Row numbers ``[m]``.
        place: int64 ``[n]`` of any content, which is overwritten.
    """
    numbers = np.arange(len(rows))
    place[rows] = numbers
    return rows[place[rows] == numbers]


def _best_of_components(pairs: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Returns the lowest rank in the connected component of each row, int64 ``[n]``."""
    n = len(rank)
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    n_components, labels = connected_components(graph, directed=False)
    best = np.full(n_components, n, np.int64)
    np.minimum.at(best, labels, rank)
    return best[labels]
