"""Ids of items: file names as Unicode, and hashes of contents."""

import hashlib
import os
import re

_LOOKS_ESCAPED = re.compile(rb"\\(?=x[0-9a-f]{2})")
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")


def printable(name: str | bytes) -> str:
    r"""Returns a file name as valid Unicode, for ids that are written to files.

    A byte that is not UTF-8 becomes ``\xNN``. A backslash that begins such a sequence in the name
    itself becomes ``\x5c``, so that distinct names have distinct ids.

    Examples:
        >>> print(printable("zoë.png"), printable(b"caf\xe9.png"))
        zoë.png caf\xe9.png
    """
    data = os.fsencode(name) if isinstance(name, str) else name
    return _LOOKS_ESCAPED.sub(rb"\\x5c", data).decode("utf-8", "backslashreplace")


def original(id: str) -> bytes:
    r"""Returns the file name of an id that `printable` made.

    Examples:
        >>> original(printable(b"caf\xe9.png"))
        b'caf\xe9.png'
    """
    parts = _ESCAPED.split(id)
    # Every second part is the two digits of an escaped byte.
    pairs = zip(parts[::2], [*parts[1::2], ""], strict=True)
    return b"".join(text.encode() + bytes.fromhex(digits) for text, digits in pairs)


def content_id(content: bytes | str) -> str:
    """Returns an id made of the content of an item, 32 hexadecimal digits of its hash.

    Args:
        content: bytes of a picture, or a text.

    Examples:
        >>> content_id("a text") == content_id(b"a text")
        True
    """
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return hashlib.blake2b(data, digest_size=16).hexdigest()
