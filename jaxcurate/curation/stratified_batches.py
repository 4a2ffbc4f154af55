"""Training batches stratified over the clusters of a tree, as a function of seed and step."""

import functools
import threading
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxcurate.artifacts import files
from jaxcurate.artifacts.tree import ClusterTree
from jaxcurate.checks import InputError, check_choice, check_whole, checked_rows
from jaxcurate.stateless_random import permuted, priorities

Equal = Literal["rows", "clusters"]


class Batches(Sequence[np.ndarray]):
    """Sequence of the rows of every batch of a training, ``batches[step]``: int64 ``[batch_size]``.

    No batch depends on another: any batch can be drawn at any time, in any process. The sequence
    is a data source for Grain: ``grain.MapDataset.source(batches)``.

    Batches follow one of two laws. With both, a batch is balanced over the clusters of every level
    at once.

    - ``equal="rows"``: every row is drawn equally often, epoch after epoch. The rows of an epoch
      stand in a line along the tree, branches in random order, and a batch takes rows at equal
      distances. A cluster with the fraction ``p`` of the rows gives ``p * batch_size`` rows, with
      a difference below 3 rows, and below 1 if an epoch is a whole number of batches.
    - ``equal="clusters"``: every cluster is drawn equally often, whatever its size. Each draw goes
      down from the top, at every node to one of the children that were drawn least often, in
      random order. With ``k`` clusters at the top, none is in a batch more than
      ``ceil(batch_size / k) + 1`` times, and the rows of a leaf are drawn equally often.

    Examples:
        Two clusters of 9 and 3 rows give 3 rows and 1 row to each batch of 4:

        >>> import numpy as np
        >>> import jaxcurate as jc
        >>> from jaxcurate.curation import Batches
        >>> labels = np.repeat([0, 1], [9, 3])
        >>> tree = jc.ClusterTree.from_labels([labels])
        >>> [np.bincount(labels[rows]).tolist() for rows in Batches(tree, 4, n_steps=3)]
        [[3, 1], [3, 1], [3, 1]]
        >>> batch = Batches(tree, 4, n_steps=3, equal="clusters")[2]
        >>> np.bincount(labels[batch]).tolist()
        [2, 2]
    """

    def __init__(
        self,
        tree: ClusterTree,
        batch_size: int,
        n_steps: int,
        *,
        rows: np.ndarray | None = None,
        equal: Equal = "rows",
        seed: int = 0,
    ) -> None:
        """Prepares the batches without drawing any.

        Args:
            tree: tree over ``n`` points. :func:`jaxcurate.curation.baselines.flat` makes a tree of
                one level.
            batch_size: number of rows of a batch. A batch has a row twice only if it spans two
                epochs, or is larger than an epoch.
            n_steps: number of batches.
            rows: distinct numbers ``[m]`` of the rows to draw from, such as a curated subset.
                All by default.
            equal: law of the batches, ``"rows"`` or ``"clusters"``.
            seed: seed of all random numbers.

        Raises:
            InputError: an argument cannot be used; the message names it.
        """
        check_whole("batch_size", batch_size, 1)
        check_whole("n_steps", n_steps, 0)
        check_choice("equal", equal, ("rows", "clusters"))
        priorities(0, seed)  # refuses a bad seed
        # Whole numbers of numpy would overflow, and JSON cannot store them.
        batch_size, n_steps, seed = int(batch_size), int(n_steps), int(seed)
        n = tree.n_points
        rows = np.arange(n) if rows is None else checked_rows(rows, n)
        if not len(rows):
            raise InputError("rows is empty: nothing to draw from")
        self.batch_size, self.n_steps = batch_size, n_steps
        branches = _branches(tree, rows)
        draw = _EqualRows if equal == "rows" else _EqualClusters
        self._draw = draw(branches, batch_size, seed)
        self._about = [batch_size, equal, seed]
        self._branches = branches

    def __len__(self) -> int:
        return self.n_steps

    def __getitem__(self, step: int) -> np.ndarray:  # type: ignore[override]
        if not -self.n_steps <= step < self.n_steps:
            raise IndexError(f"step {step} of {self.n_steps}")
        return self._draw(int(step) % self.n_steps)

    def __repr__(self) -> str:  # Grain's loaders distinguish sources by it
        return f"Batches({self.n_steps} x {self.batch_size}, {self.fingerprint})"

    @functools.cached_property
    def fingerprint(self) -> str:
        """Fingerprint of everything that the batches depend on."""
        arrays = [files.array_digest(array) for branch in self._branches for array in branch]
        return files.fingerprint(self._about + arrays)


