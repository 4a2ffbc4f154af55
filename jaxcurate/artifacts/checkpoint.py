"""State of long work that is not finished, kept in a folder until the work is."""

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from jaxcurate.artifacts import files, folders, temporary
from jaxcurate.checks import InputError

KIND = "checkpoint"
"""Kind of the folder, in its card."""


class Checkpoint:
    """Arrays of a state, saved now and then, and found again by the same work.

    Args:
        path: folder that the state is kept in.
        made_from: all that the outcome of the work depends on. A state that was made from
            anything else is not found.
        run: run that writes; a folder of another run is not replaced.
        seconds: time between two states.
    """

    def __init__(
        self, path: epath.PathLike, made_from: Any, run: str | None, seconds: float
    ) -> None:
        self._path, self._run, self._seconds = epath.Path(path), run, seconds
        self._made_from = files.fingerprint(made_from)
        self._saved = time.monotonic()

    def due(self) -> bool:
        """Tells whether it is time for another state."""
        return time.monotonic() - self._saved >= self._seconds

    def save(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes a state in the place of the one before.

        Raises:
            InputError: something that must not be replaced stands in the way.
        """
        about = {"made_from": self._made_from, "run": self._run}
        with folders.new_folder(self._path, about, KIND) as folder:
            for name, array in arrays.items():
                folder.save_array(f"{name}.npy", np.asarray(array))
        self._saved = time.monotonic()

    def load(self) -> dict[str, np.ndarray] | None:
        """Returns the state of this work; None where there is none.

        Raises:
            DamagedError: a file of it is missing, truncated or altered.
        """
        card = folders.read_card(self._path)
        if card is None or card.get("made_from") != self._made_from:
            return None
        folders.check_files(self._path)
        names = [name.removesuffix(".npy") for name in card["files"]]
        return {name: files.load_array(self._path / f"{name}.npy") for name in names}

    def remove(self) -> None:
        """Removes the state, whatever it was made from; what this run did not write stays."""
        with contextlib.suppress(InputError):
            folders.check_replaceable(self._path, KIND, self._run)
            if not self._path.exists():
                return
            with temporary.beside(self._path) as place:
                self._path.rename(place / self._path.name)
