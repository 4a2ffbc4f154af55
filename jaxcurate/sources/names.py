"""File names as Unicode: distinct for distinct names, and the same for names that are Unicode."""

import os
import re

_LOOKS_ESCAPED = re.compile(rb"\\(?=x[0-9a-f]{2})")
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")


def printable(name: str | bytes) -> str:
    r"""Returns a file name as valid Unicode, for ids that are written to files.

    A byte that is not UTF-8 becomes ``\xNN``. A backslash that begins such a sequence in the name
    itself becomes ``\x5c``, so that no two names have one id.
    """
    data = os.fsencode(name) if isinstance(name, str) else name
    return _LOOKS_ESCAPED.sub(rb"\\x5c", data).decode("utf-8", "backslashreplace")


def original(id: str) -> bytes:
    """Returns the file name that `printable` made an id of."""
    parts = _ESCAPED.split(id)
    # Every second part is the two digits of an escaped byte.
    pairs = zip(parts[::2], [*parts[1::2], ""], strict=True)
    return b"".join(text.encode() + bytes.fromhex(digits) for text, digits in pairs)
