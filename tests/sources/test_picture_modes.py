"""Pictures of every mode, orientation and profile become what a viewer shows, on white."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from jaxcurate.sources.pictures import UndecodablePicture, as_rgb, decode, square, with_picture

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
GRAY = RGB[..., 0]


def encoded(picture, format="PNG", **more) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **more)
    return buffer.getvalue()


def rgb_of(data: bytes) -> np.ndarray:
    """Returns what `as_rgb` makes of an encoded picture, int ``[h, w, 3]``."""
    pixels = with_picture(data, lambda picture: np.asarray(as_rgb(picture)))
    assert pixels.dtype == np.uint8
    return pixels.astype(int)


def in_gray(values) -> np.ndarray:
    return np.repeat(np.asarray(values)[..., None], 3, axis=-1)


# --- with_picture -----------------------------------------------------------------------------


def test_the_size_and_the_mode_are_those_of_the_file(tmp_path):
    data = encoded(Image.fromarray(RGB))
    (tmp_path / "x").write_bytes(data)
    for file in (data, tmp_path / "x", str(tmp_path / "x")):
        assert with_picture(file, lambda picture: (picture.mode, picture.size)) == ("RGB", (8, 6))
    with pytest.raises(FileNotFoundError):
        with_picture(tmp_path / "none", lambda picture: picture)


def test_the_first_of_several_frames_is_decoded():
    frames = [Image.new("L", (4, 4), color) for color in (10, 200)]
    for format in ("GIF", "TIFF", "WEBP"):
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
        np.testing.assert_allclose(rgb_of(data), 10, atol=2)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation, format):
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :24], upright[16:, :24], upright[:16, 24:] = 250, 130, 60
    # The stored picture is such that a viewer, who turns it as EXIF says, sees it upright.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, 3),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), format, exif=exif)
    np.testing.assert_allclose(rgb_of(data), upright, atol=12)


# --- alpha, palettes and bits -----------------------------------------------------------------


def test_equal_pixels_are_equal_however_they_are_stored():
    gray = Image.fromarray(GRAY)
    opaque = [gray.convert(mode) for mode in ("RGB", "LA", "RGBA")]
    deep = Image.fromarray(GRAY.astype(np.uint16) * 257)
    for picture in (gray, deep, *opaque, gray.convert("RGB").quantize(256)):
        np.testing.assert_array_equal(rgb_of(encoded(picture)), in_gray(GRAY))
    for mode in ("RGB", "RGBA"):
        picture = Image.fromarray(RGB).convert(mode)
        np.testing.assert_array_equal(rgb_of(encoded(picture)), RGB)
    bits = (GRAY > 128).astype(np.uint8) * 255
    np.testing.assert_array_equal(
        rgb_of(encoded(Image.fromarray(bits).convert("1"))), in_gray(bits)
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_put_on_white(mode):
    picture = Image.new(mode, (3, 1), (100,) * (len(mode) - 1) + (255,))
    for x, alpha in enumerate((0, 51, 255)):
        picture.putpixel((x, 0), (100,) * (len(mode) - 1) + (alpha,))
    found = rgb_of(encoded(picture))
    np.testing.assert_allclose(found, in_gray([[255, 255 - 155 * 0.2, 100]]), atol=1)


def test_a_transparent_color_of_a_palette_is_white():
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    picture.putpalette([10, 20, 30, 0, 0, 0, 200, 100, 50])
    data = encoded(picture, transparency=1)
    assert rgb_of(data).tolist() == [[[10, 20, 30], [255, 255, 255], [200, 100, 50]]]
    gif = encoded(picture, "GIF", transparency=1)
    assert rgb_of(gif).tolist() == rgb_of(data).tolist()


def test_a_transparent_color_of_gray_in_8_and_16_bits_is_white():
    gray = np.array([[0, 100, 200]], np.uint8)
    for values, transparent in ((gray, 100), (gray.astype(np.uint16) * 257, 100 * 257)):
        data = encoded(Image.fromarray(values), transparency=transparent)
        assert rgb_of(data)[0, :, 0].tolist() == [0, 255, 200]
    deep = gray.astype(np.uint16) * 257
    deep[0, 2] += 1  # another color of 16 bits that is the same in 8
    data = encoded(Image.fromarray(deep), transparency=200 * 257)
    assert rgb_of(data)[0, :, 0].tolist() == [0, 100, 200]


@pytest.mark.parametrize("dtype", [np.uint16, ">u2"])
def test_sixteen_bits_are_scaled(dtype):
    values = np.array([[0, 257 * 7, 65535, 4095]], dtype)
    mode = "I;16" if dtype == np.uint16 else "I;16B"
    picture = Image.frombytes(mode, (4, 1), values.tobytes())
    assert rgb_of(encoded(picture, "TIFF"))[0, :, 1].tolist() == [0, 7, 255, 16]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0, 0.25, 1], np.float32, [0, 64, 255]),
        ([0, 0.25, 0.5], np.float32, [0, 64, 128]),
        ([0, 100, 255], np.float32, [0, 100, 255]),
        ([200, 700, 1200], np.float32, [0, 128, 255]),
        ([-1, 0, 1], np.float32, [0, 128, 255]),
        ([0, 1e30, 2e30], np.float32, [0, 128, 255]),
        ([0, np.nan, 1], np.float32, [0, 0, 255]),
        ([0, np.inf, 1], np.float32, [0, 0, 255]),
        ([5, 5, 5], np.float32, [5, 5, 5]),
        ([0, 100, 255], np.int32, [0, 100, 255]),
        ([0, 257 * 100, 65535], np.int32, [0, 100, 255]),
        ([0, 2**30, 2**31 - 1], np.int32, [0, 128, 255]),
        ([-(2**31), 0, 2**31 - 1], np.int32, [0, 128, 255]),
    ],
)
def test_32_bits_are_scaled(values, dtype, expected):
    data = encoded(Image.fromarray(np.array([values], dtype)), "TIFF")
    np.testing.assert_allclose(rgb_of(data)[0], in_gray(expected), atol=1)
    squared = with_picture(data, lambda picture: np.asarray(square(picture, 3, "squash")))
    np.testing.assert_allclose(squared[0].astype(int), in_gray(expected), atol=1)


def test_a_picture_without_any_number_is_refused():
    data = encoded(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF")
    with pytest.raises(UndecodablePicture, match="has no finite pixel"):
        decode(data, 2)


# --- profiles ---------------------------------------------------------------------------------


def fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def profile(kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A color profile of version 2, as the specification of the ICC lays it out."""
    tags = {b"desc": description("made here"), b"wtpt": xyz(0.9642, 1, 0.8249), **tags}
    start, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content + b"\0" * (-len(content) % 4)
    head = struct.pack(">4xI4s4s4s", 0x02100000, b"mntr", kind, b"XYZ ")
    head += struct.pack(">12s4s", b"\x07\xea" + b"\0\x01" * 2 + b"\0" * 6, b"acsp")
    head = struct.pack(">I", start + len(data)) + head.ljust(64, b"\0")
    head += fixed(0.9642) + fixed(1) + fixed(0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def description(text: str) -> bytes:
    data = text.encode() + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(data)) + data + b"\0" * 78


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))


def curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


PRIMARIES = {  # of sRGB, for a white of D50
    b"rXYZ": xyz(0.4361, 0.2225, 0.0139),
    b"gXYZ": xyz(0.3851, 0.7169, 0.0971),
    b"bXYZ": xyz(0.1431, 0.0606, 0.7141),
}
LINEAR = profile(b"RGB ", PRIMARIES | {f"{c}TRC".encode(): curve(1) for c in "rgb"})
SWAPPED = profile(
    b"RGB ",
    {
        b"rXYZ": PRIMARIES[b"gXYZ"],
        b"gXYZ": PRIMARIES[b"rXYZ"],
        b"bXYZ": PRIMARIES[b"bXYZ"],
        **{f"{c}TRC".encode(): curve(2.2) for c in "rgb"},
    },
)
LINEAR_GRAY = profile(b"GRAY", {b"kTRC": curve(1)})


def srgb_of_linear(values) -> np.ndarray:
    x = np.asarray(values) / 255
    return 255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA"])
def test_colors_of_a_profile_become_those_of_srgb(mode):
    picture = Image.fromarray(in_gray(np.full((4, 4), 51, np.uint8))).convert(mode)
    used = LINEAR_GRAY if mode in ("L", "LA") else LINEAR
    data = encoded(picture, icc_profile=used)
    expected = srgb_of_linear(51)  # a color of Pillow's palette
    assert expected > 120
    np.testing.assert_allclose(rgb_of(data), expected, atol=2)
    np.testing.assert_allclose(decode(data, 2).astype(int), expected, atol=2)


