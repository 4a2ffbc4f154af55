"""Reading of a range of bytes of a file on this machine or in a bucket, from any thread."""

import os

from jaxcurate.artifacts.local import is_local
from jaxcurate.checks import InputError
from jaxcurate.sources import files, location


def read_range(path: str, start: int, n_bytes: int) -> bytes:
    """Returns bytes of a file, for which no handle stays open.

    Args:
        path: path of a local file, or of an object with its protocol.
        start: position of the first byte.
        n_bytes: number of bytes.

    Raises:
        InputError: the range cannot be read, or the file ends before it does.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with open(f"{folder}/a", "wb") as file:
        ...         _ = file.write(b"some bytes")
        ...     read_range(f"{folder}/a", 5, 3)
        b'byt'
    """
    if is_local(path):
        try:
            with files.open_regular(path) as file:
                data = read_at(file.fileno(), start, n_bytes)
        except (OSError, InputError) as error:
            raise InputError(f"{path} cannot be read ({files.reason(error)})") from error
    else:
        system, inner = location.filesystem(path)
        with location.store_errors(path):
            data = system.cat_file(inner, start=start, end=start + n_bytes) if n_bytes else b""
    if len(data) != n_bytes:
        raise InputError(f"{path} ends before byte {start + n_bytes}")
    return data


def read_at(number: int, start: int, n_bytes: int) -> bytes:
    """Returns bytes of an open file, or fewer where it ends, without moving its position.

    Args:
        number: descriptor of the file.
        start: position of the first byte.
        n_bytes: number of bytes.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryFile(buffering=0) as file:
        ...     _ = file.write(b"some bytes")
        ...     read_at(file.fileno(), 5, 3), read_at(file.fileno(), 8, 9)
        (b'byt', b'es')
    """
    parts = []
    while n_bytes > 0:
        part = os.pread(number, n_bytes, start)  # Linux reads 2 GiB at most
        if not part:
            break
        parts.append(part)
        start, n_bytes = start + len(part), n_bytes - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
