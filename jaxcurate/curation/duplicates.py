"""Duplicates that were found: the rows that stay, and the row that stands for each other row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple, get_args

import numpy as np
from etils import epath

from jaxcurate.artifacts import files, folders
from jaxcurate.checks import InputError, check_choice, short_repr
from jaxcurate.curation.cover import Rule, representatives
from jaxcurate.neighbors.close_pairs import Pairs
from jaxcurate.neighbors.nearest_rows import directions
from jaxcurate.runtime.devices import RowsLike

KIND = "duplicates"
_CHUNK = 16384
_NUMBERS = 2**21
"""Largest number of entries of rows that are converted to float64 at a time."""
_SETTINGS = ("threshold", "rule")
"""Fields that the card holds; each of the others is an array in a file of its own."""


class LargestGroup(NamedTuple):
    """Kept row that stands for most other rows."""

    row: int
    """Number of the kept row; of several, the first."""
    n_others: int
    """Number of other rows that it stands for."""


@dataclass(frozen=True)
class Duplicates:
    """Rows that stay, and for each other row the one that stands for it."""

    kept: np.ndarray
    """int64 ``[m]``, sorted: the rows that stay."""
    representative: np.ndarray
    """int64 ``[n]``: the kept row that stands for each row. A kept row stands for itself."""
    similarity: np.ndarray
    """float32 ``[n]``: cosine of each row and its representative, 1 for equal content. NaN where
    :meth:`at` with the rule ``"components"`` could not tell it without ``x``."""
    same: np.ndarray
    """bool ``[n]``: True for a row that goes because a better row has the same content."""
    content: np.ndarray
    """int64 ``[n]``: first row with the content of each row."""
    direction: np.ndarray
    """int64 ``[n]``: first row with the direction of each row's content."""
    pairs: np.ndarray
    """int64 ``[p, 2]``: all pairs that were found, the smaller row first. The first row of each
    direction stands for all rows of it, so that equal rows make no pairs."""
    pair_similarity: np.ndarray
    """float32 ``[p]``: cosine of each pair, at or above the threshold."""
    threshold: float | None = None
    """Cosine at or above which two rows are near-duplicates; None if only content counts."""
    rule: Rule = "cover"
    """Rule by which rows stay, as in :func:`deduplicate`."""
    rows: np.ndarray | None = None
    """int64 ``[n]``: number in the pool of each row, if only some rows of it were compared; None
    for all."""

    def pool_rows(self, rows: np.ndarray) -> np.ndarray:
        """Returns the numbers in the pool of rows ``[m]``."""
        return rows if self.rows is None else self.rows[rows]

    @property
    def n_same(self) -> int:
        """Number of rows that go because a better row has the same content."""
        return int(self.same.sum())

    @property
    def n_near(self) -> int:
        """Number of further rows that go as near-duplicates."""
        return len(self.content) - len(self.kept) - self.n_same

    @property
    def largest_group(self) -> LargestGroup:
        """The kept row that stands for most other rows."""
        counts = np.bincount(self.representative)
        row = int(counts.argmax())
        return LargestGroup(row, int(counts[row]) - 1)

    def at(
        self,
        threshold: float | None,
        *,
        rule: Rule = "cover",
        keep: np.ndarray | None = None,
        x: RowsLike | None = None,
    ) -> "Duplicates":
        """Returns the duplicates at the same or a higher threshold, from the pairs, in seconds.

        They equal those of :func:`deduplicate` with this threshold.

        Args:
            threshold: cosine at or above which two rows are near-duplicates, at least that of this
                search. None joins rows of equal content alone.
            rule: rule by which rows stay, as in :func:`deduplicate`.
            keep: numbers ``[n]``, as in :func:`deduplicate`.
            x: rows ``[n, d]`` of the search. Only for the rule ``"components"``, to compute the
                similarities of rows that nothing but a chain connects; otherwise they are NaN.

        Raises:
            InputError: an argument cannot be used, or the threshold is lower than that of the
                search.

        Examples:
            >>> import numpy as np
            >>> from jaxcurate.curation import deduplicate
            >>> x = np.array([[1.0, 0], [0.99, 0.1], [0.9, 0.4], [0, 1]])
            >>> found = deduplicate(x, 0.9)
            >>> found.kept, found.at(0.99).kept
            (array([0, 3]), array([0, 2, 3]))
        """
        check_threshold(threshold)
        if threshold is not None and (
            self.threshold is None or np.float32(threshold) < np.float32(self.threshold)
        ):
            raise InputError(
                f"threshold={threshold} is below that of the search, {self.threshold}: "
                "deduplicate again to find more pairs"
            )
        pairs = Pairs(self.pairs, self.pair_similarity)
        chosen = choose(self.content, self.direction, pairs, threshold, rule, keep)
        return chosen if x is None else with_similarities(chosen, x)

    def save(
        self,
        path: epath.PathLike,
        about: Mapping[str, Any] | None = None,
        also: Callable[[folders.NewFolder], None] | None = None,
    ) -> None:
        """Writes a folder, which appears whole or not at all.

        Args:
            path: path of the folder.
            about: further entries of its card.
            also: writes further files to the folder.
        """
        dropped = np.delete(self.similarity, self.kept)
        card = {
            "kept": len(self.kept),
            "same": self.n_same,
            "near": self.n_near,
            "largest_group": self.largest_group._asdict() if len(self.content) else None,
            "lowest_similarity": float(dropped.min()) if len(dropped) else None,
            "summary": summary_line(self),
            **{name: getattr(self, name) for name in _SETTINGS},
        }
        with folders.new_folder(path, {**(about or {}), **card}, KIND) as folder:
            for name, value in vars(self).items():
                if name not in _SETTINGS and value is not None:
                    folder.save_array(f"{name}.npy", value)
            if also is not None:
                also(folder)

    @classmethod
    def load(cls, path: epath.PathLike) -> "Duplicates":
        """Reads the folder that :meth:`save` wrote.

        Raises:
            DamagedError: a file is missing, truncated or altered; the message names it.
            InputError: an older release wrote the folder, in another form.
        """
        card = folders.check_files(path)
        arrays = [name for name in cls.__dataclass_fields__ if name not in (*_SETTINGS, "rows")]
        if not {f"{name}.npy" for name in arrays} <= set(card["files"]):
            raise InputError(
                f"{epath.Path(path)} holds the duplicates of an older release, which do not tell "
                "the row that stands for each row: remove the folder, and run dedup again"
            )
        load = lambda name: files.load_array(epath.Path(path) / f"{name}.npy")
        rows = load("rows") if "rows.npy" in card["files"] else None
        return cls(
            **{name: load(name) for name in arrays},
            **{name: card[name] for name in _SETTINGS},
            rows=rows,
        )


