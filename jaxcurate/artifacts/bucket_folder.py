"""Folders in a bucket, which are there once their card is, although nothing can be renamed.

A mark beside the folder names the process that writes it. A folder that is new is written in its
place, and its card last. A folder that replaces another is written aside, and copied within the
store once it is whole, so that the older one stays until then. After a kill, the next run of the
work directory finishes the copy, or removes the objects of the unfinished folder, and no others.
"""

import contextlib
import json
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from etils import epath

from jaxcurate.artifacts import bucket
from jaxcurate.artifacts.files import fingerprint
from jaxcurate.artifacts.local import parsed
from jaxcurate.artifacts.lock import check_held, held_token
from jaxcurate.artifacts.new_folder import CARD, CHECKSUM, OBJECTS, NewFolder, card_text
from jaxcurate.artifacts.owner import Owner
from jaxcurate.artifacts.temporary import MARK, OLD, is_temporary
from jaxcurate.checks import InputError


class Mark(NamedTuple):
    """Mark of a folder that is being written, replaced or removed."""

    place: epath.Path
    """Folder of the mark, and of objects that are written aside."""
    token: str
    """Token of the writing, also in the metadata of its objects."""
    target: epath.Path
    """Folder that is written."""
    owner: Owner
    """Process that writes."""
    lock: str | None
    """Token of the lock of the work directory, if the process holds one."""

    @property
    def fresh(self) -> epath.Path:
        """Folder of the objects that are written aside."""
        return self.place / self.target.name

    @property
    def old(self) -> epath.Path:
        """Folder with the card of the folder that is replaced or removed."""
        return self.place / OLD


@contextmanager
def written(
    path: epath.Path, about: Mapping[str, Any], kind: str, check: Callable[[], None]
) -> Iterator[NewFolder]:
    """Yields a folder to write, which is at ``path``, with its card, after the block.

    Args:
        path: path of the folder.
        about: entries of its card, which are read at the end of the block.
        kind: kind of its content.
        check: refuses a path that must not be replaced.

    Raises:
        InputError: another process writes the folder, or the store refuses.
    """
    clean(path.parent)
    check()
    there = bucket.listing(path)
    if there and CARD not in there:
        writers = [str(mark.owner) for mark in marks(path.parent) if mark.target == path]
        raise InputError(f"{path} is being written by {' and '.join(writers)}")
    mark = _marked(path)
    folder = NewFolder(mark.fresh if there else path, kind, mark.token)
    try:
        yield folder
        if there:
            folder.finish(about)
            check()
            check_held(path)
            _replace(mark)
        else:
            check_held(path)
            folder.finish(about)
        _remove(mark, aside=bool(there))
    except BaseException:
        # Without the store, the next run removes what is left.
        with contextlib.suppress(InputError):
            _settle(mark)
        raise


def discard(path: epath.Path) -> None:
    """Removes a folder with all files that its card lists."""
    mark = _marked(path)
    _replace(mark)
    _remove(mark)


def clean(parent: epath.Path) -> None:
    """Finishes or removes what ended processes left below a folder.

    A process on another machine counts as ended if this process has locked the work directory,
    and the other wrote under an earlier lock.
    """
    lock = held_token(parent)
    for mark in marks(parent):
        is_running = mark.owner.is_running()
        is_earlier = None not in (lock, mark.lock) and lock != mark.lock
        if is_running is False or (is_running is None and is_earlier):
            _settle(mark)


def marks(parent: epath.Path) -> list[Mark]:
    """Returns the marks of folders below a folder."""
    found = (_read_mark(parent / name) for name in bucket.names(parent) if is_temporary(name))
    return [mark for mark in found if mark is not None]


def is_unfinished(path: epath.Path, there: Collection[str]) -> bool:
    """Returns whether all objects of a folder without a card are those of an unfinished writing.

    Args:
        path: path of the folder.
        there: names of its objects.
    """
    for mark in marks(path.parent):
        if mark.target == path:
            known = {*_names(mark.old), *_names(mark.fresh)}
            rest = [path / name for name in there if name not in known]
            return all(token == mark.token for token in bucket.made_by(rest))
    return False


