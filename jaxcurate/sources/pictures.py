"""Decoding of encoded pictures: upright, in sRGB, on white, within a budget of memory."""

import contextlib
import functools
import io
import os
import struct
from collections.abc import Callable
from typing import BinaryIO, Literal, TypeVar, get_args

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from jaxcurate.checks import check_choice
from jaxcurate.sources import files
from jaxcurate.sources.budget import ByteBudget
from jaxcurate.sources.colors import averageable, flat, in_srgb, profile_of
from jaxcurate.sources.usable import UnusableContent

MAX_PIXELS = 89_478_485
"""Largest number of pixels of a picture, above which Pillow warns: a quarter of a GiB in RGB."""

FORMATS = (
    "PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "AVIF", "JPEG2000", "PPM", "ICO",
)  # fmt: skip
"""Formats that are read, whatever the name of a file is. None of them can start a program, as
PostScript can, and each is recognized by its first bytes."""

MEMORY = ByteBudget(2**30, uncounted=2**20)
"""Budget of bytes that all threads of the process may hold together while they decode. A larger
picture, which takes at most a few times as much, is decoded alone."""

# Large pictures are single blocks of memory, which the C library returns to the system at once.
# With the smaller blocks that are the default of Pillow, it would keep some for each thread.
Image.core.set_block_size(2**29)

_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
"""Number of bytes of a pixel in Pillow's memory, by mode. Other modes take four."""

Fit = Literal["crop", "pad", "squash"]
"""Way to make a square: "crop" keeps the central square, as is usual for photographs, "pad" keeps
the whole picture, on white, and "squash" changes its aspect."""
FITS = get_args(Fit)
Filter = Literal["box", "bilinear", "bicubic", "lanczos"]
"""Filter of resizing, stretched over the area of a pixel of the result, so that nothing aliases."""
_FILTERS = {name: Image.Resampling[name.upper()] for name in get_args(Filter)}

T = TypeVar("T")


class UndecodablePicture(UnusableContent):
    """Error of bytes that are no picture, or a picture that is broken or too large."""


def decode(file: str | os.PathLike | bytes, size: int, *, fit: Fit = "crop") -> np.ndarray:
    """Decodes a picture to a square of RGB.

    EXIF orientation is applied, colors of a profile become those of sRGB, transparency is
    flattened on white, and the picture is resized with a box filter (an average over the area,
    without aliasing).

    Args:
        file: path of a file, or encoded bytes, in one of `FORMATS`. The first of several frames is
            decoded.
        size: side of the result in pixels.
        fit: way to make a square.

    Returns:
        uint8 ``[size, size, 3]``.

    Raises:
        UndecodablePicture: as for :func:`with_picture`.
        FileNotFoundError: there is no such file.

    Examples:
        >>> picture = np.zeros((4, 6, 3), np.uint8)
        >>> picture[:, 3:] = 255
        >>> decode(encode_png(picture), size=2)[..., 0]
        array([[  0, 255],
               [  0, 255]], dtype=uint8)
    """
    check_choice("fit", fit, FITS)
    return with_picture(file, lambda picture: np.asarray(square(picture, size, fit)))


def with_picture(
    file: str | os.PathLike | bytes,
    use: Callable[[Image.Image], T],
    *,
    before: Callable[[Image.Image], object] | None = None,
) -> T:
    """Decodes a picture, and returns what a function makes of it.

    Threads that decode at the same time wait for each other if they would hold more than `MEMORY`
    together. The function is called while the memory of the picture is counted, so that it should
    return something small.

    Args:
        file: path of a file, or encoded bytes, in one of `FORMATS`. The first of several frames is
            decoded.
        use: function of the decoded picture, of any mode, turned by its EXIF orientation.
        before: function of the picture before it is decoded or turned, which may call its
            ``draft`` to decode a JPEG at a part of its size.

    Raises:
        UndecodablePicture: the picture cannot be decoded; the message is the reason in a few
            words. This includes a file that is not regular, and a picture that takes too much
            memory even when no other picture is being decoded.
        FileNotFoundError: there is no such file.

    Examples:
        >>> with_picture(encode_png(np.zeros((4, 6, 3), np.uint8)), lambda picture: picture.size)
        (6, 4)
    """
    try:
        return _with_picture(file, use, before)
    except MemoryError:  # other threads may have held the memory that this picture needs
        pass
    try:
        with MEMORY.hold(MEMORY.total):
            return _with_picture(file, use, before, uncounted=True)
    except MemoryError as error:
        raise UndecodablePicture("takes more memory than there is") from error


