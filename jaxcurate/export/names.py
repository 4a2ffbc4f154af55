"""File names of exported items: a distinct one for every id, and the id itself where it can be."""

import os
import re
from collections.abc import Iterable

from jaxcurate.artifacts import files
from jaxcurate.checks import InputError
from jaxcurate.sources.pictures import picture_format

SUFFIXES = {
    "PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "GIF": ".gif", "TIFF": ".tif", "BMP": ".bmp",
    "DIB": ".dib", "AVIF": ".avif", "JPEG2000": ".jp2", "PPM": ".ppm", "ICO": ".ico",
}  # fmt: skip
"""Suffix of a file, by the format of its picture."""
TEXT, UNKNOWN = ".txt", ".bin"
"""Suffixes of texts, and of content of an unknown format."""
_ALSO = (".jpeg", ".jpe", ".jfif", ".tiff", ".apng", ".j2k", ".jpx", ".pgm", ".pbm", ".pnm")
_KNOWN = frozenset([*SUFFIXES.values(), TEXT, UNKNOWN, *_ALSO])
_LONGEST_NAME = 255
"""Largest number of bytes in a file name on common file systems."""
_LONGEST_PATH = 4095
"""Largest number of bytes in a path on Linux."""
_ROOM = 128
"""Number of bytes of a path that are kept free for the name of the temporary folder."""
_EMPTY = "%%"
"""Name of a part of an id that is empty."""
_ADDED = "%"
"""Mark before a suffix that the id itself does not have."""
_OURS = re.compile(r"card\.json|items-[^/]*\.parquet")
"""Names of files of an export that are no items."""
_ENDING = re.compile(r"(.*[^/])(\.[A-Za-z0-9]+)", re.DOTALL)
_REPEAT = re.compile(r"%-([0-9]+)\Z")
_RESERVED = re.compile(
    r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]"  # not allowed in a name, or special in it
    r"|%(?=[0-9A-Fa-f]{2}|%|-|\Z)"  # would be taken for an escape or a mark
)
_ESCAPE = re.compile(rb"%([0-9A-F]{2})")


def suffix_of(content: bytes | str) -> str:
    """Returns the suffix of a file with the given content, known by its first bytes.

    Args:
        content: bytes of a picture, or a text.

    Examples:
        >>> suffix_of(b"\\x89PNG\\r\\n\\x1a\\n"), suffix_of("a text"), suffix_of(b"?")
        ('.png', '.txt', '.bin')
    """
    if isinstance(content, str):
        return TEXT
    return SUFFIXES.get(picture_format(content) or "", UNKNOWN)


def path_of(id: str, suffix: str) -> str:
    """Returns the path, relative to an export's folder and with forward slashes, of an item's file.

    The path is the id, if it ends with the suffix of a picture or a text, whatever its case is.
    To any other id, ``%`` and the given suffix are added, so that ``a`` and ``a.png`` have
    different files. Characters that cannot be part of a name are escaped as in a URL, by ``%`` and
    two hexadecimal digits for each byte: control characters, backslashes, dots and spaces at the
    end of a folder's name, and ``%`` where it would be ambiguous. The last letter of a folder is
    escaped too if a file of the export could have the same name. An empty part of the id becomes
    ``%%``, and a part that is too long is split into nested folders, each but the last with ``%``
    at the end of its name.

    Args:
        id: any text.
        suffix: suffix of the content, from :func:`suffix_of`.

    Returns:
        A path from which :func:`id_of` recovers the id.

    Raises:
        InputError: the suffix is not one of those that are known.

    Examples:
        >>> path_of("cats/0001.JPG", ".png"), path_of("cats/0001", ".png")
        ('cats/0001.JPG', 'cats/0001%.png')
        >>> path_of("cats /a//b", ".png")
        'cats%20/a/%%/b%.png'
    """
    if suffix not in _KNOWN:
        raise InputError(f"suffix={suffix!r} is not one of {', '.join(sorted(_KNOWN))}")
    above, name = _above(id)
    stem, end = _stem(name)
    end = end or f"{_ADDED}{suffix}"
    names = _split(_escaped(stem) or _EMPTY, _LONGEST_NAME - len(end))
    return "/".join([*above, *names]) + end