def test_primaries_of_a_profile_are_used_and_alpha_is_kept():
    picture = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    picture.putpixel((1, 0), (255, 0, 0, 0))
    data = encoded(picture, icc_profile=SWAPPED)
    np.testing.assert_allclose(rgb_of(data), [[[0, 255, 0], [255, 255, 255]]], atol=3)


def test_a_transparent_color_of_a_picture_with_a_profile_is_white():
    picture = Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8))
    data = encoded(picture, icc_profile=SWAPPED, transparency=(0, 0, 255))
    np.testing.assert_allclose(rgb_of(data), [[[0, 255, 0], [255, 255, 255]]], atol=3)


@pytest.mark.parametrize(
    "used", [b"junk", LINEAR[:200], LINEAR_GRAY, b"\0" * 500], ids=["junk", "cut", "gray", "zeros"]
)
def test_a_profile_that_cannot_be_used_is_ignored(used):
    data = encoded(Image.fromarray(RGB), icc_profile=used)
    np.testing.assert_array_equal(rgb_of(data), RGB)


def test_a_profile_of_srgb_changes_nothing():
    from PIL import ImageCms

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    np.testing.assert_array_equal(rgb_of(encoded(Image.fromarray(RGB), icc_profile=srgb)), RGB)


def test_cmyk_is_shown_as_it_is_printed():
    colors = {(0, 255, 255, 0): (255, 0, 0), (0, 0, 0, 0): (255,) * 3, (0, 0, 0, 255): (0,) * 3}
    for cmyk, rgb in colors.items():
        picture = Image.new("CMYK", (8, 8), cmyk)
        for data in (encoded(picture, "JPEG", quality=95), encoded(picture, "TIFF")):
            np.testing.assert_allclose(rgb_of(data), np.broadcast_to(rgb, (8, 8, 3)), atol=6)
            assert decode(data, 4).shape == (4, 4, 3)


def test_text_in_a_picture_is_not_a_profile():
    notes = PngImagePlugin.PngInfo()
    notes.add_text("icc_profile", "a text")
    np.testing.assert_array_equal(rgb_of(encoded(Image.fromarray(RGB), pnginfo=notes)), RGB)


# --- square -----------------------------------------------------------------------------------


def test_squash_keeps_everything_and_changes_the_aspect():
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 4:] = 200
    small = np.asarray(square(Image.fromarray(wide), 2, "squash"))
    assert small[..., 0].tolist() == [[0, 200], [0, 200]]


@pytest.mark.parametrize(("size", "shorter"), [(8, 8), (6, 8), (4, 8), (224, 256)])
def test_shorter_is_the_side_before_the_center_is_cropped(size, shorter):
    side = 2 * shorter
    ramp = np.broadcast_to(np.linspace(0, 255, 2 * side), (side, 2 * side)).astype(np.uint8)
    picture = Image.fromarray(ramp)
    found = np.asarray(square(picture, size, "crop", shorter=shorter)).astype(int)
    assert found.shape == (size, size, 3)
    # Resized to [shorter, 2 shorter], of which the central square of the size is left.
    resized = ramp.reshape(shorter, 2, 2 * shorter, 2).mean((1, 3))
    top, left = (shorter - size) // 2, (2 * shorter - size) // 2
    expected = resized[top : top + size, left : left + size]
    np.testing.assert_allclose(found[..., 0], expected, atol=1)
    if shorter == size:
        np.testing.assert_array_equal(found, np.asarray(square(picture, size)))


@pytest.mark.parametrize("filter", ["box", "bilinear", "bicubic", "lanczos"])
def test_filters_are_those_of_pillow_without_aliases(filter):
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8))
    found = np.asarray(square(picture, 16, filter=filter)).astype(int)
    direct = np.asarray(picture.resize((16, 16), Image.Resampling[filter.upper()])).astype(int)
    np.testing.assert_allclose(found, direct, atol=1)
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 200
    inner = np.asarray(square(Image.fromarray(stripes), 8, filter=filter))[:, 1:-1].astype(int)
    np.testing.assert_allclose(inner, 100, atol=3)


def test_pictures_smaller_than_the_square_are_enlarged():
    for fit in ("crop", "pad", "squash"):
        assert np.asarray(square(Image.new("L", (1, 1), 7), 5, fit)).tolist() == [[[7] * 3] * 5] * 5
    line = np.asarray(square(Image.new("L", (1, 100)), 10, "pad"))
    assert line.shape == (10, 10, 3) and (line.min(axis=(0, 2)) == 0).sum() == 1
