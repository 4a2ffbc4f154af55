"""Proposals of levels of hierarchical k-means for the sizes of a pool and of a subset."""

import math
from typing import NamedTuple

from jaxcurate.checks import InputError
from jaxcurate.curation.level import Level

_RATIOS = (25, 20, 10, 5)
"""Number of clusters of a level for each cluster of the level above, the topmost last."""
_ROUNDS = 10
_MOST_SCORES = 10**14
"""Number of rows times clusters of the largest published k-means, about 743 M x 100 k."""


class Proposal(NamedTuple):
    """Proposed levels and the reasons for them."""

    levels: tuple[Level, ...]
    """Settings of the levels, bottom up."""
    reasons: tuple[str, ...]
    """Lines of text, a line for each choice."""


def propose_levels(n: int, size: int) -> Proposal:
    """Returns levels for a pool, interpolated between the published settings.

    For 743 M rows the levels are those of the published pool of web images. For 100 k rows they
    are those of the published small example.

    Args:
        n: number of rows of the pool, at least 200.
        size: number of rows of the subset.

    Raises:
        InputError: an argument cannot be used; the message names it.

    References:
        Vo et al., Automatic Data Curation for Self-Supervised Learning, 2024, section 4 and
        appendix. https://arxiv.org/abs/2405.15613

    Examples:
        >>> from jaxcurate.curation import propose_levels
        >>> proposal = propose_levels(n=100_000, size=10_000)
        >>> [level.n_clusters for level in proposal.levels]
        [5000, 1000]
        >>> proposal.reasons[1][:41]
        'level 1, k = 5,000: about 20 rows a clust'
    """
    if n < 200:
        raise InputError(
            f"n={n} rows are too few for a proposal of levels: at least 200 are needed; a "
            "configuration of your own may give one level, such as levels=(Level(10),)"
        )
    if not 1 <= size <= n:
        raise InputError(f"size={size} must be within 1 and the n={n} rows of the pool")
    reasons = []
    n_levels = 2 + sum(n >= bound for bound in (10**6, 10**8, 10**10))
    reasons.append(
        f"{n_levels} levels: two for a pool below a million rows, one more for each hundredfold; "
        "the second level gains most"
    )
    fraction = min(max((math.log10(n) - 5) / 3, 0), 1)
    per_leaf = 20 * 3.75**fraction
    ks = [_round(n / per_leaf)]
    reasons.append(
        f"level 1, k = {ks[0]:,}: about {per_leaf:.0f} rows a cluster (20 in the published example "
        "of 100 k rows, 75 in that of 743 M)"
    )
    for ratio in _RATIOS[len(_RATIOS) + 1 - n_levels :]:
        ks.append(_round(ks[-1] / ratio))
        reasons.append(f"level {len(ks)}, k = {ks[-1]:,}: {ratio} times fewer, as published")
    most = max(size // 4, 2)
    if ks[-1] > most:
        top = _round(most)
        ks = [k for k in ks[:-1] if k > top] + [top]
        reasons.append(
            f"the top level has k = {top:,} instead: each of its clusters then gives about 4 of "
            f"the {size:,} rows that are wanted, so that the levels below have a say"
        )
    levels, below = [], n
    for number, k in enumerate(ks, 1):
        r, n_splits = math.ceil(below / k / 2), _splits(below, k)
        if n_splits > 1:
            levels.append(Level(k // n_splits, n_splits=n_splits))
            reasons.append(
                f"level {number} has {k // n_splits:,} clusters, each split into {n_splits:,}, and "
                f"no resampling: a single k-means would be {below * k / _MOST_SCORES:,.0f} times "
                "the work of the largest published one"
            )
        elif r > 1:
            levels.append(Level(k, _ROUNDS, r))
            reasons.append(
                f"level {number}, m = {_ROUNDS} rounds of resampling, as good as 100 in the paper, "
                f"with r = {r}: half of the {below / k:.0f} members of an average cluster"
            )
        else:
            levels.append(Level(k))
            reasons.append(f"level {number}, no resampling: its clusters have too few members")
        below = k
    return Proposal(tuple(levels), tuple(reasons))


def _splits(n: int, k: int) -> int:
    """Returns the number of parts of each cluster, so that no k-means exceeds the largest published
    one."""
    n_splits = 1
    # Beyond the square root of k, the k-means inside the clusters would take more time.
    while (
        n * k / n_splits > _MOST_SCORES and (10 * n_splits) ** 2 <= k and k % (10 * n_splits) == 0
    ):
        n_splits *= 10
    return n_splits


def _round(k: float) -> int:
    """Returns the nearest number of the form digit times power of ten."""
    unit = 10 ** max(math.floor(math.log10(max(k, 1))), 0)
    return max(round(k / unit), 1) * unit
