"""Folders with a card, which appear whole or not at all and never replace foreign files."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from etils import epath

from jaxcurate.artifacts import exchange, temporary
from jaxcurate.artifacts.files import (
    MOVE_AWAY,
    DamagedError,
    fingerprint,
    is_local,
    sha256,
    sync,
)
from jaxcurate.artifacts.local import parsed
from jaxcurate.artifacts.lock import check_held
from jaxcurate.artifacts.new_folder import (
    CARD,
    CHECKSUM,
    WRITER,
    NewFolder,
    sizes_in,
)
from jaxcurate.artifacts.verified import check_file
from jaxcurate.checks import InputError

NO_RUN = ""
"""Id of a run that has written nothing yet, so that no folder belongs to it."""


@contextmanager
def new_folder(path: epath.PathLike, about: Mapping[str, Any], kind: str) -> Iterator[NewFolder]:
    """Yields a temporary folder and renames it to ``path`` on success.

    At the end of the block, ``card.json`` is written with ``about`` and the size and SHA-256 of
    every file. If the block raises, the process dies or the power fails, ``path`` stays as it was.

    Args:
        path: path of the folder.
        about: entries of its card, such as everything that the folder was made from. They are
            read at the end of the block, which may add entries.
        kind: kind of its content, such as ``"pool"``. Only a folder of this kind is replaced.

    Yields:
        An empty folder.

    Raises:
        InputError: ``path`` must not be replaced (:func:`check_replaceable`), or cannot be
            written.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as work:
        ...     with new_folder(f"{work}/notes", {"seed": 7}, "notes") as folder:
        ...         folder.write_text("a.txt", "hello")
        ...     card = check_files(f"{work}/notes")
        >>> card["kind"], card["seed"], list(card["files"])
        ('notes', 7, ['a.txt'])
    """
    path = epath.Path(path).expanduser()
    run = about.get("run")
    check_replaceable(path, kind, run)
    made = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.beside(path) as place:
            folder = NewFolder(place / path.name, kind)
            folder.path.mkdir()
            yield folder
            folder.finish(about)
            sync(
                [folder.path / name for name, it in folder.files.items() if "link" not in it],
                _folders_in(folder.path, folder.files),
            )
            check_replaceable(path, kind, run)
            check_held(path)
            if path.exists():
                exchange.swap(folder.path, path, place / temporary.OLD)
                _check_after(folder.path, path, place, kind, run)
            else:
                folder.path.rename(path)
            sync([], [path.parent, *(parent.parent for parent in made)])
    except BaseException:
        for parent in made:
            if parent.exists() and not any(parent.iterdir()):
                parent.rmdir()
        raise


def _check_after(
    fresh: epath.Path, path: epath.Path, place: epath.Path, kind: str, run: str | None
) -> None:
    """Moves the replaced folder back if it was changed at the last moment."""
    old = fresh if fresh.exists() else place / temporary.OLD
    try:
        check_replaceable(old, kind, run)
    except InputError:
        exchange.swap(old, path, place / "again")
        raise


def check_replaceable(path: epath.PathLike, kind: str, run: str | None = None) -> None:
    """Refuses a path that holds something that jaxcurate did not write.

    A folder may be replaced if it is empty. It may also be replaced if its card says that
    jaxcurate wrote it with the same kind and in the same run, and if it has only files that the
    card lists. Files may be missing or damaged.

    Args:
        path: path of a folder.
        kind: kind of the folder that is to be written.
        run: id of the run that is to write. None for any run, :data:`NO_RUN` for a run without an
            id so far.

    Raises:
        InputError: the path must not be replaced; the message names the reason.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as work:
        ...     with new_folder(f"{work}/notes", {}, "notes"):
        ...         pass
        ...     check_replaceable(f"{work}/notes", "notes")
    """
    path = epath.Path(path)
    if is_local(path) and os.path.islink(path):
        raise InputError(f"{path} is a link, which is never replaced: {MOVE_AWAY}")
    if not path.exists():
        _check_parents(path)
        return
    if not path.is_dir():
        raise InputError(f"{path} is a file in the place of a folder: {MOVE_AWAY}")
    there = sizes_in(path)
    if not there:
        return
    if CARD not in there:
        raise InputError(
            f"{path} was not written by jaxcurate (it has no {CARD}) and is left as it is: "
            f"{MOVE_AWAY}"
        )
    try:
        card = _parsed_card(path)
    except DamagedError as error:
        raise InputError(
            f"{error}, so that nobody can tell whether jaxcurate wrote the folder: {MOVE_AWAY}"
        ) from error
    wrote = "written by jaxcurate"
    if card.get("written_by", WRITER) != WRITER or not ({"checksum", "stage"} & set(card)):
        raise InputError(f"{path} was not {wrote}, by its {CARD}: {MOVE_AWAY}")
    if card.get("kind", kind) != kind:
        raise InputError(f"{path} was {wrote} as a {card['kind']}, not as a {kind}: {MOVE_AWAY}")
    # Cards of older releases have no run. Cards of the library have no run and no stage.
    other = card.get("run") != run if "run" in card else "stage" not in card
    if run is not None and other:
        theirs, ours = card.get("run", "of the library"), run or "it has no config.json"
        raise InputError(
            f"{path} was {wrote}, but by another run ({theirs}) than this work directory's "
            f"({ours}), and is left as it is: {MOVE_AWAY}"
        )
    for name in there:
        entry = card["files"].get(name)
        if entry is None:
            if name == CARD:
                continue
            raise InputError(
                f"{path / name} is not jaxcurate's, and {path} would be replaced: {MOVE_AWAY}"
            )
        if name.endswith(f"/{CARD}") and sha256(path / name) != entry["sha256"]:
            raise InputError(
                f"{(path / name).parent} has been worked on since {path} was written, which "
                f"would be replaced: {MOVE_AWAY}"
            )


def _check_parents(path: epath.Path) -> None:
    """Refuses a path below something that is no folder, such as a file or a broken link.

    Raises:
        InputError: the message names it.
    """
    for parent in path.parents if is_local(path) else ():
        if os.path.lexists(parent):
            if not os.path.isdir(parent):
                raise InputError(f"{parent} is in the place of a folder: {MOVE_AWAY}")
            return


def read_card(path: epath.PathLike) -> dict[str, Any] | None:
    """Returns the card of a complete folder, or None if there is none.

    Raises:
        DamagedError: the card cannot be read or was altered, or a file that it lists is missing
            or has another size. (:func:`check_files` checks contents.)

    Examples:
        >>> read_card("/nowhere") is None
        True
    """
    path = epath.Path(path)
    if not (path / CARD).exists():
        return None
    card, there = _parsed_card(path), sizes_in(path)
    card.pop(CHECKSUM, None)
    for name, entry in card["files"].items():
        if name not in there:
            raise DamagedError(f"{path / name} is missing")
        if there[name] != entry["bytes"]:
            raise DamagedError(
                f"{path / name} is damaged: {there[name]} bytes, not {entry['bytes']}"
            )
    return card


def _parsed_card(path: epath.Path) -> dict[str, Any]:
    """Returns the card with its checksum, which older cards lack."""
    if is_local(path) and not os.path.isfile(path / CARD):  # reading a pipe would wait forever
        raise DamagedError(f"{path / CARD} is no regular file")
    try:
        card = parsed((path / CARD).read_text())
        checksum = fingerprint({name: card[name] for name in card if name != CHECKSUM})
        for name, entry in card["files"].items():
            if not isinstance(entry["bytes"], int) or not isinstance(entry["sha256"], str):
                raise TypeError(f"{name!r} has no size or no checksum")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path / CARD} is damaged ({error})") from error
    if card.get(CHECKSUM, checksum) != checksum:
        raise DamagedError(f"{path / CARD} is damaged: it does not match its checksum")
    return card


def check_sizes(path: epath.PathLike) -> dict[str, Any]:
    """Returns the card of a folder, after a check of the sizes of all files.

    Raises:
        DamagedError: a file, or the card, is missing or has another size; the message names it.

    Examples:
        >>> check_sizes("/nowhere")
        Traceback (most recent call last):
        ...
        jaxcurate.artifacts.files.DamagedError: /nowhere/card.json is missing: the folder was \
never completed
    """
    card = read_card(path)
    if card is None:
        raise DamagedError(f"{epath.Path(path) / CARD} is missing: the folder was never completed")
    return card


def check_files(path: epath.PathLike) -> dict[str, Any]:
    """Returns the card of a folder, after a check of the contents of all files.

    A file that has not changed since this process checked it is not read once more.

    Raises:
        DamagedError: a file is missing, truncated or altered; the message names it.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as work:
        ...     with new_folder(f"{work}/notes", {"seed": 7}, "notes") as folder:
        ...         folder.write_text("a.txt", "hello")
        ...     check_files(f"{work}/notes")["files"]["a.txt"]["bytes"]
        5
    """
    path, card = epath.Path(path), check_sizes(path)
    for name, entry in card["files"].items():
        check_file(path / name, entry)
    return card


def _folders_in(folder: epath.Path, names: Iterable[str]) -> list[epath.Path]:
    """Returns a folder and its subfolders with files, whose names must survive a power failure."""
    below = {parent for name in names for parent in epath.Path(name).parents}
    return [folder, *(folder / parent for parent in sorted(below) if str(parent) != ".")]
