"""Size, crop and color scale of the pictures that a pretrained network was made for."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from jaxcurate.checks import InputError, check_choice, check_whole, short_repr
from jaxcurate.models.weight_files import read_json

Resample = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
"""Filters of Pillow, in the order of their numbers there, which published files use."""
Color = tuple[float, float, float]
"""Numbers for red, green and blue, with pixels in [0, 1]."""

FILE = "preprocessor_config.json"
"""Name of the file with the preprocessing, beside published weights."""
IMAGENET_MEAN: Color = (0.485, 0.456, 0.406)
IMAGENET_STD: Color = (0.229, 0.224, 0.225)
CLIP_MEAN: Color = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Color = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class PictureInput:
    """Preprocessing of pictures for a network: resizing, cropping, and scaling of colors.

    Raises:
        InputError: naming the field that cannot be used.

    Examples:
        >>> PictureInput(size=224, resize=256).crop
        True
    """

    size: int
    """Side in pixels of the squares that the network gets."""
    resize: int
    """Number of pixels that the shorter side is resized to before the central square is cut."""
    resample: Resample = "bicubic"
    """Filter of the resizing, with antialiasing."""
    crop: bool = True
    """False to stretch whole pictures to squares of `size`, without a crop."""
    mean: Color = (0.5, 0.5, 0.5)
    """Numbers that are subtracted from the colors."""
    std: Color = (0.5, 0.5, 0.5)
    """Numbers that the differences are divided by."""

    def __post_init__(self) -> None:
        check_whole("size", self.size, least=1)
        check_whole("resize", self.resize, least=1)
        check_choice("resample", self.resample, get_args(Resample))
        if self.crop and self.resize < self.size:
            raise InputError(f"resize={self.resize} must be at least size={self.size}")
        for name in ("mean", "std"):
            color = getattr(self, name)
            if len(color) != 3 or not all(isinstance(c, int | float) for c in color):
                raise InputError(f"{name}={short_repr(color)} must be three numbers")
        if min(self.std) <= 0:
            raise InputError(f"std={self.std} must be positive")

    def at(self, size: int) -> "PictureInput":
        """Returns the preprocessing for another size, with the same fraction of the picture.

        Examples:
            >>> PictureInput(size=224, resize=256).at(112).resize
            128
        """
        return dataclasses.replace(self, size=size, resize=round(self.resize * size / self.size))


def read_picture_input(folder: Path, default: PictureInput) -> PictureInput:
    """Returns the preprocessing that a folder of published weights asks for.

    Args:
        folder: the folder; its ``preprocessor_config.json`` is read if there is one.
        default: preprocessing of the family, for a folder without the file and for entries that
            the file does not have.

    Raises:
        InputError: the file is damaged, or asks for a preprocessing that is not known here.

    Examples:
        >>> read_picture_input(Path("/nowhere"), PictureInput(size=32, resize=32)).size
        32
    """
    path = folder / FILE
    if not path.exists():
        return default
    try:
        return _parsed(read_json(path), default)
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(str(path)) else f"{path}: {text}") from error


def _parsed(settings: dict[str, Any], default: PictureInput) -> PictureInput:
    def entry(name: str, otherwise: Any) -> Any:
        value = settings.get(name)
        return otherwise if value is None else value

    if entry("do_resize", True) is not True:
        raise InputError("do_resize=false is not supported")
    factor = entry("rescale_factor", 1 / 255)
    if not isinstance(factor, int | float) or abs(factor * 255 - 1) > 1e-6:
        raise InputError(f"rescale_factor={short_repr(factor)} is not supported, 1/255 is")
    number = entry("resample", get_args(Resample).index(default.resample))
    check_whole("resample", number, least=0)
    if number >= len(get_args(Resample)):
        raise InputError(f"resample={number} is no filter of Pillow")
    crop = entry("do_center_crop", default.crop)
    size = entry("size", default.resize if crop else default.size)
    if isinstance(size, dict) and "shortest_edge" not in size:
        side = shorter = _square("size", size)
        if crop and _square("crop_size", entry("crop_size", side)) != side:
            raise InputError("a crop of a stretched picture is not supported")
        crop = False
    elif crop:
        side = _square("crop_size", entry("crop_size", default.size))
        shorter = _square("size", size)
    elif isinstance(size, dict):
        raise InputError("size has a shortest_edge, but there is no crop: pictures are no squares")
    else:
        side = shorter = _square("size", size)
    normalize = entry("do_normalize", True)
    return PictureInput(
        size=side,
        resize=shorter,
        resample=get_args(Resample)[number],
        crop=bool(crop),
        mean=_color(entry("image_mean", default.mean)) if normalize else (0.0, 0.0, 0.0),
        std=_color(entry("image_std", default.std)) if normalize else (1.0, 1.0, 1.0),
    )


def _square(name: str, size: Any) -> int:
    """Returns the side of a square that a file writes as a number or as a mapping."""
    if isinstance(size, dict):
        sides = {value for value in size.values() if value is not None}
        if len(sides) != 1:
            raise InputError(f"{name}={short_repr(size)} is no square")
        size = sides.pop()
    check_whole(name, size, least=1)
    return size


def _color(value: Any) -> Color:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise InputError(f"{short_repr(value)} must be three numbers, for red, green and blue")
    return (value[0], value[1], value[2])


def to_published(picture: PictureInput) -> dict[str, Any]:
    """Returns the content of ``preprocessor_config.json`` for a preprocessing.

    Examples:
        >>> to_published(PictureInput(size=224, resize=256))["size"]
        {'shortest_edge': 256}
    """
    side = {"height": picture.size, "width": picture.size}
    return {
        "image_processor_type": "CLIPImageProcessor" if picture.crop else "ViTImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": picture.resize} if picture.crop else side,
        "do_center_crop": picture.crop,
        **({"crop_size": side} if picture.crop else {}),
        "resample": get_args(Resample).index(picture.resample),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(picture.mean),
        "image_std": list(picture.std),
    }
