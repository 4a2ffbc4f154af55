"""Any encoded picture as a square of RGB: decoding, resizing, flattening."""

import io
import os
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from jaxcurate.checks import InputError

MAX_PIXELS = 89_478_485
"""Larger pictures (a quarter of a gibibyte in RGB) are refused; where Pillow begins to warn."""


METHOD = "centre crop, box filter, on white"
"""How `decode` makes a square; part of the fingerprints of what is read through it."""


class UndecodablePicture(Exception):
    """Bytes that are no picture, a broken picture, or one too large to be meant well."""


def decode(
    file: str | os.PathLike | bytes, size: int, *, fit: Literal["crop", "pad"] = "crop"
) -> np.ndarray:
    """Decodes a picture to a square of RGB.

    EXIF orientation is applied, transparency is flattened on white, and the picture is resized
    with a box filter (an average over the area, so that nothing aliases).

    Args:
        file: a path, or the encoded bytes (PNG, JPEG, WebP, GIF's first frame, ...).
        size: side of the result in pixels.
        fit: how another aspect becomes a square: "crop" keeps the centre, as is usual for
          photographs; "pad" keeps everything, on white.

    Returns:
        uint8 ``[size, size, 3]``.

    Raises:
        UndecodablePicture: with the reason in a few words.
        FileNotFoundError: where there is no such file.
    """
    if fit not in ("crop", "pad"):
        raise InputError(f"fit must be 'crop' or 'pad', not {fit!r}")
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise UndecodablePicture(f"{width} x {height} pixels are too many")
            picture.load()
            return np.asarray(square(ImageOps.exif_transpose(picture), size, fit))
    except (UndecodablePicture, FileNotFoundError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UndecodablePicture("too many pixels") from error
    except UnidentifiedImageError as error:
        raise UndecodablePicture("not a picture of a known format") from error
    except Exception as error:  # Pillow's many readers raise anything on a broken file
        raise UndecodablePicture(str(error) or type(error).__name__) from error


def square(picture: Image.Image, size: int, fit: Literal["crop", "pad"]) -> Image.Image:
    """Resizes a picture of any mode and aspect to ``size`` x ``size`` RGB, flattened on white."""
    width, height = picture.size
    picture = _averageable(picture)
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return _flat(_resize(picture, (size, size), (left, top, left + side, top + side)))
    scale = size / max(width, height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    padded = Image.new("RGB", (size, size), "white")
    corner = ((size - inner[0]) // 2, (size - inner[1]) // 2)
    padded.paste(_flat(_resize(picture, inner, (0, 0, width, height))), corner)
    return padded


def encode_png(image: np.ndarray) -> bytes:
    """Encodes uint8 ``[h, w, 3]`` as PNG, quickly rather than tightly."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def _averageable(picture: Image.Image) -> Image.Image:
    """Converts to L, RGB or RGBa, where averaging pixels averages what is seen."""
    if picture.mode.startswith("I"):
        # 16 bits: Pillow's own conversion clips them to 255 instead of scaling them.
        wide = np.asarray(picture).astype(np.float32)
        return Image.fromarray(np.clip(wide / 257 + 0.5, 0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        return picture.convert("RGBa")
    return picture if picture.mode in ("L", "RGB") else picture.convert("RGB")


def _resize(
    picture: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]
) -> Image.Image:
    # A first reduction by a whole factor is several times faster on large pictures.
    return picture.resize(size, Image.Resampling.BOX, box=box, reducing_gap=3.0)


def _flat(picture: Image.Image) -> Image.Image:
    """Puts RGBa, whose colours are premultiplied, on white."""
    if picture.mode != "RGBa":
        return picture.convert("RGB")
    pixels = np.asarray(picture).astype(np.int16)
    on_white = pixels[..., :3] + 255 - pixels[..., 3:]
    return Image.fromarray(np.minimum(on_white, 255).astype(np.uint8))
