"""Random crops of encoded pictures, decoded and resized on the host."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import ExifTags, Image

from jaxcurate.sources.colors import averageable, flat, in_srgb
from jaxcurate.sources.pictures import with_picture
from jaxcurate.stateless_random import priorities
from jaxcurate.training.objectives.base import Crop

_N_TRIES = 10
"""Number of random sizes that are tried before the largest crop in the middle is taken."""
N_DRAWS = 2 * _N_TRIES + 2
"""Number of random numbers that a crop takes."""
_REDUCING_GAP = 2.0
"""Factor by which a JPEG is decoded larger than its crops need, so that they look the same."""
_STREAM = 7
"""Random stream of the crops, for :func:`jaxcurate.stateless_random.priorities`."""

Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge in pixels."""


def draws(seed: int, step: int, positions: np.ndarray, n_crops: int) -> np.ndarray:
    """Returns the random numbers of the crops of a batch, as a function of seed, step and position.

    Args:
        seed: seed of the run.
        step: number of the step, below 2**32.
        positions: positions in the batch over all processes, int ``[b]``.
        n_crops: number of crops of each picture, over all groups.

    Returns:
        float64 ``[b, n_crops, N_DRAWS]`` in [0, 1).

    Examples:
        >>> draws(0, step=3, positions=np.arange(4), n_crops=2).shape
        (4, 2, 22)
    """
    keys = (np.uint64(step) << np.uint64(32)) | positions.astype(np.uint64)
    keys = priorities(keys, seed, _STREAM)[:, None] + np.arange(n_crops * N_DRAWS, dtype=np.uint64)
    bits = priorities(keys.ravel(), seed, _STREAM + 1) >> np.uint64(11)
    return (bits * 2.0**-53).reshape(len(positions), n_crops, N_DRAWS)


def crop_box(
    drawn: Sequence[float],
    width: float,
    height: float,
    scale: tuple[float, float],
    ratio: float,
) -> Box:
    """Returns the edges of a random crop, whose area and ratio of sides are drawn.

    The area is uniform, and so is the logarithm of the ratio. A crop that does not fit into the
    picture is drawn anew, ten times at most, after which the largest crop of an allowed ratio is
    taken from the middle.

    Args:
        drawn: random numbers in [0, 1), ``[N_DRAWS]``.
        width: width of the picture in pixels.
        height: height of the picture in pixels.
        scale: smallest and largest area of the crop, as fractions of the picture.
        ratio: largest ratio of width and height; the smallest is its inverse.

    References:
        Szegedy et al.: Going deeper with convolutions (2014), https://arxiv.org/abs/1409.4842,
        section 6; ``RandomResizedCrop`` of torchvision.

    Examples:
        >>> crop_box([0.5] * N_DRAWS, 40, 40, (0.25, 0.25), 4 / 3)
        (10.0, 10.0, 30.0, 30.0)
    """
    low, high = scale
    for i in range(0, 2 * _N_TRIES, 2):
        area = (low + (high - low) * drawn[i]) * width * height
        aspect = ratio ** (2 * drawn[i + 1] - 1)
        crop_width, crop_height = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if crop_width <= width and crop_height <= height:
            left, top = (width - crop_width) * drawn[-2], (height - crop_height) * drawn[-1]
            return left, top, left + crop_width, top + crop_height
    crop_width, crop_height = min(width, height * ratio), min(height, width * ratio)
    left, top = (width - crop_width) / 2, (height - crop_height) / 2
    return left, top, left + crop_width, top + crop_height


def random_crops(
    content: bytes,
    drawn: np.ndarray,
    crops: Sequence[Crop],
    scale: tuple[float, float],
    ratio: float,
) -> list[np.ndarray]:
    """Decodes a picture once, and returns random crops of it.

    A JPEG of which all crops are small is decoded at a half, a quarter or an eighth of its size. A
    crop that is smaller than the result is enlarged. Crops are resized by bilinear interpolation,
    with a triangle filter where they are made smaller.

    Args:
        content: encoded picture, in one of the formats of `jaxcurate.sources.pictures`.
        drawn: random numbers, ``[n_crops, N_DRAWS]``, from :func:`draws`.
        crops: groups of crops.
        scale: smallest and largest area of crops whose group has no ``scale``.
        ratio: largest ratio of a crop's sides.

    Returns:
        uint8 ``[n, size, size, 3]`` for each group.

    Raises:
        UndecodablePicture: the picture cannot be decoded.

    Examples:
        >>> from jaxcurate.sources.pictures import encode_png
        >>> png = encode_png(np.zeros((30, 40, 3), np.uint8))
        >>> drawn = draws(0, 0, np.arange(1), 2)[0]
        >>> [group.shape for group in random_crops(png, drawn, [Crop(2, 8)], (0.4, 1.0), 4 / 3)]
        [(2, 8, 8, 3)]
    """
    groups = [(crop, crop.scale or scale) for crop in crops for _ in range(crop.n)]
    numbers = drawn.tolist()

    def boxes(width: int, height: int) -> list[Box]:
        return [
            crop_box(number, width, height, scale, ratio)
            for number, (_, scale) in zip(numbers, groups, strict=True)
        ]

    def reduce(picture: Image.Image) -> None:
        if picture.format not in ("JPEG", "MPO"):
            return
        width, height = picture.size
        upright = (height, width) if _lies_on_its_side(picture) else (width, height)
        factor = min(
            min(right - left, lower - upper) / crop.size
            for (left, upper, right, lower), (crop, _) in zip(boxes(*upright), groups, strict=True)
        )
        k = int(factor / _REDUCING_GAP)
        if k >= 2:
            picture.draft(None, (width // k, height // k))

    def crop_all(picture: Image.Image) -> list[np.ndarray]:
        edges = boxes(*picture.size)
        picture = averageable(in_srgb(picture))
        out, i = [], 0
        for crop in crops:
            group = np.empty((crop.n, crop.size, crop.size, 3), np.uint8)
            for j in range(crop.n):
                resized = picture.resize(
                    (crop.size, crop.size),
                    Image.Resampling.BILINEAR,
                    box=edges[i],
                    reducing_gap=3.0,
                )
                group[j] = np.asarray(resized if resized.mode == "RGB" else flat(resized))
                i += 1
            out.append(group)
        return out

    return with_picture(content, crop_all, before=reduce)


def _lies_on_its_side(picture: Image.Image) -> bool:
    """Returns whether a picture will be turned by a quarter."""
    return "exif" in picture.info and picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5