def unaltered(path: epath.Path, card: Mapping[str, Any]) -> set[str]:
    """Returns the files that the store knows to be those of the card, so that none is read.

    A store keeps a checksum of every object, and the card has these of its files. Objects that
    were copied from elsewhere may have others, and are not in the result.
    """
    known = card.get(OBJECTS, {})
    if not isinstance(known, dict):
        return set()
    return {name for name, found in bucket.listing(path).items() if found.tag == known.get(name)}


def _marked(path: epath.Path) -> Mark:
    owner, token = Owner.current(), uuid.uuid4().hex
    place = path.parent / f".jaxcurate-{token}-{owner.pid}-{owner.started}.tmp"
    mark = Mark(place, token, path, owner, held_token(path))
    plain = {"token": token, "target": path.name, "lock": mark.lock, **owner._asdict()}
    bucket.write(place / MARK, json.dumps(plain).encode())
    return mark


def _read_mark(place: epath.Path) -> Mark | None:
    data = bucket.read(place / MARK)
    try:
        plain = parsed((data or b"").decode())
        target, token = plain["target"], plain["token"]
        if not isinstance(target, str) or "/" in target or target in ("", ".", ".."):
            return None
        if not isinstance(token, str) or f"-{token}-" not in place.name:
            return None
        return Mark(place, token, place.parent / target, Owner.from_plain(plain), plain.get("lock"))
    except (ValueError, KeyError, TypeError):
        return None


def _settle(mark: Mark) -> None:
    """Finishes a replacement or removal that has begun; otherwise removes the unfinished folder."""
    if not bucket.is_file(mark.target / CARD):
        if bucket.is_file(mark.old / CARD):
            _replace(mark)
        else:
            paths = [mark.target / name for name in bucket.listing(mark.target)]
            tokens = bucket.made_by(paths)
            ours = [path for path, token in zip(paths, tokens, strict=True) if token == mark.token]
            bucket.remove(ours)
            bucket.abort_uploads(mark.target)
    bucket.abort_uploads(mark.place)
    _remove(mark)


def _replace(mark: Mark) -> None:
    """Replaces a folder by the one aside, or by nothing. It can be done again after a kill.

    The card of the older folder goes first, so that nobody takes a mixture for a folder.
    """
    target, card = mark.target, _card(mark.fresh)
    if bucket.is_file(target / CARD):
        bucket.copy(target / CARD, mark.old / CARD)
        bucket.remove([target / CARD])
    new = [] if card is None else list(card["files"])
    bucket.remove([target / name for name in _names(mark.old) if name not in new])
    bucket.copy_all((mark.fresh / name, target / name) for name in new)
    if card is not None:
        # Copies of large objects may have another checksum of the store.
        found = bucket.listing(target)
        card = {name: value for name, value in card.items() if name != CHECKSUM}
        card[OBJECTS] = {name: found[name].tag for name in new if name in found}
        card[CHECKSUM] = fingerprint(card)
        check_held(target)
        bucket.write(target / CARD, card_text(card).encode(), mark.token)


def _remove(mark: Mark, *, aside: bool = True) -> None:
    """Removes what is aside, if there may be something, and the mark last."""
    if aside:
        there = bucket.listing(mark.place)
        bucket.remove([mark.place / name for name in there if name != MARK])
    bucket.remove([mark.place / MARK])


def _names(folder: epath.Path) -> list[str]:
    return list((_card(folder) or {"files": ()})["files"])


def _card(folder: epath.Path) -> dict[str, Any] | None:
    data = bucket.read(folder / CARD)
    if data is None:
        return None
    try:
        card = parsed(data.decode())
        return card if isinstance(card["files"], dict) else None
    except (ValueError, KeyError, TypeError):
        return None