def id_of(path: str) -> str:
    """Returns the id of an item from the path of its file, the inverse of :func:`path_of`.

    Args:
        path: a path relative to an export's folder, with forward slashes.

    Raises:
        InputError: :func:`path_of` returns this path for no id.

    Examples:
        >>> id_of("cats/0001.JPG"), id_of("cats/0001%.png")
        ('cats/0001.JPG', 'cats/0001')
        >>> id_of("cats%20/a/%%/b%.png")
        'cats /a//b'
    """
    body, end = _stem(path)
    added = body.endswith(_ADDED)
    id = _joined(body.removesuffix(_ADDED)) + ("" if added else end)
    if not end or path_of(id, end.lower()) != path:
        raise InputError(f"{path!r} is not the path of an exported item")
    return id


def key_of(id: str, repeat: int = 0) -> str:
    """Returns the key of a sample in an archive of WebDataset.

    The key is the id with the escapes of :func:`path_of`. In addition, dots of its last part are
    escaped, where WebDataset would cut it, and the first letter of a key that it would skip as
    metadata.

    Args:
        id: any text.
        repeat: number of samples of the same item before this one, which distinguishes their keys.

    Returns:
        A key from which :func:`id_of_key` recovers the id.

    Examples:
        >>> key_of("v1.0/cat.png"), key_of("cat", repeat=1)
        ('v1.0/cat%2Epng', 'cat%-1')
    """
    above, name = _above(id)
    end = f"%-{repeat}" if repeat else ""
    key = "/".join([*above, *_split(_escaped(name) or _EMPTY, _LONGEST_NAME - len(end))])
    folder, slash, last = key.rpartition("/")
    key = folder + slash + last.replace(".", _code("."))
    return (_code("_") + key[1:] if key.startswith("__") else key) + end


def id_of_key(key: str) -> str:
    """Returns the id of an item from the key of one of its samples.

    Raises:
        InputError: :func:`key_of` returns this key for no id.

    Examples:
        >>> id_of_key("v1.0/cat%2Epng"), id_of_key("cat%-1")
        ('v1.0/cat.png', 'cat')
    """
    repeat = _REPEAT.search(key)
    id = _joined(_REPEAT.sub("", key))
    if key_of(id, int(repeat[1]) if repeat else 0) != key:
        raise InputError(f"{key!r} is not the key of an exported item")
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
        if len(id) > room // 12 and len(path_of(id, ".jpg").encode()) > room:
            raise InputError(
                f"item {id[:100]!r}... cannot be exported to {folder}: its path would be longer "
                f"than {_LONGEST_PATH} bytes"
            )


def _above(id: str) -> tuple[list[str], str]:
    """Returns the names of the folders of an id, and its last part as it is."""
    *folders, name = id.split("/")
    parts = [_folder(folder, i == 0) for i, folder in enumerate(folders)]
    return [short for part in parts for short in _split(part, _LONGEST_NAME)], name


def _stem(name: str) -> tuple[str, str]:
    """Splits a name at a known suffix, which is empty if it has none."""
    split = _ENDING.fullmatch(name)
    return (split[1], split[2]) if split and split[2].lower() in _KNOWN else (name, "")


def _joined(path: str) -> str:
    """Returns the text of an escaped path, in which long parts are split."""
    parts, begun = [], ""
    for name in path.split("/"):
        if name.endswith("%") and name != _EMPTY:
            begun += name[:-1]
        else:
            parts.append("" if begun + name == _EMPTY else _unescaped(begun + name))
            begun = ""
    return "/".join(parts)


def _folder(part: str, is_first: bool) -> str:
    """Returns a name for a folder that no file of the export has."""
    escaped = _escaped(part)
    is_ours = is_first and _OURS.fullmatch(escaped) is not None
    if is_ours or escaped.endswith((".", " ")) or _stem(escaped)[1]:
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
