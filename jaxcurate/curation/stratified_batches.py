"""Batches drawn across a tree's clusters, least seen first, as a function of seed and step."""

import functools
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxcurate.artifacts import files
from jaxcurate.artifacts.tree import ClusterTree
from jaxcurate.checks import InputError, check_whole, checked_rows
from jaxcurate.stateless_random import permuted, priorities

Equal = Literal["rows", "clusters"]


class Batches(Sequence[np.ndarray]):
    """The rows of every batch of a training, ``batches[step]``: int64 ``[batch_size]``.

    Nothing is remembered from batch to batch: any can be asked for at any time, in any process.
    It is a source of batches for Grain as it stands: ``grain.MapDataset.source(batches)``.

    Either of two laws holds, and with both a batch takes its part of every cluster, at every
    level at once.

    - ``equal="rows"``: every row is seen equally often. Epoch is laid after epoch. The rows of an
      epoch stand in a line along the tree, branches in random order, and a batch takes one row
      in so many: ``p * batch_size`` of a cluster with the share ``p`` of the rows, give or take
      less than 3 rows, and less than 1 where an epoch is a whole number of batches.
    - ``equal="clusters"``: every cluster is seen equally often, whatever its size. Each draw goes
      down from the top, at every node to one of the children that were drawn least often, in
      random order. Of ``k`` clusters at the top none is in a batch more than
      ``ceil(batch_size / k) + 1`` times, and the rows of one leaf are seen equally often.
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
        """Prepares batches; none is drawn yet.

        Args:
            tree: over ``n`` points; :func:`jaxcurate.curation.baselines.flat` keeps one level only.
            batch_size: rows of a batch. A row may stand twice in a batch that reaches over the
                end of its epoch, or is larger.
            n_steps: how many batches.
            rows: distinct numbers ``[m]`` of the rows to draw from, such as a curated subset;
                all by default.
            equal: the law, ``"rows"`` or ``"clusters"``.
            seed: of everything random.

        Raises:
            ValueError: naming the argument that cannot be used.
        """
        check_whole("batch_size", batch_size, 1)
        check_whole("n_steps", n_steps, 0)
        if equal not in _LAWS:
            raise InputError(f"equal={equal!r}; known: {', '.join(map(repr, _LAWS))}")
        priorities(0, seed)  # refuses a bad seed
        # Those of numpy would overflow, and JSON does not hold them.
        batch_size, n_steps, seed = int(batch_size), int(n_steps), int(seed)
        n = tree.n_points
        rows = np.arange(n) if rows is None else checked_rows(rows, n)
        if not len(rows):
            raise InputError("rows is empty: nothing to draw from")
        self.batch_size, self.n_steps = batch_size, n_steps
        branches = _branches(tree, rows)
        self._draw = _LAWS[equal](branches, batch_size, seed)
        self._about = [batch_size, equal, seed]
        self._branches = branches

    def __len__(self) -> int:
        return self.n_steps

    def __getitem__(self, step: int) -> np.ndarray:  # type: ignore[override]
        if not -self.n_steps <= step < self.n_steps:
            raise IndexError(f"step {step} of {self.n_steps}")
        return self._draw(int(step) % self.n_steps)

    def __repr__(self) -> str:  # Grain's loaders tell sources apart by it
        return f"Batches({self.n_steps} x {self.batch_size}, {self.fingerprint})"

    @functools.cached_property
    def fingerprint(self) -> str:
        """Changes whenever a batch may."""
        arrays = [files.array_digest(array) for branch in self._branches for array in branch]
        return files.fingerprint(self._about + arrays)


class Walk(Iterator[np.ndarray]):
    """Batch after batch, from a place that can be saved and come back to."""

    def __init__(self, batches: Batches) -> None:
        self._batches, self._step = batches, 0

    def __next__(self) -> np.ndarray:
        if self._step >= len(self._batches):
            raise StopIteration
        self._step += 1
        return self._batches[self._step - 1]

    def state(self) -> dict[str, Any]:
        """Returns what JSON can hold, and :meth:`restore` takes."""
        return {"step": self._step, "batches": self._batches.fingerprint}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where a walk over the same batches had come to.

        Raises:
            ValueError: the state is of other batches, or none at all.
        """
        step, of = state.get("step"), state.get("batches")
        if of != self._batches.fingerprint:
            raise InputError(f"the state is of batches {of}, not {self._batches.fingerprint}")
        if type(step) is not int or not 0 <= step <= len(self._batches):
            raise InputError(f"step={step!r} of the state is not within 0 to {len(self._batches)}")
        self._step = step


