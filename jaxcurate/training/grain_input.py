"""Input of pictures of any size: Grain decodes and crops them on the host, in worker processes."""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxcurate.checks import InputError, check_whole
from jaxcurate.sources import Source, UnreadableItem, UnusableContent
from jaxcurate.training.augment import Augmentation, recolored_crops
from jaxcurate.training.host_crops import draws, random_crops
from jaxcurate.training.input import Fed
from jaxcurate.training.objectives.base import Batch, Crop
from jaxcurate.training.runs import Run, check_runs
from jaxcurate.training.schedule import Schedule

_PIECE = 32
"""Largest number of pictures that a thread or a worker makes at a time: few enough to share the
work of a batch, enough to hide the cost of passing them on."""
_BUFFERED = 2
"""Number of pieces that a worker makes ahead."""
_SHARED_MEMORY = "/dev/shm"
"""Folder of the memory through which workers pass pictures on."""


@dataclass(frozen=True, repr=False)
class _Pieces:
    """Crops of the pictures of all batches, piece by piece: a data source of Grain.

    A piece is a pure function of its number. Grain only has to keep the order of the pieces, and
    never joins them: workers that make batches themselves lose the rest of each worker's pictures
    (https://github.com/google/grain/issues/1129).
    """

    source: Source
    schedule: Schedule
    crops: tuple[Crop, ...]
    scale: tuple[float, float]
    ratio: float
    n_pieces: int
    """Number of pieces of a batch."""
    first: int
    """Number of the first piece."""

    def __len__(self) -> int:
        return self.schedule.n_steps * self.n_pieces - self.first

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...] | str:
        """Returns the crops of each group, uint8 ``[b, n, size, size, 3]``.

        An error is returned in words, because Grain adds lines to those that are raised.
        """
        try:
            return self._piece(int(number))
        except InputError as error:
            return str(error)

    def _piece(self, number: int) -> tuple[np.ndarray, ...]:
        step, piece = divmod(number + self.first, self.n_pieces)
        places = np.array_split(np.arange(self.schedule.n_local), self.n_pieces)[piece]
        rows = self.schedule.rows_of(step)[places]
        n_crops = sum(crop.n for crop in self.crops)
        drawn = draws(self.schedule.seed, step, self.schedule.first + places, n_crops)
        out = tuple(
            np.empty((len(rows), crop.n, crop.size, crop.size, 3), np.uint8) for crop in self.crops
        )
        for i, row in enumerate(rows):
            for group, made in zip(out, self._crops_of_row(int(row), drawn[i]), strict=True):
                group[i] = made
        return out

    def _crops_of_row(self, row: int, drawn: np.ndarray) -> list[np.ndarray]:
        try:
            item = self.source.read(row)
        except UnreadableItem as error:
            raise InputError(_refusal(self.source, error.id, error.reason)) from error
        if not isinstance(item.content, bytes):
            raise InputError(_refusal(self.source, item.id, "is no encoded picture"))
        try:
            return random_crops(item.content, drawn, self.crops, self.scale, self.ratio)
        except UnusableContent as error:
            raise InputError(_refusal(self.source, item.id, str(error))) from error

    def __repr__(self) -> str:
        return f"Pieces({self.source.name}, {len(self)})"


