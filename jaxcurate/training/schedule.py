"""Batches of a training by step, without a table of all of them, and the place among them."""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxcurate.artifacts import files
from jaxcurate.checks import InputError
from jaxcurate.training.runs import Run

_LOCK = threading.Lock()
"""Lock of the permutations that are kept. It is no attribute, because objects with locks cannot be
sent to other processes."""


class Epochs(Sequence[np.ndarray]):
    """Sequence of the batches of :func:`jaxcurate.training.runs.schedule`, drawn when asked for.

    Two permutations of the rows are kept, instead of all batches: a long training has billions of
    rows in its batches.

    Args:
        rows: int ``[m]``.
        seed: seed of the permutations.
        n_steps: number of batches.
        batch_size: number of rows of a batch.

    Examples:
        >>> from jaxcurate.training.runs import schedule
        >>> epochs = Epochs(np.arange(6), seed=0, n_steps=3, batch_size=4)
        >>> [batch.tolist() for batch in epochs] == schedule(np.arange(6), 0, 3, 4).tolist()
        True
    """

    def __init__(self, rows: np.ndarray, seed: int, n_steps: int, batch_size: int) -> None:
        self._rows, self._n_steps, self._batch_size = np.asarray(rows), n_steps, batch_size
        # State of the generator before each epoch: it has to draw one epoch after another.
        self._states = [np.random.default_rng(seed).bit_generator.state]
        self._kept: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self._n_steps

    def __getitem__(self, step: int) -> np.ndarray:  # type: ignore[override]
        """Returns the rows of a batch, int32 ``[batch_size]``."""
        if not 0 <= step < self._n_steps:
            raise IndexError(f"step {step} of {self._n_steps}")
        place, end, parts = step * self._batch_size, (step + 1) * self._batch_size, []
        while place < end:
            epoch, begin = divmod(place, len(self._rows))
            parts.append(self._permutation(epoch)[begin : begin + end - place])
            place += len(parts[-1])
        return np.concatenate(parts)

    def _permutation(self, epoch: int) -> np.ndarray:
        with _LOCK:  # loaders call from several threads
            if epoch not in self._kept:
                rng = np.random.default_rng()
                rng.bit_generator.state = self._states[min(epoch, len(self._states) - 1)]
                for drawn in range(min(epoch, len(self._states) - 1), epoch + 1):
                    permutation = rng.permutation(self._rows)
                    if drawn + 1 == len(self._states):
                        self._states.append(rng.bit_generator.state)
                # A batch may span two epochs.
                self._kept = {e: kept for e, kept in self._kept.items() if e == epoch - 1}
                self._kept[epoch] = permutation.astype(np.int32)
            return self._kept[epoch]


class Schedule:
    """Batches of a run, the part that this process reads of each, and the place among them.

    Args:
        run: rows and seed.
        n_steps: number of batches.
        batch_size: number of rows of a batch, over all processes.
        n_parts: number of processes that read a part of each batch.
        part: number of this process, from 0.

    Raises:
        InputError: the batches cannot be divided, or the part is not one of them.

    Examples:
        >>> half = Schedule(Run(np.arange(8), seed=0), n_steps=2, batch_size=4, n_parts=2, part=1)
        >>> half.rows_of(0).shape
        (2,)
    """

    def __init__(
        self, run: Run, n_steps: int, batch_size: int, *, n_parts: int = 1, part: int = 0
    ) -> None:
        if n_parts < 1 or not 0 <= part < n_parts:
            raise InputError(f"part={part} must be within [0, n_parts={n_parts})")
        if batch_size % n_parts:
            raise InputError(
                f"batch_size={batch_size} must be a multiple of the {n_parts} processes"
            )
        self.n_steps, self.batch_size, self.seed = n_steps, batch_size, run.seed
        self.n_local = batch_size // n_parts
        """Number of rows of a batch that this process reads."""
        self.first = part * self.n_local
        """Position in the batch of the first row that this process reads."""
        self.batches: Sequence[np.ndarray] = (
            Epochs(run.rows, run.seed, n_steps, batch_size) if run.batches is None else run.batches
        )
        """Rows of every batch, integers ``[batch_size]`` each."""
        self._about = _fingerprint(run, n_steps, batch_size)
        self._step = 0

    def rows_of(self, step: int) -> np.ndarray:
        """Returns the rows of the part of a batch that this process reads, ``[n_local]``."""
        return np.asarray(self.batches[step])[self.first : self.first + self.n_local]

    def steps(self, first_step: int) -> Iterator[int]:
        """Yields the numbers of the steps, and counts them.

        Raises:
            InputError: the first step is none of the training.
        """
        if not 0 <= first_step <= self.n_steps:
            raise InputError(f"first_step={first_step} must be within [0, {self.n_steps}]")
        self._step = first_step
        for step in range(first_step, self.n_steps):
            self._step = step + 1
            yield step

    def state(self) -> dict[str, Any]:
        """Returns the number of the next step, and a fingerprint of the batches."""
        return {"step": self._step, "batches": self._about}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to the step of a state.

        Raises:
            InputError: the state is that of other batches, or of a longer training.
        """
        step = state.get("step")
        if not isinstance(step, int) or not 0 <= step <= self.n_steps:
            raise InputError(f"the checkpoint's input is at step {step!r} of {self.n_steps} steps")
        if state.get("batches") != self._about:
            raise InputError(
                "the checkpoint's batches are others: rows, seed, batch_size or the sampler have "
                "changed since"
            )
        self._step = step


def _fingerprint(run: Run, n_steps: int, batch_size: int) -> str:
    """Returns a fingerprint of all that the batches depend on.

    The number of processes is no part of it, and neither is the number of steps for batches that do
    not depend on it.
    """
    about = [run.seed, batch_size, files.array_digest(np.asarray(run.rows, np.int64))]
    if run.batches is not None:
        known = getattr(run.batches, "fingerprint", None)
        if known is None:
            table = np.stack([run.batches[step] for step in range(n_steps)] or [run.rows[:0]])
            known = files.array_digest(table.astype(np.int64))
        about.append(known)
    return files.fingerprint(about)