class OneByOne(Sequence[int]):
    """The rows of the batches one at a time, for loaders that batch by themselves.

    ``grain.MapDataset.source(OneByOne(batches)).map(load).batch(batches.batch_size)``
    """

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._batch = functools.lru_cache(maxsize=16)(batches.__getitem__)

    def __len__(self) -> int:
        return len(self._batches) * self._batches.batch_size

    def __getitem__(self, place: int) -> int:  # type: ignore[override]
        if not -len(self) <= place < len(self):
            raise IndexError(f"place {place} of {len(self)}")
        step, within = divmod(int(place) % len(self), self._batches.batch_size)
        return int(self._batch(step)[within])

    def __repr__(self) -> str:
        return f"OneByOne({self._batches!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return OneByOne, (self._batches,)


class _Branches(NamedTuple):
    """The children that hold a row, of all nodes of one level."""

    numbers: np.ndarray
    """int64 ``[m]``: which cluster of the tree, or which row, each child is."""
    parents: np.ndarray
    """int64 ``[m]``: the node of each, by its place among the numbers of the level above."""


def _branches(tree: ClusterTree, rows: np.ndarray) -> list[_Branches]:
    """Returns from the children of the root down to the rows; branches without a row are left
    out."""
    found, children = [], rows
    for level in tree.levels:
        nodes, parents = np.unique(level.labels[children], return_inverse=True)
        found.append(_Branches(children, parents))
        children = nodes.astype(np.int64)
    return [_Branches(children, np.zeros(len(children), np.int64)), *found[::-1]]


class _EqualRows:
    """Epochs along the tree, laid end to end."""

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
        """Returns all rows in the order in which an epoch sees them."""
        with _LOCK:  # loaders ask from many threads
            if number not in self._epochs:
                newest = sorted(self._epochs)[-1:]  # one is kept: a batch may lie in two
                self._epochs = {e: self._epochs[e] for e in newest} | {number: self._laid(number)}
            return self._epochs[number]

    def _laid(self, number: int) -> np.ndarray:
        line = self._line(number)
        # What the batch that began in the epoch before still takes, what the batch that ends in
        # the next one takes, and between them whole batches: each spread evenly over the line.
        n_first = min(-number * self._n % self._size, self._n)
        first, line = _evenly(line, n_first)
        last, line = _evenly(line, len(line) % self._size)
        n_batches = len(line) // self._size
        order = np.argsort(priorities(n_batches, self._seed, _stream(2, number)))
        between = [line[batch::n_batches] for batch in order]
        return np.concatenate([first, *between, last])

    def _line(self, epoch: int) -> np.ndarray:
        """Returns the rows, branch beside branch, the children of every node in random order."""
        places = np.zeros(1, np.int64)
        for depth, (numbers, parents) in enumerate(self._branches):
            drawn = priorities(numbers, self._seed, _stream(3, epoch) + depth)
            order = np.lexsort((drawn, places[parents]))
            places = np.empty_like(order)
            places[order] = np.arange(len(order))
        return numbers[order]


def _evenly(line: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns so many entries of a line at even distances, and the others."""
    chosen = (2 * np.arange(n) + 1) * len(line) // (2 * max(n, 1))
    return line[chosen], np.delete(line, chosen)


class _EqualClusters:
    """Draws that go round the children of every node; a draw's number tells its way down."""

    def __init__(self, branches: list[_Branches], size: int, seed: int) -> None:
        self._size, self._seed = size, seed
        self._rows = branches[-1].numbers
        # Children side by side by their node, and where each node's begin.
        self._levels = [
            (np.argsort(parents, kind="stable"), np.append(0, np.cumsum(np.bincount(parents))))
            for _, parents in branches
        ]

    def __call__(self, step: int) -> np.ndarray:
        # How often its node was drawn before each draw. A round draws every child once, so that
        # the number of the round is how often the child was.
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


_LAWS = {"rows": _EqualRows, "clusters": _EqualClusters}
_LOCK = threading.Lock()


def _stream(kind: int, number: int) -> int:
    """Returns a stream for each kind of draw and number, with room for the depth of a tree."""
    return (kind << 56) + (number << 8)
