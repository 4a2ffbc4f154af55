"""Folders with a card: whole or not there, replaced only where jaxcurate wrote all of them."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from etils import epath

from jaxcurate.artifacts import exchange, temporary
from jaxcurate.artifacts.files import (
    MOVE_AWAY,
    DamagedError,
    NewFile,
    fingerprint,
    is_local,
    save_array,
    sha256,
    sync,
)
from jaxcurate.artifacts.local import parsed
from jaxcurate.artifacts.lock import check_held
from jaxcurate.checks import InputError

CARD = "card.json"
"""The file that makes a folder whole: written last, it names all others."""
_CHECKSUM = "checksum"
"""The card's entry for itself: the fingerprint of all that it tells besides."""
_WRITER = "jaxcurate"
NO_RUN = ""
"""A run that has written nothing yet: no folder is its own."""


class NewFolder:
    """A folder while it is written. It remembers what was written, for its card.

    Args:
        path: the empty folder.
        kind: what the folder holds, such as ``"pool"``.
    """

    def __init__(self, path: epath.Path, kind: str) -> None:
        self.path = path
        self.kind = kind
        self.files: dict[str, dict[str, Any]] = {}
        """Size and SHA-256 of every file by its name, as in the card."""

    @contextmanager
    def create(self, name: str) -> Iterator[NewFile]:
        """Opens a new file of the folder, such as ``"a.npy"`` or ``"below/b.png"``."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with NewFile(path) as file:
            yield file
        self.files[name] = {"bytes": file.n_bytes, "sha256": file.sha256()}

    def save_array(self, name: str, array: np.ndarray) -> None:
        """Writes an array as ``.npy``, never as a pickle."""
        with self.create(name) as file:
            save_array(file, array)

    def write_text(self, name: str, text: str) -> None:
        """Writes a text in UTF-8."""
        with self.create(name) as file:
            file.write(text.encode())

    def adopt(self, file: epath.PathLike) -> None:
        """Moves a finished file of the same file system into the folder."""
        file = epath.Path(file)
        self.files[file.name] = {"bytes": file.stat().length, "sha256": sha256(file)}
        file.rename(self.path / file.name)

    @contextmanager
    def subfolder(self, name: str, about: Mapping[str, Any], kind: str) -> Iterator["NewFolder"]:
        """Yields a folder below, which gets a card of its own on leaving the block."""
        below = NewFolder(self.path / name, kind)
        below.path.mkdir()
        yield below
        below.finish(about)
        self.files |= {f"{name}/{file}": entry for file, entry in below.files.items()}

    def finish(self, about: Mapping[str, Any]) -> None:
        """Writes the card, after a look at whether everything that was written lies there.

        Raises:
            DamagedError: a file is gone, another one is there, or a size is another.
        """
        there = sizes_in(self.path)
        written = {name: entry["bytes"] for name, entry in self.files.items()}
        if there != written:
            name = min(set(there.items()) ^ set(written.items()))[0]
            raise DamagedError(
                f"{self.path / name} was changed by another program while it was written: "
                f"{written.get(name, 'no')} bytes were written, {there.get(name, 'none')} are there"
            )
        card = {**about, "kind": self.kind, "written_by": _WRITER, "files": dict(self.files)}
        card = json.loads(json.dumps(card))  # as it will be read
        card[_CHECKSUM] = fingerprint(card)
        self.write_text(CARD, json.dumps(card, indent=2, sort_keys=True) + "\n")


@contextmanager
def new_folder(path: epath.PathLike, about: Mapping[str, Any], kind: str) -> Iterator[NewFolder]:
    """Yields a folder to write into, which takes the place of ``path`` once it is whole.

    On leaving the block every file gets its size and SHA-256 into ``card.json`` beside ``about``.
    Where the block raises, the process dies or the power fails, ``path`` is what it was.

    Args:
        path: where the folder will stand.
        about: what the folder was made from, and anything else for its card. It is read on
            leaving the block, which may add to it what it has found.
        kind: what the folder holds, such as ``"pool"``; only a folder of this kind is replaced.

    Yields:
        An empty folder.

    Raises:
        InputError: something that must not be replaced stands at ``path``
            (:func:`check_replaceable`), or it cannot be written.
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
                [folder.path / name for name in folder.files],
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
    """Puts back what was replaced where somebody has added to it in the last moment."""
    old = fresh if fresh.exists() else place / temporary.OLD
    try:
        check_replaceable(old, kind, run)
    except InputError:
        exchange.swap(old, path, place / "again")
        raise


