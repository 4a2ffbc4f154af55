"""Checkpoints of long work, kept in a folder until the work is finished."""

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from jaxcurate.artifacts import files, folders
from jaxcurate.artifacts.local import exists
from jaxcurate.checks import InputError

KIND = "checkpoint"
"""Kind of the folder, in its card."""


class Checkpoint:
    """Arrays of a state, saved now and then, and loaded again by the same work.

    Args:
        path: folder of the state.
        made_from: everything that the result of the work depends on. A state that was made from
            anything else is not loaded.
        run: id of the run that writes. A folder of another run is not replaced.
        seconds: time between two states.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as work:
        ...     checkpoint = Checkpoint(f"{work}/state", {"seed": 0}, None, seconds=600)
        ...     checkpoint.save({"step": np.array(7)})
        ...     other = Checkpoint(f"{work}/state", {"seed": 1}, None, seconds=600)
        ...     checkpoint.load(), other.load()
        ({'step': array(7)}, None)
    """

    def __init__(
        self, path: epath.PathLike, made_from: Any, run: str | None, seconds: float
    ) -> None:
        self._path, self._run, self._seconds = epath.Path(path), run, seconds
        self._made_from = files.fingerprint(made_from)
        self._saved = time.monotonic()

    def due(self) -> bool:
        """Returns whether it is time for another state."""
        return time.monotonic() - self._saved >= self._seconds

    def save(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes a state, which replaces the last one.

        Raises:
            InputError: the path holds something that must not be replaced.
        """
        about = {"made_from": self._made_from, "run": self._run}
        with folders.new_folder(self._path, about, KIND) as folder:
            for name, array in arrays.items():
                folder.save_array(f"{name}.npy", np.asarray(array))
        self._saved = time.monotonic()

    def load(self) -> dict[str, np.ndarray] | None:
        """Returns the state of this work, or None if there is none.

        Raises:
            DamagedError: a file of the state is missing, truncated or altered.
        """
        card = folders.read_card(self._path)
        if card is None or card.get("made_from") != self._made_from:
            return None
        folders.check_files(self._path)
        names = [name.removesuffix(".npy") for name in card["files"]]
        return {name: files.load_array(self._path / f"{name}.npy") for name in names}

    def remove(self) -> None:
        """Removes the state, whatever it was made from, unless another run wrote it."""
        with contextlib.suppress(InputError):
            folders.check_replaceable(self._path, KIND, self._run)
            if exists(self._path):
                folders.discard(self._path)
