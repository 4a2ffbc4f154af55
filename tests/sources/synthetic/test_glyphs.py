"""Glyphs of fonts: what is rendered, and families that are held out."""

import io
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageFont

from jaxcurate.artifacts.folders import read_card
from jaxcurate.checks import InputError
from jaxcurate.sources import open_source
from jaxcurate.sources.synthetic import glyphs

DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
SERIF = DEJAVU.with_name("STIXGeneral.ttf")


@pytest.fixture
def fonts(tmp_path):
    """Fonts as scripts/fetch leaves them: one of the pool, one held out, and a broken one."""
    folder = tmp_path / "raw" / "glyphs"
    for package in ("fonts-a", "fonts-b"):
        (folder / package).mkdir(parents=True)
    shutil.copy(SERIF, folder / "fonts-a")
    shutil.copy(DEJAVU, folder / "fonts-b")
    (folder / "fonts-b" / "broken.otf").write_bytes(b"no font")
    (folder / ".whole").touch()
    return folder


def test_every_letter_number_and_symbol_is_found_once(fonts, monkeypatch):
    largest, _ = glyphs.glyphs_in(fonts)
    assert max(np.unique([glyph.file for glyph in largest], return_counts=True)[1]) == 3000
    monkeypatch.setattr(glyphs, "_MOST", 10_000)
    found, left_out = glyphs.glyphs_in(fonts)
    assert [file for file, _ in left_out] == ["fonts-b/broken.otf"]
    assert len({glyph.id for glyph in found}) == len(found) > 2000
    codes = {glyph.code for glyph in found if glyph.family == "DejaVu Sans"}
    assert {ord("a"), ord("7"), ord("+"), ord("\u0416")} <= codes
    assert not codes & {ord(" "), ord("."), 0x300}  # a space, punctuation, an accent


def test_a_glyph_is_centered_and_whole():
    font = ImageFont.truetype(DEJAVU, 24)
    for character in "Wj|":
        picture = glyphs.render(font, character, 32)
        rows, columns = np.nonzero(picture > 32)
        assert abs(rows.min() + rows.max() - 31) <= 3, character
        assert abs(columns.min() + columns.max() - 31) <= 3, character
    assert glyphs.render(font, " ", 32) is None


def test_families_are_held_out(fonts, tmp_path, monkeypatch):
    monkeypatch.setattr(glyphs, "_MOST", 60)
    with pytest.raises(InputError, match="fonts-freefont-ttf"):
        open_source("tfds:glyphs", data_dir=tmp_path)
    monkeypatch.setattr(glyphs, "HELD_OUT", {"probe": ("DejaVu",), "test": ("DejaVu",)})
    with pytest.raises(InputError, match="held out"):
        open_source("tfds:glyphs", data_dir=tmp_path)
    held_out = {"probe": ("DejaVu Sans",), "test": ("DejaVu Serif",)}
    monkeypatch.setattr(glyphs, "HELD_OUT", held_out)
    shutil.copy(DEJAVU.with_name("DejaVuSerif.ttf"), fonts / "fonts-b")
    splits = {
        split: open_source("tfds:glyphs", split=split, data_dir=tmp_path)
        for split in ("train", "probe", "test")
    }
    notes = {split: of.annotations(range(len(of))) for split, of in splits.items()}
    assert set(notes["probe"].label) == set(notes["test"].label)
    assert 0 < len(splits["probe"]) <= 60
    first = splits["train"].read(0)
    assert first.id.startswith("fonts-a/STIXGeneral.ttf/U+")
    assert Image.open(io.BytesIO(first.content)).size == (32, 32)
    assert "Latin" in notes["train"].domain
    assert len(open_source("tfds:glyphs/64", data_dir=tmp_path)) == len(splits["train"])


def test_a_glyph_that_cannot_be_drawn_is_left_out_and_listed(fonts, tmp_path, monkeypatch):
    monkeypatch.setattr(glyphs, "_MOST", 60)
    families = {"probe": ("DejaVu Sans",), "test": ("DejaVu Serif",)}
    monkeypatch.setattr(glyphs, "HELD_OUT", families)
    shutil.copy(DEJAVU.with_name("DejaVuSerif.ttf"), fonts / "fonts-b")
    drawn, refused = glyphs.render, []

    def render(font, character, size):
        if font.getname()[0] == "STIXGeneral" and not refused:
            refused.append(f"U+{ord(character):04X}")
            raise OSError("invalid opcode")
        return drawn(font, character, size)

    monkeypatch.setattr(glyphs, "render", render)
    pool = open_source("tfds:glyphs", data_dir=tmp_path)
    assert 0 < len(pool) < 60
    card = read_card(tmp_path / "glyphs" / "32" / glyphs.VERSION)
    assert card["left_out"].pop(f"fonts-a/STIXGeneral.ttf/{refused[0]}") == "invalid opcode"
    assert list(card["left_out"]) == ["fonts-b/broken.otf"]


def test_bad_input_is_one_line(tmp_path):
    with pytest.raises(InputError, match="scripts/fetch --only glyphs"):
        open_source("tfds:glyphs", data_dir=tmp_path)
    with pytest.raises(InputError, match="sizes are 32, 64"):
        open_source("tfds:glyphs/33", data_dir=tmp_path)