def summary_line(duplicates: Duplicates, ids: np.ndarray | None = None) -> str:
    """Returns one line: the numbers of rows that stay and go, and the largest group.

    Args:
        duplicates: Rows that stay and go.
        ids: Ids of all rows of the pool, by which the row that stands for most is named.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.curation import deduplicate, summary_line
        >>> x = np.array([[1.0, 0], [0, 1], [1, 0], [0.99, 0.01]])
        >>> summary_line(deduplicate(x, 0.95))
        'kept 2 of 4: 1 equal, 1 near at cosine 0.95; row 0 stands for most, 2 others (50.0 %)'
    """
    n = len(duplicates.content)
    line = f"kept {len(duplicates.kept):,} of {n:,}: {duplicates.n_same:,} equal"
    if duplicates.threshold is not None:
        line += f", {duplicates.n_near:,} near at cosine {duplicates.threshold:g}"
    if len(duplicates.kept) == n:
        return line
    row, n_others = duplicates.largest_group
    others = "1 other" if n_others == 1 else f"{n_others:,} others"
    (place,) = duplicates.pool_rows(np.array([row]))
    name = f"row {place}" if ids is None else repr(str(ids[place]))
    return f"{line}; {name} stands for most, {others} ({100 * n_others / n:.1f} %)"


