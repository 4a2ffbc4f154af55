"""Input of a training, step by step: pictures that stay on the devices, or token ids.

``grain_input.py`` has the input of pictures that are decoded and cropped on the host.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jaxcurate.checks import InputError
from jaxcurate.training.augment import Augmentation, crops_of
from jaxcurate.training.objectives.base import Batch, Crop
from jaxcurate.training.runs import Run, check_runs
from jaxcurate.training.schedule import Schedule


class Fed(NamedTuple):
    """Arrays that the host gives to the devices for a step.

    With several processes they are the part of this process, whose place along the first axis is
    that of the process among all processes.
    """

    arrays: tuple[np.ndarray, ...]
    """Arrays ``[b, ...]``, which :meth:`Input.views` turns into views."""
    ids: np.ndarray
    """Numbers of the items of the batch, int32 ``[b]``, equal for copies of the same item."""


class Input(Protocol):
    """Protocol of the input of a training.

    The batch of a step depends on the seed and the number of the step only, so that a training that
    is interrupted goes on with the same batches.
    """

    constants: Any
    """Arrays to place on all devices once, a pytree."""

    def fed(self, first_step: int) -> Iterator[Fed]:
        """Yields what the host gives for each step, from a step to the last one.

        Args:
            first_step: number of steps made before.
        """
        ...

    def views(
        self,
        constants: Any,
        arrays: tuple[jax.Array, ...],
        ids: jax.Array,
        key: jax.Array,
        crops: Sequence[Crop],
        augmentation: Augmentation,
    ) -> Batch:
        """Returns the views of a batch, on the device; a pure function that jax traces.

        Args:
            constants: :attr:`constants`, on the devices.
            arrays: arrays of all processes, joined along the first axis.
            ids: ids of all processes, joined.
            key: PRNG key of the step.
            crops: groups of crops of the objective; unused for texts.
            augmentation: strengths of the random views; unused for texts.
        """
        ...

    def state(self) -> dict[str, Any]:
        """Returns the place in the input after the batches given so far, which JSON can store."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to the place that :meth:`state` returned.

        Raises:
            InputError: the state is that of other batches.
        """
        ...

    def close(self) -> None:
        """Ends threads and processes."""
        ...


class _ScheduledInput:
    """Input of items in memory, whose place is a step of its schedule."""

    def __init__(
        self, n_items: int, run: Run, n_steps: int, batch_size: int, n_parts: int, part: int
    ) -> None:
        check_runs([run], n_items, n_steps, batch_size)
        self._schedule = Schedule(run, n_steps, batch_size, n_parts=n_parts, part=part)

    def state(self) -> dict[str, Any]:
        """Returns the number of the next step, and a fingerprint of the batches before it."""
        return self._schedule.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to the step of a state."""
        self._schedule.restore(state)

    def close(self) -> None:
        """Does nothing: there are no threads."""


class ResidentInput(_ScheduledInput):
    """Input of small pictures, all of which stay on the devices.

    Its batches and views are those of :func:`jaxcurate.training.pretrain`.

    Args:
        images: uint8 ``[n, s, s, 3]``, an array or a memmap, of which only the rows of the run are
            read.
        run: rows and seed.
        n_steps: number of batches.
        batch_size: number of pictures of a batch, over all processes.
        n_parts: number of processes that give a part of each batch.
        part: number of this process, from 0.

    Raises:
        InputError: images or rows do not fit.

    Examples:
        >>> images = np.zeros((20, 8, 8, 3), np.uint8)
        >>> resident = ResidentInput(images, Run(np.arange(20), seed=0), n_steps=2, batch_size=4)
        >>> [fed.ids.shape for fed in resident.fed(0)]
        [(4,), (4,)]
    """

    def __init__(
        self,
        images: np.ndarray,
        run: Run,
        n_steps: int,
        batch_size: int,
        *,
        n_parts: int = 1,
        part: int = 0,
    ) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise InputError(
                f"images are {images.dtype} of shape {images.shape}; wanted is uint8 [n, s, s, 3]"
            )
        super().__init__(len(images), run, n_steps, batch_size, n_parts, part)
        self._used = np.unique(run.rows)
        self.constants = images[self._used]

    def fed(self, first_step: int) -> Iterator[Fed]:
        """Yields the positions of the pictures of each step among the pictures of the run."""
        for step in self._schedule.steps(first_step):
            rows = self._schedule.rows_of(step)
            yield Fed((), np.searchsorted(self._used, rows).astype(np.int32))

    def views(
        self,
        constants: jax.Array,
        arrays: tuple[jax.Array, ...],
        ids: jax.Array,
        key: jax.Array,
        crops: Sequence[Crop],
        augmentation: Augmentation,
    ) -> Batch:
        """Returns random views of the pictures at the positions."""
        del arrays
        return Batch(crops_of(key, constants[ids], crops, augmentation), ids)


class TokenInput(_ScheduledInput):
    """Input of texts as token ids.

    Args:
        tokens: int32 ``[n, length]``, an array or a memmap.
        run: rows and seed.
        n_steps: number of batches.
        batch_size: number of texts of a batch, over all processes.
        n_parts: number of processes that read a part of each batch.
        part: number of this process, from 0.

    Raises:
        InputError: tokens or rows do not fit.

    Examples:
        >>> tokens = np.arange(60, dtype=np.int32).reshape(20, 3)
        >>> texts = TokenInput(tokens, Run(np.arange(20), seed=0), n_steps=2, batch_size=4)
        >>> [fed.arrays[0].shape for fed in texts.fed(0)]
        [(4, 3), (4, 3)]
    """

    def __init__(
        self,
        tokens: np.ndarray,
        run: Run,
        n_steps: int,
        batch_size: int,
        *,
        n_parts: int = 1,
        part: int = 0,
    ) -> None:
        if tokens.dtype != np.int32 or tokens.ndim != 2:
            raise InputError(
                f"tokens are {tokens.dtype} of shape {tokens.shape}; wanted is int32 [n, length]"
            )
        super().__init__(len(tokens), run, n_steps, batch_size, n_parts, part)
        self._tokens = tokens
        self.constants = ()

    def fed(self, first_step: int) -> Iterator[Fed]:
        """Yields the token ids of each step, int32 ``[b, length]``, and the rows as ids."""
        for step in self._schedule.steps(first_step):
            rows = self._schedule.rows_of(step)
            yield Fed((np.asarray(self._tokens[rows]),), rows.astype(np.int32))

    def views(
        self,
        constants: Any,
        arrays: tuple[jax.Array, ...],
        ids: jax.Array,
        key: jax.Array,
        crops: Sequence[Crop],
        augmentation: Augmentation,
    ) -> Batch:
        """Returns the token ids as they are."""
        del constants, key, crops, augmentation
        return Batch(arrays, ids)
