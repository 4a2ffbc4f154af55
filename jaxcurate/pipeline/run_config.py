"""``config.json`` of a work directory: the settings of the last run, and what names the run."""

import contextlib
import json
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from etils import epath

from jaxcurate.artifacts import files, folders
from jaxcurate.artifacts.local import parsed
from jaxcurate.artifacts.lock import NAME as LOCK

NAME = "config.json"
_WRITER = {"written_by": "jaxcurate"}


class RunConfig:
    """The file of one work directory.

    Args:
        path: the work directory.
        outputs: the folders of its stages, whose cards also tell what names the run.
    """

    def __init__(self, path: epath.Path, outputs: Iterable[epath.Path]) -> None:
        self._folder, self._outputs = path, tuple(outputs)
        self._file = path / NAME

    def exists(self) -> bool:
        """Tells whether the file is there."""
        return self._file.exists()

    def run(self) -> str | None:
        """Returns what names the run of this work directory; None where it has no name yet.

        Where `grow` made the directory its card tells it; where the file is gone the cards of the
        stages do, if there are several and they agree. A single folder may have been brought here
        from another work directory, whose work it is.

        Raises:
            InputError: the file is another program's, or damaged.
        """
        files.check_text(self._file, _is_config)
        if self.exists():
            return self._read().get("run")
        if (run := _run_of(self._folder)) is not None:
            return run
        runs = [run for folder in self._outputs if (run := _run_of(folder)) is not None]
        return runs[0] if len(runs) > 1 and len(set(runs)) == 1 else None

    def write(self, run: str, settings: dict[str, Any]) -> None:
        """Writes settings, and what names the run."""
        text = json.dumps({**settings, "run": run, **_WRITER}, indent=2) + "\n"
        files.write_text(self._file, text, _is_config)

    @contextmanager
    def named(self, settings: dict[str, Any]) -> Iterator[str]:
        """Yields what names the run, which outlasts the process that gave the name.

        It stands in the file before anything carries it. Where the block raises and has written
        nothing, a file that was made for it is removed again: bad input leaves no trace.
        """
        run, is_new = self.run(), not self.exists()
        if run is None or is_new:
            run = run or uuid.uuid4().hex[:16]
            self.write(run, settings if is_new else self._read())
        try:
            yield run
        except BaseException:
            if is_new and {entry.name for entry in self._folder.iterdir()} <= {NAME, LOCK}:
                self._file.unlink(missing_ok=True)
            raise

    def _read(self) -> dict[str, Any]:
        return json.loads(self._file.read_text())


def _run_of(folder: epath.Path) -> str | None:
    """Returns what names the run that wrote a folder; None where its card does not tell."""
    with contextlib.suppress(files.DamagedError):
        return (folders.read_card(folder) or {}).get("run")
    return None


def _is_config(text: str) -> bool:
    """Tells whether a text is the settings of a run, older releases' included."""
    try:
        config = parsed(text)
    except ValueError:
        return False
    if not isinstance(config, dict):
        return False
    of_older = {"source", "cluster", "sample", "embed"}
    return _WRITER.items() <= config.items() or of_older <= set(config)
