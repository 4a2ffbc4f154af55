"""File ``config.json`` of a work directory: the settings of the last run, and its id."""

import contextlib
import json
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from etils import epath

from jaxcurate.artifacts import files, folders
from jaxcurate.artifacts.local import exists, names_in, parsed, read_text, remove_file
from jaxcurate.artifacts.lock import NAME as LOCK

NAME = "config.json"
"""Name of the file."""
_WRITER = {"written_by": "jaxcurate"}


class RunConfig:
    """File of the settings and the id of the run of a work directory.

    Args:
        path: the work directory.
        outputs: folders of its stages, whose cards have the id of the run too.
    """

    def __init__(self, path: epath.Path, outputs: Iterable[epath.Path]) -> None:
        self._folder, self._outputs = path, tuple(outputs)
        self._file = path / NAME

    def exists(self) -> bool:
        """Returns whether the file exists."""
        return exists(self._file)

    def run(self) -> str | None:
        """Returns the id of the run of this work directory, or None if it has no id yet.

        If `grow` made the directory, the id is in its card. If the file is lost, the id is in the
        cards of the stages, provided that there are several and they agree: a single folder may
        have been copied from another work directory.

        Raises:
            InputError: another program wrote the file, or it is damaged.
        """
        files.check_text(self._file, _is_config)
        if self.exists():
            return self._read().get("run")
        if (run := _run_of(self._folder)) is not None:
            return run
        runs = [run for folder in self._outputs if (run := _run_of(folder)) is not None]
        return runs[0] if len(runs) > 1 and len(set(runs)) == 1 else None

    def write(self, run: str, settings: dict[str, Any]) -> None:
        """Writes the settings and the id of the run."""
        text = json.dumps({**settings, "run": run, **_WRITER}, indent=2) + "\n"
        files.write_text(self._file, text, _is_config)

    @contextmanager
    def named(self, settings: dict[str, Any]) -> Iterator[str]:
        """Yields the id of the run, which later processes of the run will find.

        The id is in the file before anything else has it. If the block raises and has written
        nothing, a file that was made for it is removed, so that bad input leaves no trace.
        """
        run, is_new = self.run(), not self.exists()
        if run is None or is_new:
            run = run or uuid.uuid4().hex[:16]
            self.write(run, settings if is_new else self._read())
        try:
            yield run
        except BaseException:
            if is_new and set(names_in(self._folder)) <= {NAME, LOCK}:
                remove_file(self._file)
            raise

    def _read(self) -> dict[str, Any]:
        return json.loads(read_text(self._file))


def stored_settings(path: epath.PathLike) -> dict[str, Any] | None:
    """Returns the settings of the last run over a work directory, or None if it has none.

    Args:
        path: the work directory. ``~`` is the home directory.

    Raises:
        InputError: another program wrote the file, or it is damaged.

    Examples:
        >>> stored_settings("/nowhere") is None
        True
    """
    file = epath.Path(path).expanduser() / NAME
    files.check_text(file, _is_config)
    if not exists(file):
        return None
    settings = json.loads(read_text(file))
    return {name: settings[name] for name in settings if name not in ("run", *_WRITER)}


def _run_of(folder: epath.Path) -> str | None:
    """Returns the id of the run that wrote a folder, or None if its card has no id."""
    with contextlib.suppress(files.DamagedError):
        return (folders.read_card(folder) or {}).get("run")
    return None


def _is_config(text: str) -> bool:
    """Returns whether a text is the settings of a run, possibly of an older release."""
    try:
        config = parsed(text)
    except ValueError:
        return False
    if not isinstance(config, dict):
        return False
    older = {"source", "cluster", "sample", "embed"}
    return _WRITER.items() <= config.items() or older <= set(config)
