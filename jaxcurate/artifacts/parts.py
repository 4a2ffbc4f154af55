"""Finished parts of long work, kept beside its result until the work is whole."""

import contextlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from etils import epath

from jaxcurate.artifacts import files, folders
from jaxcurate.artifacts.local import is_folder, is_local, names_in
from jaxcurate.checks import InputError

KIND = "part"
"""Kind of the folder of a part, in its card."""
_OURS = re.compile(r"(\d{5}-)?\d{6}")
"""Pattern of the names of the folders of parts."""


class Parts:
    """Folders of the parts of some work, each whole or absent, in order.

    A killed run leaves the parts that it finished. The same work goes on after them, and other
    work does not see them.

    Args:
        path: folder of the parts.
        made_from: everything that the parts depend on.
        run: id of the run that writes. A folder of another run is not replaced.
        process: index of the process whose parts these are.
        n_processes: number of processes that share the work. Each writes parts of its own, which
            the same work of another number of processes does not see.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as work:
        ...     parts = Parts(f"{work}/parts", {"seed": 0}, None)
        ...     with parts.new({"rows": 5}) as folder:
        ...         folder.write_text("a.txt", "hello")
        ...     again = Parts(f"{work}/parts", {"seed": 0}, None)
        ...     other = Parts(f"{work}/parts", {"seed": 1}, None)
        ...     [card["rows"] for card in again.cards], other.cards
        ([5], [])
    """

    def __init__(
        self,
        path: epath.PathLike,
        made_from: Any,
        run: str | None,
        process: int = 0,
        n_processes: int = 1,
    ) -> None:
        self.path = epath.Path(path)
        self._run = run
        several = n_processes > 1
        self._prefix = f"{process:05d}-" if several else ""
        made_from = [made_from, n_processes] if several else made_from
        self.made_from = files.fingerprint(made_from)
        """Fingerprint of everything that the parts depend on."""
        self.cards: list[dict[str, Any]] = []
        """Card of each finished part, in order."""
        while (card := self._card(len(self.cards))) is not None:
            self.cards.append(card)

    def folder(self, index: int) -> epath.Path:
        """Returns the path of a part."""
        return self.path / f"{self._prefix}{index:06d}"

    @contextmanager
    def new(self, about: dict[str, Any]) -> Iterator[folders.NewFolder]:
        """Yields the folder of the next part, which appears whole or not at all.

        Args:
            about: entries of its card, which are read at the end of the block.
        """
        path = self.folder(len(self.cards))
        card: dict[str, Any] = {"made_from": self.made_from, "run": self._run}
        with folders.new_folder(path, card, KIND) as folder:
            yield folder
            card |= about
        self.cards.append(folders.check_sizes(path))

    def remove(self) -> None:
        """Removes all parts, whatever they were made from, unless another run wrote them.

        Of several processes, each removes only its own, and leaves the folder of the parts, in
        which another one may be about to write.
        """
        if not self._prefix:
            folders.clean(self.path)
        own = [name for name in names_in(self.path) if name.startswith(self._prefix)]
        for path in [self.path / name for name in own]:
            with contextlib.suppress(InputError):
                folders.check_replaceable(path, KIND, self._run)
                folders.discard(path)
        if self._prefix or not is_local(self.path):
            return
        with contextlib.suppress(OSError):  # another program may remove it, or write to it
            if self.path.is_dir() and not any(self.path.iterdir()):
                self.path.rmdir()

    def check_replaceable(self, run: str) -> None:
        """Refuses a folder that holds something that this run did not write.

        Raises:
            InputError: the message names it.
        """
        names = [name for name in names_in(self.path) if _OURS.fullmatch(name)]
        for path in [self.path / name for name in names]:
            if is_folder(path):
                folders.check_replaceable(path, KIND, run)

    def _card(self, index: int) -> dict[str, Any] | None:
        """Returns the card of a whole part of this work, or None."""
        try:
            card = folders.read_card(self.folder(index))
        except files.DamagedError:
            return None
        return card if card is not None and card.get("made_from") == self.made_from else None