def choose(
    content: np.ndarray,
    direction: np.ndarray,
    pairs: Pairs,
    threshold: float | None,
    rule: Rule = "cover",
    keep: np.ndarray | None = None,
) -> Duplicates:
    """Returns the duplicates by pairs that were found.

    All rows of one direction are close to the same rows, and the best of them comes before the
    others, so that they are one point of the graph, with the rank of its best row: equal rows cost
    linear time and memory.

    Args:
        content: first row with the content of each row, int64 ``[n]``.
        direction: first row with the direction of each row's content, int64 ``[n]``.
        pairs: pairs of the first rows of two directions, with at least the given threshold.
        threshold: cosine at or above which two rows are near-duplicates. None for content alone.
        rule: rule by which rows stay, as in :func:`deduplicate`.
        keep: numbers ``[n]``, as in :func:`deduplicate`.

    Raises:
        InputError: an argument cannot be used; the message names it.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.curation.duplicates import choose
        >>> from jaxcurate.neighbors import Pairs
        >>> pairs = Pairs(np.array([[0, 1]]), np.array([0.97], np.float32))
        >>> found = choose(np.array([0, 1, 1]), np.array([0, 1, 1]), pairs, 0.95)
        >>> found.representative, found.same
        (array([0, 0, 0]), array([False, False,  True]))
    """
    check_choice("rule", rule, get_args(Rule))
    n = len(content)
    worth = worth_of(keep, n)
    if threshold is None:
        points, close = content, Pairs(pairs.rows[:0], pairs.similarity[:0])
    else:
        points, close = direction, pairs
        reached = pairs.similarity >= np.float32(threshold)
        if not reached.all():
            close = Pairs(pairs.rows[reached], pairs.similarity[reached])
    order = np.argsort(-worth, kind="stable")  # of equally good rows the first comes first
    best_of_content, best = (_first_of_each(order, group) for group in (content, points))
    a, b = close.rows.T
    n_rows = np.bincount(points, minlength=n)
    density = n_rows + np.bincount(a, n_rows[b], n) + np.bincount(b, n_rows[a], n)
    rank = np.empty(n, np.int64)
    rank[np.lexsort((best, -density, -worth[best]))] = np.arange(n)
    stands, similarity = representatives(close, rank, rule)
    representative, similarity = best[stands[points]], similarity[points]
    rows = np.arange(n)
    return Duplicates(
        np.flatnonzero(representative == rows),
        representative,
        similarity,
        best_of_content[content] != rows,
        content,
        direction,
        pairs.rows,
        pairs.similarity,
        None if threshold is None else float(threshold),
        rule,
    )


def with_similarities(duplicates: Duplicates, x: RowsLike) -> Duplicates:
    """Returns duplicates with the similarities, computed in float64, that pairs could not tell.

    Args:
        duplicates: result with NaN among its similarities.
        x: rows ``[n, d]`` of the search.
    """
    similarity = duplicates.similarity.copy()
    unknown = np.flatnonzero(np.isnan(similarity))
    step = max(1, min(_CHUNK, _NUMBERS // x.shape[1]))
    for begin in range(0, len(unknown), step):
        rows = unknown[begin : begin + step]
        sides = (duplicates.direction[r] for r in (rows, duplicates.representative[rows]))
        a, b = (directions(x[side]) for side in sides)
        similarity[rows] = np.einsum("nd,nd->n", a, b)
    return Duplicates(**{**vars(duplicates), "similarity": similarity})


def check_threshold(threshold: float | None) -> None:
    """Refuses a threshold that is not within (0, 1]; None is allowed."""
    if threshold is not None and not (isinstance(threshold, Real) and 0 < threshold <= 1):
        raise InputError(f"threshold={short_repr(threshold)} must be above 0 and at most 1")


def worth_of(keep: np.ndarray | None, n: int) -> np.ndarray:
    """Returns whole numbers in the order of ``keep``, int64 ``[n]``; zeros if it is None.

    Raises:
        InputError: ``keep`` has another length, or does not hold numbers or dates that can be
            ordered.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.curation.duplicates import worth_of
        >>> worth_of(np.array(["2024-05-01", "2023-01-01"], "datetime64[D]"), 2)
        array([1, 0])
    """
    if keep is None:
        return np.zeros(n, np.int64)
    keep = np.asarray(keep)
    if keep.shape != (n,):
        raise InputError(f"keep has the shape {keep.shape}, but x has {n} rows")
    if keep.dtype.kind not in "biufM":
        raise InputError(f"keep must hold numbers or dates, not {keep.dtype}")
    unordered = np.flatnonzero(np.isnat(keep) if keep.dtype.kind == "M" else np.isnan(keep))
    if len(unordered):
        raise InputError(f"keep has no number in row {unordered[0]}, so that it cannot be ranked")
    return np.unique(keep, return_inverse=True)[1].astype(np.int64)


def _first_of_each(order: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns the row of each group that comes first in an order; ``n - 1`` stands for no row.

    Args:
        order: row numbers, a permutation ``[n]``.
        groups: number of each row's group, below ``n``, int64 ``[n]``.
    """
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    first = np.full(len(order), len(order) - 1, np.int64)
    np.minimum.at(first, groups, place)
    return order[first]
