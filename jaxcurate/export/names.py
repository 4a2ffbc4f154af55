"""File names of items: every id has one, no two ids share one, and ordinary ids are their own."""

import os
import re
from collections.abc import Iterable

from jaxcurate.artifacts import files
from jaxcurate.checks import InputError

SUFFIX = ".png"
_LONGEST_NAME = 255
"""Bytes of a file's name that common file systems take."""
_LONGEST_PATH = 4095
_ROOM = 128
"""Bytes of a path that are kept free for the name of the temporary folder."""
_EMPTY = "%%"
_HELD_BACK = re.compile(
    r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]"  # of no use, or of another meaning, in a name
    r"|%(?=[0-9A-Fa-f]{2}|%|\Z)"  # would be taken for an escape
)
_ESCAPE = re.compile(rb"%([0-9A-F]{2})")


def path_of(id: str) -> str:
    """Returns the path, relative to an export's folder and with forward slashes, of an item's file.

    It is the id with ``.png`` added. What cannot be part of a name is written as in a URL, ``%``
    and two hexadecimal digits a byte: control characters, backslashes, dots and spaces at the end
    of a folder's name, ``%`` where it would be ambiguous. So is the last letter of a folder that is
    named as the file of another item, or the card, may be. A part that is empty becomes ``%%``, and
    one that is too long is cut into folders, all but the last with ``%`` at the end.

    Args:
        id: any text at all.

    Returns:
        A path of which :func:`id_of` makes the id again.
    """
    *folders, name = id.split("/")
    cards = (i == 0 and folder == "card.json" for i, folder in enumerate(folders))
    parts = [_folder(folder, card) for folder, card in zip(folders, cards, strict=True)]
    pieces = [piece for part in parts for piece in _cut(part, _LONGEST_NAME)]
    pieces += _cut(_escaped(name) or _EMPTY, _LONGEST_NAME - len(SUFFIX))
    return "/".join(pieces) + SUFFIX


def id_of(path: str) -> str:
    """Returns the id of an item from the path that :func:`path_of` gave its file.

    Raises:
        InputError: it is not such a path.
    """
    parts, cut = [], ""
    for piece in path.removesuffix(SUFFIX).split("/"):
        if piece.endswith("%") and piece != _EMPTY:
            cut += piece[:-1]
        else:
            parts.append("" if cut + piece == _EMPTY else _unescaped(cut + piece))
            cut = ""
    id = "/".join(parts)
    if path_of(id) != path:
        raise InputError(f"{path!r} is not the path of an exported item")
    return id


def check_names(ids: Iterable[str], folder: str | os.PathLike) -> None:
    """Refuses ids whose files could not be written below a folder, their paths being too long.

    Raises:
        InputError: naming the first of them.
    """
    if not files.is_local(folder):
        return
    room = _LONGEST_PATH - _ROOM - len(os.fsencode(os.path.abspath(folder)))
    for id in ids:
        if len(id) > room // 12 and len(path_of(id).encode()) > room:
            raise InputError(
                f"item {id[:100]!r}... cannot be exported to {folder}: its path would be longer "
                f"than {_LONGEST_PATH} bytes"
            )


def _folder(part: str, is_card: bool) -> str:
    """Returns a folder's name that is not that of any item's file."""
    escaped = _escaped(part)
    if is_card or escaped.endswith((SUFFIX, ".", " ")):
        return escaped[:-1] + _code(escaped[-1])
    return escaped or _EMPTY


def _cut(part: str, longest: int) -> list[str]:
    """Cuts a part into names of folders, and a last name of at most so many bytes."""
    pieces, data = [], part.encode()
    while len(data) > longest:
        end = min(_LONGEST_NAME, len(data)) - 1
        while data[end] & 0xC0 == 0x80:  # within a character
            end -= 1
        pieces.append(f"{data[:end].decode()}%")
        data = data[end:]
    return [*pieces, data.decode()]


def _escaped(part: str) -> str:
    return _HELD_BACK.sub(lambda found: _code(found[0]), part)


def _code(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def _unescaped(part: str) -> str:
    data = part.encode("utf-8", "surrogatepass")
    data = _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), data)
    return data.decode("utf-8", "surrogatepass")