def check_replaceable(path: epath.PathLike, kind: str, run: str | None = None) -> None:
    """Refuses a path at which something stands that jaxcurate did not write.

    A folder may be replaced where it is empty; or where its card says that jaxcurate wrote it, as
    a folder of the same kind and in the same run, and it holds nothing that the card does not
    name. Files that are missing or damaged are no obstacle.

    Args:
        path: of a folder.
        kind: what is to be written there.
        run: the run that is to write; None for none in particular, :data:`NO_RUN` for one that
            has no name yet.

    Raises:
        InputError: telling what stands there.
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
    if card.get("written_by", _WRITER) != _WRITER or not ({"checksum", "stage"} & set(card)):
        raise InputError(f"{path} was not {wrote}, by its {CARD}: {MOVE_AWAY}")
    if card.get("kind", kind) != kind:
        raise InputError(f"{path} was {wrote} as a {card['kind']}, not as a {kind}: {MOVE_AWAY}")
    # Cards of older releases tell no run; those of the library have none, and no stage either.
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
    """Refuses a path below something that is no folder, such as a file or a link to nowhere.

    Raises:
        InputError: naming it.
    """
    for parent in path.parents if is_local(path) else ():
        if os.path.lexists(parent):
            if not os.path.isdir(parent):
                raise InputError(f"{parent} is in the place of a folder: {MOVE_AWAY}")
            return


def read_card(path: epath.PathLike) -> dict[str, Any] | None:
    """Returns the card of a whole folder; None where there is none.

    Raises:
        DamagedError: the card cannot be read or was altered, or a file that it names is missing
            or has another size. (Contents are checked by :func:`check_files`.)
    """
    path = epath.Path(path)
    if not (path / CARD).exists():
        return None
    card, there = _parsed_card(path), sizes_in(path)
    card.pop(_CHECKSUM, None)
    for name, entry in card["files"].items():
        if name not in there:
            raise DamagedError(f"{path / name} is missing")
        if there[name] != entry["bytes"]:
            raise DamagedError(
                f"{path / name} is damaged: {there[name]} bytes, not {entry['bytes']}"
            )
    return card


def _parsed_card(path: epath.Path) -> dict[str, Any]:
    """Returns the card as it stands, with its checksum, which older cards lack."""
    if is_local(path) and not os.path.isfile(path / CARD):  # to read a pipe would wait forever
        raise DamagedError(f"{path / CARD} is no regular file")
    try:
        card = parsed((path / CARD).read_text())
        checksum = fingerprint({name: card[name] for name in card if name != _CHECKSUM})
        for name, entry in card["files"].items():
            if not isinstance(entry["bytes"], int) or not isinstance(entry["sha256"], str):
                raise TypeError(f"{name!r} has no size or no checksum")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path / CARD} is damaged ({error})") from error
    if card.get(_CHECKSUM, checksum) != checksum:
        raise DamagedError(f"{path / CARD} is damaged: it is not what its checksum tells")
    return card


def check_sizes(path: epath.PathLike) -> dict[str, Any]:
    """Returns the card of a folder that has to be there, with all its files of the right size.

    Raises:
        DamagedError: naming the file that is missing or has another size.
    """
    card = read_card(path)
    if card is None:
        raise DamagedError(f"{epath.Path(path) / CARD} is missing: the folder was never completed")
    return card


def check_files(path: epath.PathLike) -> dict[str, Any]:
    """Reads every file of a folder, holds it against its checksum, and returns the card.

    Raises:
        DamagedError: naming the file that is missing, truncated or altered.
    """
    path, card = epath.Path(path), check_sizes(path)
    for name, entry in card["files"].items():
        if sha256(path / name) != entry["sha256"]:
            raise DamagedError(
                f"{path / name} is damaged: its checksum is not {CARD}'s; remove the folder"
            )
    return card


def sizes_in(folder: epath.Path) -> dict[str, int]:
    """Returns the size of everything below a folder that is no folder, by its relative path."""
    found: dict[str, int] = {}
    pending = [""]
    while pending:
        prefix = pending.pop()
        if not is_local(folder):
            for entry in (folder / prefix).iterdir():
                if entry.is_dir():
                    pending.append(f"{prefix}{entry.name}/")
                else:
                    found[f"{prefix}{entry.name}"] = entry.stat().length
            continue
        with os.scandir(folder / prefix) as entries:  # epath would ask the system twice a file
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{prefix}{entry.name}/")
                else:
                    found[f"{prefix}{entry.name}"] = entry.stat(follow_symlinks=False).st_size
    return found


def _folders_in(folder: epath.Path, names: Iterable[str]) -> list[epath.Path]:
    """Returns a folder and those below it with files, whose names must outlast a power cut."""
    below = {parent for name in names for parent in epath.Path(name).parents}
    return [folder, *(folder / parent for parent in sorted(below) if str(parent) != ".")]
