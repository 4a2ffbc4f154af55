"""Work directories from which trials begin, and what each has to become in the end."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from faults.commands import FOLDERS, OTHER, STAGES, Outcome, Place, content, copied

How = Literal["first", "again"]
"""Whether the output of a stage is not there yet, or is there from other settings."""


class Undisturbed(NamedTuple):
    """A stage's run without a fault."""

    content: dict[str, Any]
    """Of the work directory in the end."""
    operations: list[str]


class Stands:
    """Work directories in which a stage, or a whole run, comes next.

    Args:
        place: where commands are run.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.finished = place.path / "finished"
        self.other = place.path / "other"
        self._n = 0

    def make(self) -> "Stands":
        """Runs everything once, and once more with other settings.

        Raises:
            RuntimeError: this does not work.
        """
        _succeeded(self.place.run("run", self.finished))
        shutil.copytree(self.finished, self.other)
        _succeeded(self.place.run("run", self.other, *OTHER))
        return self

    def prepare(self, stage: str, how: How, to: Path) -> None:
        """Makes a work directory in which a stage comes next; ``"run"`` is all of them."""
        later = STAGES if stage == "run" else STAGES[STAGES.index(stage) :]
        if stage == "run" and how == "first":
            return
        shutil.copytree(self.finished, to)
        for name in later:
            path = to / FOLDERS[name]
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            if how == "again":
                of_other = self.other / FOLDERS[name]
                copy = shutil.copytree if of_other.is_dir() else shutil.copyfile
                copy(of_other, path)
            elif path.parent != to and not any(path.parent.iterdir()):
                path.parent.rmdir()

    @functools.cache  # noqa: B019
    def undisturbed(self, stage: str, how: How, flags: tuple[str, ...] = ()) -> Undisturbed:
        """Runs a stage without a fault, and counts its operations.

        Raises:
            RuntimeError: this does not work.
        """
        with copied(Path("nowhere"), self.fresh_path()) as work:
            self.prepare(stage, how, work)
            outcome = _succeeded(self.place.run(stage, work, *flags))
            return Undisturbed(content(work), outcome.operations)

    def fresh_path(self) -> Path:
        """Returns the path of a work directory that is not there yet, also in forked processes."""
        import os

        self._n += 1
        return self.place.path / f"work-{os.getpid()}-{self._n}"

    def on(self, stage: str, how: How, trial: Callable[[Path], str]) -> str:
        """Returns what a trial says of a work directory in which a stage comes next."""
        with copied(Path("nowhere"), self.fresh_path()) as work:
            self.prepare(stage, how, work)
            return trial(work)


def _succeeded(outcome: Outcome) -> Outcome:
    if wrong := outcome.succeeds():
        raise RuntimeError(wrong)
    return outcome