def as_rgb(picture: Image.Image) -> Image.Image:
    """Converts a picture of any mode to RGB: in the colors of sRGB, flattened on white.

    Pictures of equal pixels become equal, whether they are stored as a palette, in gray, with an
    opaque alpha channel, or in 16 bits.

    Examples:
        >>> as_rgb(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    return flat(averageable(in_srgb(picture)))


def square(
    picture: Image.Image,
    size: int,
    fit: Fit = "crop",
    *,
    shorter: int | None = None,
    filter: Filter = "box",
) -> Image.Image:
    """Resizes a picture of any mode and aspect to ``size`` x ``size`` sRGB, flattened on white.

    Args:
        picture: decoded picture.
        size: side of the result in pixels.
        fit: way to make a square.
        shorter: length in pixels that the shorter side is resized to before the center is cropped,
            at least ``size``, as is usual for features of ImageNet. By default ``size``.
        filter: filter of resizing.

    Examples:
        >>> picture = square(Image.new("L", (8, 4), 255), 2, "pad")
        >>> picture.mode, picture.size
        ('RGB', (2, 2))
    """
    width, height = picture.size
    picture = averageable(in_srgb(picture))
    if fit == "squash":
        return flat(_resize(picture, (size, size), (0, 0, width, height), filter))
    if fit == "crop":
        side = min(width, height) * size / (shorter or size)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return flat(_resize(picture, (size, size), box, filter))
    scale = size / max(width, height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    padded = Image.new("RGB", (size, size), "white")
    corner = ((size - inner[0]) // 2, (size - inner[1]) // 2)
    padded.paste(flat(_resize(picture, inner, (0, 0, width, height), filter)), corner)
    return padded


def is_picture(beginning: bytes) -> bool:
    """Returns whether a file begins like one of `FORMATS`, whatever its name is.

    Args:
        beginning: at least the first 16 bytes of the file, if it has as many.

    Examples:
        >>> is_picture(encode_png(np.zeros((4, 4, 3), np.uint8))), is_picture(b"id,label")
        (True, False)
    """
    return picture_format(beginning) is not None


def picture_format(beginning: bytes) -> str | None:
    """Returns the name in `FORMATS` of the format that a file begins like, or None.

    Args:
        beginning: at least the first 16 bytes of the file, if it has as many.

    Examples:
        >>> picture_format(encode_png(np.zeros((4, 4, 3), np.uint8)))
        'PNG'
    """
    for name in _formats():
        _, accepts = Image.OPEN[name]
        # The header of DIB, which is that of BMP without its beginning, is like many numbers.
        if name != "DIB" and accepts is not None:
            with contextlib.suppress(struct.error):  # a short file
                if accepts(beginning[:16]) is True:
                    return name
    return None


def _with_picture(
    file: str | os.PathLike | bytes,
    use: Callable[[Image.Image], T],
    before: Callable[[Image.Image], object] | None,
    *,
    uncounted: bool = False,
) -> T:
    """Decodes a picture while its bytes in `MEMORY` are held, unless it is uncounted."""
    hold = contextlib.nullcontext if uncounted else MEMORY.hold

    def prepared(picture: Image.Image) -> Image.Image:
        if before is not None:
            before(picture)
        return picture

    try:
        with _stream(file) as stream:
            n_bytes = stream.seek(0, os.SEEK_END)
            # Some readers load the whole file to find the size of its picture.
            with hold(n_bytes):
                picture = prepared(_open(stream))
                n_bytes += _bytes_to_decode(picture)
                if n_bytes <= MEMORY.uncounted:
                    return use(_decoded(picture))
                del picture
            with hold(n_bytes):
                return use(_decoded(prepared(_open(stream))))
    except (UndecodablePicture, FileNotFoundError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UndecodablePicture("too many pixels") from error
    except UnidentifiedImageError as error:
        raise UndecodablePicture("not a picture of a known format") from error
    except OSError as error:
        raise UndecodablePicture(files.reason(error)) from error
    except Exception as error:  # Pillow's many readers raise anything on a broken file
        raise UndecodablePicture(str(error) or type(error).__name__) from error


def _decoded(picture: Image.Image) -> Image.Image:
    """Decodes an opened picture, and turns it by its EXIF orientation."""
    picture.load()
    _check_size(picture)
    ImageOps.exif_transpose(picture, in_place=True)
    return picture


def _stream(file: str | os.PathLike | bytes) -> BinaryIO:
    return io.BytesIO(file) if isinstance(file, bytes) else files.open_regular(os.fspath(file))


def _open(stream: BinaryIO) -> Image.Image:
    """Reads the header of a picture, and refuses too many pixels."""
    stream.seek(0)
    picture = Image.open(stream, formats=_formats())
    _check_size(picture)
    return picture


def _check_size(picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise UndecodablePicture(f"{width} x {height} pixels are too many")


@functools.cache
def _formats() -> tuple[str, ...]:
    """Returns the `FORMATS` that the installed Pillow can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _bytes_to_decode(picture: Image.Image) -> int:
    """Estimates the peak memory of decoding an opened picture.

    The numbers were measured for each format at 24 megapixels, and rounded up.
    """
    if picture.format == "ICO":  # the picture inside may be larger than the header says
        return MEMORY.total
    stored = _STORED.get(picture.mode, 4)
    per_pixel = stored + (stored if _may_be_turned(picture) else 0)
    if picture.mode.startswith("I") or picture.mode == "F":
        per_pixel += 14
    elif picture.mode not in ("L", "RGB"):
        per_pixel += 8
    if profile_of(picture) is not None:  # in the colors of sRGB, and a copy that has a profile's
        per_pixel += 8
    n_bands = len(picture.getbands())
    match picture.format:
        case "WEBP":
            per_pixel += 14
        case "AVIF":
            per_pixel += 8
        case "JPEG2000":
            per_pixel += 6 * n_bands
        case "JPEG" | "MPO" if "progressive" in picture.info:
            per_pixel += 2 * n_bands
    width, height = picture.size
    return width * height * per_pixel


def _may_be_turned(picture: Image.Image) -> bool:
    if picture.format == "TIFF":
        return True
    # For a PNG without this entry, getexif() would decode the whole picture to search for it.
    return "exif" in picture.info and picture.getexif().get(ExifTags.Base.Orientation, 1) != 1


def encode_png(image: np.ndarray) -> bytes:
    """Encodes an image uint8 ``[h, w, 3]`` or ``[h, w]`` as PNG.

    It is compressed a little, which is faster than much.

    Examples:
        >>> encode_png(np.zeros((4, 4, 3), np.uint8))[:8]
        b'\\x89PNG\\r\\n\\x1a\\n'
    """
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def _resize(
    picture: Image.Image,
    size: tuple[int, int],
    box: tuple[float, float, float, float],
    filter: Filter,
) -> Image.Image:
    # A first reduction by a whole factor is several times faster on large pictures.
    return picture.resize(size, _FILTERS[filter], box=box, reducing_gap=3.0)