class CropInput:
    """Input of pictures of any size, decoded and cropped on the host.

    The host makes random crops, and the devices flip them and change their colors. The rows of a
    step are those of :class:`jaxcurate.training.input.ResidentInput`, and the crops depend on the
    seed, the step and the position in the batch, so that runs with the same seed are paired. They
    do not depend on the number of workers or of processes. Pictures that are smaller than a crop
    are enlarged. Nothing is cached: every picture is read and decoded anew each time.

    Workers are new processes, which import the main program: a script needs its
    ``if __name__ == "__main__":``.

    Args:
        source: source of pictures.
        run: rows of the source, and the seed.
        crops: groups of crops of the objective.
        augmentation: strengths of the random views.
        n_steps: number of batches.
        batch_size: number of pictures of a batch, over all processes.
        num_workers: number of worker processes; 0 for threads in this process, one for each core.
        n_parts: number of processes of the run, each of which reads a part of each batch.
        part: number of this process, from 0.

    Raises:
        InputError: the source, the rows or the crops do not fit, or Grain is missing.

    Examples:
        >>> import tempfile
        >>> from jaxcurate.sources import open_source
        >>> from jaxcurate.sources.pictures import encode_png
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for i in range(4):
        ...         with open(f"{folder}/{i}.png", "wb") as file:
        ...             _ = file.write(encode_png(np.zeros((20, 30, 3), np.uint8)))
        ...     data = CropInput(
        ...         open_source(f"folder:{folder}"), Run(np.arange(4), seed=0), [Crop(2, 16)],
        ...         Augmentation(), n_steps=1, batch_size=4,
        ...     )
        ...     [fed.arrays[0].shape for fed in data.fed(0)]
        [(4, 2, 16, 16, 3)]
    """

    def __init__(
        self,
        source: Source,
        run: Run,
        crops: Sequence[Crop],
        augmentation: Augmentation,
        n_steps: int,
        batch_size: int,
        *,
        num_workers: int = 0,
        n_parts: int = 1,
        part: int = 0,
    ) -> None:
        check_whole("num_workers", num_workers, 0)
        if source.kind != "picture":
            raise InputError(f"{source.name} has items of kind {source.kind!r}, not pictures")
        if not crops:
            raise InputError("crops is empty: nothing to make of the pictures")
        check_runs([run], len(source), n_steps, batch_size)
        _grain()
        self._schedule = Schedule(run, n_steps, batch_size, n_parts=n_parts, part=part)
        self._source, self._crops, self._num_workers = source, tuple(crops), num_workers
        self._augmentation = augmentation
        self._open: list[Any] = []
        self.constants = ()

    def fed(self, first_step: int) -> Iterator[Fed]:
        """Yields the crops of each step, uint8 ``[b, n, size, size, 3]`` for each group.

        Raises:
            InputError: a picture cannot be read or decoded; the message names its id.
        """
        n_pieces = -(-self._schedule.n_local // _PIECE)
        iterator = self._iterator(n_pieces, first_step * n_pieces)
        self._open.append(iterator)
        try:
            for step in self._schedule.steps(first_step):
                pieces = [_whole(next(iterator)) for _ in range(n_pieces)]
                # A copy, because the memory that workers share is freed with its array.
                arrays = tuple(np.concatenate(group) for group in zip(*pieces, strict=True))
                del pieces
                yield Fed(arrays, self._schedule.rows_of(step).astype(np.int32))
        finally:
            self._open.remove(iterator)
            iterator.close()

    def views(
        self,
        constants: Any,
        arrays: tuple[jax.Array, ...],
        ids: jax.Array,
        key: jax.Array,
        crops: Sequence[Crop],
        augmentation: Augmentation,
    ) -> Batch:
        """Returns the crops, mirrored and with other colors at random."""
        del constants
        if tuple(crops) != self._crops:
            raise InputError(f"crops={tuple(crops)} are not those that are made: {self._crops}")
        # The first crops of all pictures, then the second ones. Pictures come first in the arrays,
        # so that those of several processes can be joined.
        images = [array.swapaxes(0, 1).reshape(-1, *array.shape[2:]) for array in arrays]
        return Batch(recolored_crops(key, images, crops, augmentation), ids)

    def state(self) -> dict[str, Any]:
        """Returns the number of the next step, and a fingerprint of the batches."""
        return {**self._schedule.state(), "source": self._source.fingerprint}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to the step of a state.

        Raises:
            InputError: the state is that of other batches or other pictures.
        """
        if state.get("source") != self._source.fingerprint:
            raise InputError(f"the checkpoint's pictures are not those of {self._source.name}")
        self._schedule.restore(state)

    def close(self) -> None:
        """Ends threads and worker processes."""
        for iterator in list(self._open):
            iterator.close()

    def _iterator(self, n_pieces: int, first: int) -> Any:
        """Returns Grain's iterator over pieces."""
        grain = _grain()
        pieces = _Pieces(
            self._source,
            self._schedule,
            self._crops,
            self._augmentation.crop_scale,
            self._augmentation.crop_ratio,
            n_pieces,
            first,
        )
        workers = min(self._num_workers, len(pieces))
        n_threads = 1 if workers else os.cpu_count() or 1
        reading = grain.ReadOptions(num_threads=n_threads, prefetch_buffer_size=2 * n_threads)
        dataset = grain.MapDataset.source(pieces).to_iter_dataset(reading)
        if workers:
            self._check_shared_memory(workers, n_pieces)
            _mark_flags()
            options = grain.MultiprocessingOptions(workers, per_worker_buffer_size=_BUFFERED)
            dataset = dataset.mp_prefetch(options)
        return iter(dataset)

    def _check_shared_memory(self, workers: int, n_pieces: int) -> None:
        """Refuses workers that would be killed because their memory is full, as in a container."""
        if not os.path.isdir(_SHARED_MEMORY):
            return
        of_picture = sum(crop.n * crop.size**2 * 3 for crop in self._crops)
        # Pieces made ahead in both processes, one being made, and those of a batch being joined.
        n_held = workers * (2 * _BUFFERED + 1) + n_pieces
        wanted = n_held * -(-self._schedule.n_local // n_pieces) * of_picture
        free = shutil.disk_usage(_SHARED_MEMORY).free
        if free < wanted:
            raise InputError(
                f"num_workers={workers} needs {wanted / 2**20:.0f} MiB of {_SHARED_MEMORY}, which "
                f"has {free / 2**20:.0f} free: enlarge it, as by docker run --shm-size, or use "
                "num_workers=0"
            )


def _whole(piece: tuple[np.ndarray, ...] | str) -> tuple[np.ndarray, ...]:
    if isinstance(piece, str):
        raise InputError(piece)
    return piece


def _refusal(source: Source, id: str, reason: str) -> str:
    return f"item {id!r} of {source.name} cannot be trained on: {reason}"


def _mark_flags() -> None:
    """Lets Grain pass its flags on to workers where the program does not parse flags of absl."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _grain() -> Any:
    """Returns the package Grain, which is optional.

    Raises:
        InputError: it is missing.
    """
    try:
        import grain
    except ImportError as error:
        raise InputError(
            "pictures of any size need the package grain: pip install 'jaxcurate[grain]'"
        ) from error
    return grain