class _Branches(NamedTuple):
    """Children with rows of all nodes of one level."""

    numbers: np.ndarray
    """int64 ``[m]``: id of each child, a cluster of the tree or a row."""
    parents: np.ndarray
    """int64 ``[m]``: node of each child, by its place among the numbers of the level above."""


def _branches(tree: ClusterTree, rows: np.ndarray) -> list[_Branches]:
    """Returns the branches of each level, from the children of the root down to the rows.

    Branches without a row are left out.
    """
    below, children = [], rows
    for level in tree.levels:
        nodes, parents = np.unique(level.labels[children], return_inverse=True)
        below.append(_Branches(children, parents))
        children = nodes.astype(np.int64)
    return [_Branches(children, np.zeros(len(children), np.int64)), *below[::-1]]


class _EqualRows:
    """Draws that see every row equally often: epochs along the tree, one after another."""

    def __init__(self, branches: list[_Branches], size: int, seed: int) -> None:
        self._branches, self._size, self._seed = branches, size, seed
        self._n = len(branches[-1].numbers)
        self._epochs: dict[int, np.ndarray] = {}

    def __call__(self, step: int) -> np.ndarray:
        place, end, parts = step * self._size, (step + 1) * self._size, []
        while place < end:
            epoch, begin = divmod(place, self._n)
            parts.append(self._epoch(epoch)[begin : begin + end - place])
            place += len(parts[-1])
        batch = np.concatenate(parts)
        return batch[np.argsort(priorities(len(batch), self._seed, _stream(1, step)))]

    def _epoch(self, number: int) -> np.ndarray:
        """Returns all rows in the order of an epoch, from the cache if it has them."""
        with _LOCK:  # loaders call from several threads
            if number not in self._epochs:
                newest = sorted(self._epochs)[-1:]  # a batch may span two epochs
                self._epochs = {e: self._epochs[e] for e in newest} | {
                    number: self._ordered(number)
                }
            return self._epochs[number]

    def _ordered(self, number: int) -> np.ndarray:
        """Returns all rows in the order of an epoch."""
        line = self._line(number)
        # The rows of the batch that began in the epoch before, whole batches, and the rows of the
        # batch that ends in the next epoch. Each of them is spread evenly over the line.
        n_first = min(-number * self._n % self._size, self._n)
        first, line = _evenly(line, n_first)
        last, line = _evenly(line, len(line) % self._size)
        n_batches = len(line) // self._size
        order = np.argsort(priorities(n_batches, self._seed, _stream(2, number)))
        between = [line[batch::n_batches] for batch in order]
        return np.concatenate([first, *between, last])

    def _line(self, epoch: int) -> np.ndarray:
        """Returns the rows branch by branch, with the children of every node in random order."""
        places = np.zeros(1, np.int64)
        for depth, (numbers, parents) in enumerate(self._branches):
            drawn = priorities(numbers, self._seed, _stream(3, epoch) + depth)
            order = np.lexsort((drawn, places[parents]))
            places = np.empty_like(order)
            places[order] = np.arange(len(order))
        return numbers[order]


def _evenly(line: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns ``n`` entries of a line at equal distances, and the other entries."""
    chosen = (2 * np.arange(n) + 1) * len(line) // (2 * max(n, 1))
    return line[chosen], np.delete(line, chosen)


class _EqualClusters:
    """Draws that see every cluster equally often: rounds over the children of every node.

    The number of a draw determines its path down the tree.
    """

    def __init__(self, branches: list[_Branches], size: int, seed: int) -> None:
        self._size, self._seed = size, seed
        self._rows = branches[-1].numbers
        # Children sorted by their node, and the place at which the children of each node begin.
        self._levels = [
            (np.argsort(parents, kind="stable"), np.append(0, np.cumsum(np.bincount(parents))))
            for _, parents in branches
        ]

    def __call__(self, step: int) -> np.ndarray:
        # Number of draws of a node before each draw. A round draws every child once, so that a
        # child was drawn as many times as rounds are complete.
        before = np.arange(step * self._size, (step + 1) * self._size)
        nodes = np.zeros(self._size, np.int64)
        for depth, (children, begins) in enumerate(self._levels):
            n_children = begins[nodes + 1] - begins[nodes]
            rounds, places = np.divmod(before, n_children)
            of_node = priorities(nodes, self._seed, _stream(4, depth))
            of_round = priorities(of_node + rounds.astype(np.uint64), self._seed, _stream(5, depth))
            nodes = children[begins[nodes] + permuted(places, n_children, of_round)]
            before = rounds
        return self._rows[nodes]


_LOCK = threading.Lock()


def _stream(kind: int, number: int) -> int:
    """Returns the random stream of a kind of draw and a number, with room for a tree's depth."""
    return (kind << 56) + (number << 8)
