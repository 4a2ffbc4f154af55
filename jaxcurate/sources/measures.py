"""Measures of pictures and texts, by which filters can drop items before anything is clustered."""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

MEASURED_SIDE = 256
"""Largest side in pixels of the gray copy whose sharpness is measured."""


class PictureMeasures(NamedTuple):
    """Measures of a picture, each of which can become a column of a pool."""

    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""
    side: int
    """Shorter side in pixels. A thumbnail has less than about 100."""
    aspect: float
    """Longer side divided by the shorter one: 1 for a square, 1.5 for most photographs. A banner
    has more than about 3."""
    sharpness: float
    """Variance of the Laplacian of a gray copy, in squared steps of 0 to 255. A single color has 0,
    a blurred photograph less than about 100, a sharp one several hundred, and noise or text
    thousands. The copy is the picture, averaged over squares of whole pixels until its longer side
    has at most `MEASURED_SIDE` pixels, so that neither the camera's resolution nor its noise
    decides. The scale depends on the content: look at a few pictures near a threshold."""
    brightness: float
    """Mean luma (ITU-R 601) from 0, black, to 1, white. A picture that is nearly black has less
    than about 0.05."""
    entropy: float
    """Entropy of the histogram of the 256 grays, in bits from 0, a single gray, to 8, all grays
    alike. Most photographs have 6 to 8, drawings and placeholders less than about 4."""


class TextMeasures(NamedTuple):
    """Measures of a text, each of which can become a column of a pool."""

    n_characters: int
    """Number of characters (code points), with spaces and line breaks."""
    n_words: int
    """Number of words: runs of characters without white space. Languages that are written without
    spaces have few."""
    word_length: float
    """Mean number of characters of a word, 0 without words. English prose has 4 to 6."""
    letter_fraction: float
    """Fraction of the characters of words that are letters of any script, 0 without words. Prose
    has more than about 0.8, tables and code less."""
    distinct_fraction: float
    """Fraction of the words that are distinct, whatever their case, 0 without words. A text that
    repeats itself has little. Long texts have less than short ones."""


def measure_picture(picture: Image.Image) -> PictureMeasures:
    """Returns measures of a decoded picture.

    Args:
        picture: RGB or L, upright, such as the result of
            :func:`jaxcurate.sources.pictures.as_rgb`.

    References:
        Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy: a comparative study,
        ICPR 2000, for the variance of the Laplacian.

    Examples:
        >>> from PIL import Image
        >>> from jaxcurate.sources import measure_picture
        >>> measures = measure_picture(Image.new("RGB", (60, 40), "white"))
        >>> measures.side, measures.aspect, measures.brightness
        (40, 1.5, 1.0)
        >>> measures.sharpness, measures.entropy
        (0.0, 0.0)
    """
    width, height = picture.size
    gray = picture if picture.mode == "L" else picture.convert("L")
    counts = np.asarray(gray.histogram(), np.float64)
    fractions = counts[counts > 0] / (width * height)
    return PictureMeasures(
        width,
        height,
        min(width, height),
        max(width, height) / min(width, height),
        _sharpness(gray),
        float(counts @ np.arange(256)) / (255 * width * height),
        # Zero is added because the entropy of a single gray would be minus zero.
        0.0 - float(fractions @ np.log2(fractions)),
    )


def measure_text(text: str) -> TextMeasures:
    """Returns measures of a text.

    Examples:
        >>> from jaxcurate.sources import measure_text
        >>> measure_text("To be, or not to be")[:3]
        (19, 6, 2.3333333333333335)
        >>> round(measure_text("the the The 123").distinct_fraction, 2)
        0.5
    """
    words = text.split()
    n_words, n_in_words = len(words), sum(map(len, words))
    if not n_words:
        return TextMeasures(len(text), 0, 0.0, 0.0, 0.0)
    return TextMeasures(
        len(text),
        n_words,
        n_in_words / n_words,
        sum(map(str.isalpha, text)) / n_in_words,  # no letter is white space
        len(set(text.lower().split())) / n_words,
    )


def _sharpness(gray: Image.Image) -> float:
    """Returns the variance of the Laplacian of a picture in mode L, reduced if it is large.

    Differences to pixels beyond the edge count as 0. Each difference of neighbors is then added
    at one pixel and subtracted at the other, so that the mean of the Laplacian is exactly 0 and
    the mean of its squares is its variance.
    """
    factor = math.ceil(max(gray.size) / MEASURED_SIDE)
    # A picture of extreme aspect keeps its shorter side, in which `reduce` would ask for a pixel.
    factors = tuple(min(factor, side) for side in gray.size)
    reduced = gray.reduce(factors) if factor > 1 else gray  # type: ignore[arg-type]
    pixels = np.asarray(reduced, np.int16)
    laplacian = np.zeros_like(pixels)
    across, down = pixels[:, 1:] - pixels[:, :-1], pixels[1:] - pixels[:-1]
    laplacian[:, :-1] += across
    laplacian[:, 1:] -= across
    laplacian[:-1] += down
    laplacian[1:] -= down
    flat = laplacian.ravel().astype(np.float32)
    return float(flat @ flat) / flat.size
