"""Hostile files for the readers of pictures and arrays: each is read rightly or refused in a line.

``run(n, seed)`` tries as many files as are wanted; `tests/test_fuzz_sources.py` tries a few hundred
and those that were found to fail once.
"""

import io
import random
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from faults.limits import time_limit
from PIL import Image

from jaxcurate.checks import InputError
from jaxcurate.sources import ArraySource, pictures, read_items

SECONDS = 20
"""No file of the few kilobytes that are tried may take longer."""
SIGNATURES = (
    *(b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"II", b"MM", b"BM", b"\0\0\1\0", b"\0\0\2\0"),
    *(
        b"\0\0\0\x0cjP",
        b"\xff\x4f\xff\x51",
        b"P",
        b"(\0\0\0",
        b"\x0c\0\0\0",
        b"@\0\0\0",
        b"l\0\0\0",
    ),
    *(b"|\0\0\0", b"\x34\0\0\0", b"8\0\0\0", b"\x10\0\0\0"),
)
"""With one of these begins every picture that may be read, or bytes 4 to 8 are ``ftyp``."""


class Edit(NamedTuple):
    """One change of a file."""

    kind: str
    """``set``, ``insert``, ``drop`` or ``cut``."""
    where: float
    """In [0, 1): the place, in parts of the length."""
    data: bytes
    """What is set or inserted; as many bytes are dropped."""


def edited(data: bytes, edits: list[Edit]) -> bytes:
    """Returns a file after some changes."""
    for kind, where, new in edits:
        at = int(where * (len(data) + 1))
        match kind:
            case "set":
                data = data[:at] + new + data[at + len(new) :]
            case "insert":
                data = data[:at] + new + data[at:]
            case "drop":
                data = data[:at] + data[at + len(new) :]
            case "cut":
                data = data[:at]
    return data


@cache
def whole_pictures() -> tuple[bytes, ...]:
    """One small picture of each format and mode."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 4), np.uint8)
    rgba = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    wanted = [("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")]
    wanted += [("JPEG", mode, {}) for mode in ("L", "RGB", "CMYK")]
    wanted += [("JPEG", "RGB", {"progressive": True}), ("JPEG", "RGB", {"exif": exif})]
    wanted += [("GIF", "P", {}), ("WEBP", "RGB", {}), ("WEBP", "RGBA", {"lossless": True})]
    wanted += [("TIFF", "RGB", {"compression": how}) for how in (None, "tiff_lzw", "jpeg")]
    wanted += [("TIFF", "L", {}), ("TIFF", "F", {}), ("BMP", "RGB", {}), ("BMP", "P", {})]
    wanted += [("PPM", "RGB", {}), ("PPM", "1", {}), ("ICO", "RGBA", {}), ("MPO", "RGB", {})]
    wanted += [(name, "RGB", {}) for name in ("JPEG2000", "AVIF") if name in Image.SAVE]
    files = [_saved(rgba.convert(mode), name, **more) for name, mode, more in wanted]
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    return (*files, _saved(deep, "PNG"))


@cache
def whole_arrays() -> tuple[bytes, ...]:
    """Small arrays of each type that is read, in both orders and all versions of the format."""
    x = np.random.default_rng(0).standard_normal((6, 4))
    types = ("<f4", ">f4", "<f8", "<f2", "<i4", "<U2", "<c8", "?")
    arrays = [x.astype(dtype) for dtype in types] + [np.asfortranarray(x), x[0], x[None]]
    return tuple(
        _written(array, version) for array in arrays for version in ((1, 0), (2, 0), (3, 0))
    )


def check_picture(data: bytes) -> bool:
    """Returns whether a file is taken for a picture; raises where it is not dealt with rightly."""
    try:
        with time_limit(SECONDS):
            image = pictures.decode(data, 8)
    except pictures.UndecodablePicture as error:
        assert str(error)
        return False
    assert image.shape == (8, 8, 3) and image.dtype == np.uint8
    assert data.startswith(SIGNATURES) or data[4:8] == b"ftyp", "taken for a picture"
    assert pictures.MEMORY.held == 0
    return True


def check_array(data: bytes, folder: Path) -> bool:
    """Returns whether a file is taken for an array; raises where it is not dealt with rightly."""
    path = folder / "x.npy"
    path.write_bytes(data)
    try:
        with time_limit(SECONDS):
            source = ArraySource(path)
            reading = read_items(source, batch_size=4)
            rows = [row for batch in reading for row in batch.contents]
    except InputError as error:
        told = str(error)
        assert str(path) in told and "\n" not in told and "pickle=" not in told, told
        return False
    finally:
        path.unlink()
    array = source.array
    file = io.BytesIO(data)
    assert np.lib.format.read_array(file, allow_pickle=False).shape == array.shape
    assert not file.read(1), "there is more in the file than the array"
    assert array.ndim == 2 and array.dtype.hasobject is False
    assert len(rows) + len(reading.unreadable) == len(array)
    assert np.isfinite(rows).all()
    return True


def run(n: int, seed: int) -> dict[str, Counter]:
    """Tries ``n`` hostile files, half of them pictures and half of them arrays.

    Returns:
        For each kind of file how many were read and how many were refused.

    Raises:
        AssertionError: a file was not dealt with rightly; its bytes are in the message.
    """
    draw = random.Random(seed)
    counts = {"pictures": Counter(), "arrays": Counter()}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in a run, where a warning stops nothing
        checks: dict[str, tuple[tuple[bytes, ...], Callable[[bytes], bool]]] = {
            "pictures": (whole_pictures(), check_picture),
            "arrays": (whole_arrays(), lambda data: check_array(data, Path(folder))),
        }
        for i in range(n):
            kind = ("pictures", "arrays")[i % 2]
            whole, check = checks[kind]
            data = hostile(whole, draw)
            try:
                counts[kind]["read" if check(data) else "refused"] += 1
            except BaseException as error:
                raise AssertionError(f"{kind} {i} of seed {seed}: {error!r}: {data!r}") from error
    return counts


def hostile(whole: tuple[bytes, ...], draw: random.Random) -> bytes:
    """Returns a file that may be broken: mostly a whole one after a few changes."""
    if draw.random() < 0.05:
        return draw.randbytes(draw.randrange(200))
    data = draw.choice(whole)
    if draw.random() < 0.1:  # the head of one with the body of another
        other = draw.choice(whole)
        data = data[: draw.randrange(len(data))] + other[draw.randrange(len(other)) :]
    edits = []
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        kind = draw.choice(("set", "set", "set", "set", "insert", "drop", "cut"))
        # Most of what can go wrong is said at the beginning.
        where = draw.random() ** draw.choice((1, 4))
        new = draw.choice(
            (
                draw.randbytes(1),
                draw.randbytes(4),
                b"\xff" * 4,
                b"\0" * 4,
                b"\x7f\xff\xff\xff",
                b"9",
            )
        )
        edits.append(Edit(kind, where, new))
    return edited(data, edits)


def _saved(picture: Image.Image, name: str, **more: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, name, **more)
    return buffer.getvalue()


def _written(array: np.ndarray, version: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version, allow_pickle=False)
    return buffer.getvalue()
