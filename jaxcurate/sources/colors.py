"""Colors of pictures: in sRGB, in 8 bits, and on white."""

import functools
import io

import numpy as np
from PIL import Image, ImageCms

from jaxcurate.sources.usable import UnusableContent

_SRGB = ImageCms.createProfile("sRGB")
_OPAQUE = {"RGBA": "RGB", "RGBX": "RGB", "LA": "L", "PA": "RGB", "P": "RGB"}
"""Mode in which a picture is converted by its profile, if it differs from its own."""


def averageable(picture: Image.Image) -> Image.Image:
    """Converts a picture to L, RGB or RGBa, where an average of pixels is the visible average.

    Examples:
        >>> averageable(Image.new("LA", (1, 1), (255, 0))).getpixel((0, 0))
        (0, 0, 0, 0)
    """
    if picture.mode.startswith("I") or picture.mode == "F":
        return _gray(picture)
    if picture.has_transparency_data:
        picture = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        return picture.convert("RGBa")
    return picture if picture.mode in ("L", "RGB") else picture.convert("RGB")


def in_srgb(picture: Image.Image) -> Image.Image:
    """Returns a picture in the colors of sRGB, if it has a profile of other colors.

    A profile that is broken, or of another kind of picture, says nothing and is ignored.

    Examples:
        >>> picture = Image.new("RGB", (1, 1), (1, 2, 3))
        >>> in_srgb(picture) is picture
        True
    """
    profile = profile_of(picture)
    opaque = _OPAQUE.get(picture.mode, picture.mode)
    if profile is None or (transform := _to_srgb(profile, opaque)) is None:
        return picture
    alpha = picture.convert("RGBA").getchannel("A") if picture.has_transparency_data else None
    colors = picture if picture.mode == opaque else picture.convert(opaque)
    result = ImageCms.applyTransform(colors, transform)
    if result is None:
        return picture
    if alpha is not None:
        result.putalpha(alpha)
    result.info.pop("transparency", None)  # it named a color before the change
    return result


def flat(picture: Image.Image) -> Image.Image:
    """Returns RGB: a picture in RGBa, whose colors are premultiplied, is put on white.

    Examples:
        >>> flat(Image.new("RGBa", (1, 1), (0, 0, 0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    if picture.mode != "RGBa":
        return picture.convert("RGB")
    pixels = np.asarray(picture).astype(np.int16)
    on_white = pixels[..., :3] + 255 - pixels[..., 3:]
    return Image.fromarray(np.minimum(on_white, 255).astype(np.uint8))


def profile_of(picture: Image.Image) -> bytes | None:
    """Returns the color profile of a picture in 8 bits, if it has one.

    Examples:
        >>> profile_of(Image.new("RGB", (1, 1))) is None
        True
    """
    profile = picture.info.get("icc_profile")
    in_8_bits = picture.mode in ("L", "RGB", "CMYK", *_OPAQUE)
    return profile if isinstance(profile, bytes) and profile and in_8_bits else None


@functools.lru_cache(maxsize=64)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Returns the transform from a profile to sRGB, or None if it is sRGB or cannot be used."""
    try:
        colors = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(colors):
            return None
        return ImageCms.buildTransform(colors, _SRGB, mode, "RGB")
    except (OSError, ImageCms.PyCMSError, ValueError, TypeError):
        return None


def _gray(picture: Image.Image) -> Image.Image:
    """Converts 16 or 32 bits to 8, which Pillow would clip instead of scaling.

    The darkest and the brightest value of a scale of 32 bits are not known: floats within [0, 1]
    or [0, 255], and integers within [0, 255] or [0, 65535], are taken for values of such a scale,
    and others are stretched from the least to the largest.

    Raises:
        UnusableContent: no pixel is finite.
    """
    wide = np.asarray(picture).astype(np.float32)
    if not np.isfinite(wide).any():
        raise UnusableContent("has no finite pixel")
    wide = np.nan_to_num(wide, copy=False, posinf=0, neginf=0)
    low, high = float(wide.min()), float(wide.max())
    scales = (1, 255) if picture.mode == "F" else (255, 65535)
    if picture.mode.startswith("I;16"):
        low, high = 0, 65535
    elif low >= 0 and high <= scales[-1]:
        low, high = 0, next(scale for scale in scales if high <= scale)
    scaled = np.clip((wide - low) * (255 / max(high - low, 1e-30)) + 0.5, 0, 255).astype(np.uint8)
    if isinstance(transparent := picture.info.get("transparency"), int):
        scaled[wide == transparent] = 255
    return Image.fromarray(scaled)
