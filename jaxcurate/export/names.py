"""File names of exported items: a distinct one for every id, and the id itself where it can be."""

import os
import re
from collections.abc import Iterable

from jaxcurate.artifacts import files
from jaxcurate.checks import InputError

SUFFIX = ".png"
"""End of the name of every file."""
_LONGEST_NAME = 255
"""Largest number of bytes in a file name on common file systems."""
_LONGEST_PATH = 4095
"""Largest number of bytes in a path on Linux."""
_ROOM = 128
"""Number of bytes of a path that are kept free for the name of the temporary folder."""
_EMPTY = "%%"
"""Name of a part of an id that is empty."""
_RESERVED = re.compile(
    r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]"  # not allowed in a name, or special in it
    r"|%(?=[0-9A-Fa-f]{2}|%|\Z)"  # would be taken for an escape
)
_ESCAPE = re.compile(rb"%([0-9A-F]{2})")


def path_of(id: str) -> str:
    """Returns the path, relative to an export's folder and with forward slashes, of an item's file.

    The path is the id with ``.png`` added. Characters that cannot be part of a name are escaped as
    in a URL, by ``%`` and two hexadecimal digits for each byte: control characters, backslashes,
    dots and spaces at the end of a folder's name, and ``%`` where it would be ambiguous. The last
    letter of a folder is escaped too if an item's file or the card could have the same name. An
    empty part of the id becomes ``%%``, and a part that is too long is split into nested folders,
    each but the last with ``%`` at the end of its name.

    Args:
        id: any text.

    Returns:
        A path from which :func:`id_of` recovers the id.

    Examples:
        >>> path_of("cats/0001")
        'cats/0001.png'
        >>> path_of("cats /a//b")
        'cats%20/a/%%/b.png'
    """
    *folders, name = id.split("/")
    cards = (i == 0 and folder == "card.json" for i, folder in enumerate(folders))
    parts = [_folder(folder, card) for folder, card in zip(folders, cards, strict=True)]
    names = [short for part in parts for short in _split(part, _LONGEST_NAME)]
    names += _split(_escaped(name) or _EMPTY, _LONGEST_NAME - len(SUFFIX))
    return "/".join(names) + SUFFIX


def id_of(path: str) -> str:
    """Returns the id of an item from the path of its file, the inverse of :func:`path_of`.

    Args:
        path: a path relative to an export's folder, with forward slashes.

    Raises:
        InputError: :func:`path_of` returns this path for no id.

    Examples:
        >>> id_of("cats/0001.png")
        'cats/0001'
        >>> id_of("cats%20/a/%%/b.png")
        'cats /a//b'
    """
    parts, begun = [], ""
    for name in path.removesuffix(SUFFIX).split("/"):
        if name.endswith("%") and name != _EMPTY:
            begun += name[:-1]
        else:
            parts.append("" if begun + name == _EMPTY else _unescaped(begun + name))
            begun = ""
    id = "/".join(parts)
    if path_of(id) != path:
        raise InputError(f"{path!r} is not the path of an exported item")
    return id


def check_names(ids: Iterable[str], folder: str | os.PathLike) -> None:
    """Refuses ids whose files could not be written below a folder because their paths are too long.

    Args:
        ids: ids of the items.
        folder: the folder; one that is not on a local file system takes any id.

    Raises:
        InputError: naming the first such id.

    Examples:
        >>> check_names(["cats/0001", "cats/0002"], "exports")
        >>> check_names(["d/" * 3000], "/exports")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: item 'd/d/...cannot be exported to /exports: its path would ...
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
    """Returns a name for a folder that no item's file has."""
    escaped = _escaped(part)
    if is_card or escaped.endswith((SUFFIX, ".", " ")):
        return escaped[:-1] + _code(escaped[-1])
    return escaped or _EMPTY


def _split(part: str, longest: int) -> list[str]:
    """Splits a part of a path into names of folders and a last name of at most `longest` bytes."""
    names, data = [], part.encode()
    while len(data) > longest:
        end = min(_LONGEST_NAME, len(data)) - 1
        while data[end] & 0xC0 == 0x80:  # not between the bytes of one character
            end -= 1
        names.append(f"{data[:end].decode()}%")
        data = data[end:]
    return [*names, data.decode()]


def _escaped(part: str) -> str:
    return _RESERVED.sub(lambda match: _code(match[0]), part)


def _code(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def _unescaped(part: str) -> str:
    data = part.encode("utf-8", "surrogatepass")
    data = _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), data)
    return data.decode("utf-8", "surrogatepass")
