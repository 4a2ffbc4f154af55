"""Measures of pictures and texts, on pictures and texts whose measures are known."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from scipy.ndimage import laplace

from jaxcurate.sources import measure_picture, measure_text
from jaxcurate.sources.measures import MEASURED_SIDE


def picture(array):
    return Image.fromarray(np.asarray(array, np.uint8))


def photograph(size=(500, 400)):
    """Smooth shapes with edges, as a picture of things has."""
    coarse = np.random.default_rng(0).integers(0, 256, (size[1] // 20, size[0] // 20, 3))
    return picture(coarse).resize(size, Image.Resampling.NEAREST)


@pytest.mark.parametrize("gray", [0, 7, 128, 255])
def test_a_single_color(gray):
    measures = measure_picture(Image.new("RGB", (500, 400), (gray,) * 3))
    assert measures[:4] == (500, 400, 400, 1.25)
    assert measures.sharpness == 0 and measures.entropy == 0
    assert measures.brightness == pytest.approx(gray / 255, abs=1e-12)


def test_noise_has_all_grays_alike_and_is_sharp():
    noise = np.random.default_rng(0).integers(0, 256, (200, 256, 1)).repeat(3, axis=2)
    measures = measure_picture(picture(noise))
    assert 7.98 < measures.entropy <= 8
    assert measures.brightness == pytest.approx(noise.mean() / 255, abs=1e-6)
    # A gray of variance v, less four others: 16 v + 4 v, but for the edges.
    assert measures.sharpness == pytest.approx(20 * noise.var(), rel=0.03)


def test_a_checkerboard():
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    measures = measure_picture(picture(board))
    assert measures.entropy == 1 and measures.brightness == 0.5
    # 255 times the number of neighbors: 4 within, 3 on an edge, 2 in a corner.
    expected = 255**2 * (62 * 62 * 16 + 4 * 62 * 9 + 4 * 4) / 64**2
    assert measures.sharpness == pytest.approx(expected, rel=1e-6)


def test_the_more_blurred_a_picture_the_less_sharp():
    sharp = photograph()
    blurred = [sharp, *(sharp.filter(ImageFilter.GaussianBlur(r)) for r in (1, 2, 4, 8))]
    values = [measure_picture(each).sharpness for each in blurred]
    assert values == sorted(values, reverse=True)
    assert values[0] > 500 > 50 > values[-1]


def test_darkness_is_found_whatever_the_content_is():
    dark = measure_picture(photograph().point(lambda value: value // 32))
    assert dark.brightness < 0.05 < 0.3 < measure_picture(photograph()).brightness
    assert dark.entropy < 4


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.integers(1, 12), st.booleans(), st.integers(0, 99))
def test_odd_shapes_against_a_loop_in_float64(width, height, upright, seed):
    array = np.random.default_rng(seed).integers(0, 256, (height, width))
    array = array.T if upright else array
    measures = measure_picture(picture(array))
    assert (measures.height, measures.width) == array.shape
    counts = np.unique(array, return_counts=True)[1] / array.size
    assert measures.entropy == pytest.approx(-np.sum(counts * np.log2(counts)), abs=1e-9)
    factor = -(-max(array.shape) // MEASURED_SIDE)
    squares = picture(array).reduce(tuple(min(factor, n) for n in (array.shape[::-1])))
    expected = laplace(np.asarray(squares, np.float64), mode="nearest")
    assert abs(expected.mean()) < 1e-9
    assert measures.sharpness == pytest.approx(expected.var(), rel=1e-5, abs=1e-9)


def test_resolution_decides_little():
    small = photograph((240, 200))
    large = small.resize((1920, 1600), Image.Resampling.NEAREST)
    assert measure_picture(large).sharpness == pytest.approx(measure_picture(small).sharpness)


def test_colors_are_measured_by_their_luma():
    red, green = (measure_picture(Image.new("RGB", (3, 3), c)) for c in ((255, 0, 0), (0, 255, 0)))
    assert red.brightness == pytest.approx(0.299, abs=2e-3)
    assert green.brightness == pytest.approx(0.587, abs=2e-3)


def test_a_picture_that_was_saved_and_read_again():
    file = io.BytesIO()
    photograph().save(file, "PNG")
    with Image.open(file) as again:
        assert measure_picture(again) == measure_picture(photograph())


def test_texts():
    measures = measure_text("  Ein Wort,\nein Wort: 42!\n")
    assert measures.n_characters == 26 and measures.n_words == 5
    assert measures.word_length == (3 + 5 + 3 + 5 + 3) / 5
    assert measures.letter_fraction == 14 / 19
    assert measures.distinct_fraction == 4 / 5
    assert measure_text("\u4f60\u597d\u4e16\u754c")[:3] == (4, 1, 4)
    for empty in ("", " \n\t"):
        assert measure_text(empty) == (len(empty), 0, 0, 0, 0)


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_text_has_fractions_within_bounds(text):
    measures = measure_text(text)
    assert 0 <= measures.letter_fraction <= 1
    assert 0 <= measures.distinct_fraction <= 1
    assert measures.n_words == len(text.split()) <= measures.n_characters == len(text)
