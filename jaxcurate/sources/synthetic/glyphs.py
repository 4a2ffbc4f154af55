"""Glyphs of fonts as pictures: a large, natural, long-tailed pool with held-out font families."""

import dataclasses
import functools
import os
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxcurate.checks import InputError
from jaxcurate.sources.pictures import encode_png
from jaxcurate.sources.synthetic.building import build, is_whole

NAME = "glyphs"
SIZES = (32, 64)
"""Sides of the pictures in pixels, each a configuration of the dataset."""
VERSION = "1.0.0"  # increase it when the same fonts give other items than before
_SUFFIXES = (".ttf", ".otf", ".ttc")
_KINDS = "LNS"
"""First letters of the Unicode categories that are rendered: letters, numbers and symbols."""
_MOST = 3000
"""Largest number of glyphs of a font file, so that a few huge fonts do not fill the pool."""
HELD_OUT = {"probe": ("Unifont", "DejaVu"), "test": ("FreeMono", "FreeSans", "FreeSerif")}
"""First words of the font families of each held-out split. They have many scripts each."""
_N_HELD_OUT = 10_000
"""Largest number of items of a held-out split."""


class Glyph(NamedTuple):
    """Character in a font file."""

    file: str
    """Path of the font file below the folder of the fonts."""
    face: int
    """Number of the font in its file."""
    family: str
    """Name of the font family."""
    code: int
    """Unicode code point."""

    @property
    def id(self) -> str:
        """Id of the picture."""
        face = f"#{self.face}" if self.face else ""
        return f"{self.file}{face}/U+{self.code:04X}"


def prepare(data_dir: str | os.PathLike, size: int | str = 32) -> Path:
    """Builds the dataset of all glyphs, unless it exists and is complete.

    Every letter, number and symbol of every font is a gray picture, the glyph centered in it. Its
    label is the code point, its domain the Unicode script, and its group the font family. Held-out
    families are in no other split, and only characters that both held-out splits have are in them.
    ``card.json`` lists fonts and glyphs that cannot be drawn under ``left_out``, with the reason.
    Families of other names may have copied glyphs; `config.dedup.leaks` finds such copies.

    Args:
        data_dir: folder of TFDS datasets, with the fonts of `scripts/fetch` in ``raw/glyphs/``.
        size: side of the pictures in pixels, 32 or 64.

    Returns:
        The folder of the dataset, ``data_dir/glyphs/SIZE/VERSION``, which TFDS can open.

    Raises:
        InputError: there are no fonts, those of held-out families are missing, or the size is not
            known.
    """
    if str(size) not in map(str, SIZES):
        raise InputError(f"tfds:{NAME}/{size} is not known; sizes are {', '.join(map(str, SIZES))}")
    folder = Path(data_dir) / NAME / str(size) / VERSION
    if not is_whole(folder):
        fonts = Path(data_dir) / "raw" / NAME
        if not (fonts / ".whole").exists():
            raise InputError(f"no fonts in {fonts}: run scripts/fetch --only {NAME}")
        left_out: dict[str, str] = {}  # filled by the builder before the card is written
        card = {"size": int(size), "left_out": left_out}
        build(folder, builder_class(), _config(int(size), fonts, left_out), card)
    return folder


def glyphs_in(fonts: str | os.PathLike) -> tuple[list[Glyph], list[tuple[str, str]]]:
    """Returns the glyphs of all font files, and the files that cannot be used, with the reason.

    Args:
        fonts: folder of the fonts.
    """
    found, left_out = [], []
    paths = sorted(path for path in Path(fonts).rglob("*") if path.suffix.lower() in _SUFFIXES)
    for path in paths:
        file = path.relative_to(fonts).as_posix()
        if "UI" in path.stem and path.stem.startswith("Noto"):
            left_out.append((file, "a variant for user interfaces, equal but for its height"))
            continue
        try:
            found += _glyphs_of(path, file)
        except Exception as error:  # font files are damaged in many ways
            left_out.append((file, str(error) or type(error).__name__))
    return found, left_out


def split_by_family(glyphs: list[Glyph]) -> dict[str, list[Glyph]]:
    """Returns the glyphs of each split: the pool, and held-out families.

    Args:
        glyphs: all glyphs.

    Returns:
        ``{"train": pool, "probe": ..., "test": ...}``.

    Raises:
        InputError: a held-out split has no character in common with the other.

    Examples:
        >>> families = ("Lato", "DejaVu Sans", "FreeSans")
        >>> glyphs = [Glyph(f"{name}.ttf", 0, name, 65) for name in families]
        >>> {split: part[0].family for split, part in split_by_family(glyphs).items()}
        {'train': 'Lato', 'probe': 'DejaVu Sans', 'test': 'FreeSans'}
    """
    splits: dict[str, list[Glyph]] = {"train": [], "probe": [], "test": []}
    for glyph in glyphs:
        held_out = [split for split, names in HELD_OUT.items() if glyph.family.startswith(names)]
        splits[held_out[0] if held_out else "train"].append(glyph)
    common = {glyph.code for glyph in splits["probe"]} & {glyph.code for glyph in splits["test"]}
    if not common:
        raise InputError(
            f"tfds:{NAME} needs the packages fonts-unifont or fonts-dejavu-core, and "
            "fonts-freefont-ttf, whose families are held out"
        )
    for split in HELD_OUT:
        known = [glyph for glyph in splits[split] if glyph.code in common]
        # All glyphs of a character are taken or none, so that both splits have the same ones.
        known.sort(key=lambda glyph: (zlib.crc32(str(glyph.code).encode()), glyph))
        splits[split] = sorted(known[:_N_HELD_OUT])
    return splits


def render(font: ImageFont.FreeTypeFont, character: str, size: int) -> np.ndarray | None:
    """Returns a picture of a character, white on black and centered, or None if it is blank.

    Args:
        font: the font, in the height to draw in.
        character: the character.
        size: side of the picture in pixels.

    Returns:
        uint8 ``[size, size]``.
    """
    left, top, right, bottom = font.getbbox(character)
    if right <= left or bottom <= top:
        return None
    picture = Image.new("L", (size, size))
    place = (size - left - right) / 2, (size - top - bottom) / 2
    ImageDraw.Draw(picture).text(place, character, fill=255, font=font)
    pixels = np.asarray(picture)
    return pixels if pixels.any() else None


@functools.cache
def builder_class() -> type:
    """Returns the class of the TFDS builder, and imports TFDS only when it is called."""
    import tensorflow_datasets as tfds

    class Glyphs(tfds.core.GeneratorBasedBuilder):
        """Letters, numbers and symbols of free fonts, with held-out font families."""

        VERSION = tfds.core.Version(VERSION)
        BUILDER_CONFIGS = ()

        def _info(self) -> tfds.core.DatasetInfo:
            config: Any = self.builder_config
            text = tfds.features.Text
            shape = (config.size, config.size, 1)
            features = tfds.features.FeaturesDict(
                {
                    "id": text(),
                    "image": tfds.features.Image(shape=shape, encoding_format="png"),
                    "label": text(),
                    "domain": text(),
                    "group": text(),
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features, description=self.__doc__)

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
            config: Any = self.builder_config
            glyphs, left_out = glyphs_in(config.fonts)
            config.left_out.update(left_out)
            if not glyphs:
                raise InputError(f"no glyph in {config.fonts}: {len(left_out)} files left out")
            splits = split_by_family(glyphs)
            return {split: self._generate_examples(part) for split, part in splits.items()}

        def _generate_examples(self, part: list[Glyph]) -> Iterator[tuple[str, dict[str, Any]]]:
            from fontTools.unicodedata import script, script_name

            config: Any = self.builder_config
            opened, font = None, None
            for glyph in part:
                if opened != glyph[:2]:
                    opened = glyph[:2]
                    font = _font(config.fonts / glyph.file, glyph.face, config.size)
                    if font is None:
                        config.left_out[glyph.file] = "no outlines"
                try:
                    pixels = None if font is None else render(font, chr(glyph.code), config.size)
                except OSError as error:  # FreeType refuses the program of the glyph
                    config.left_out[glyph.id] = str(error)
                    continue
                if pixels is None:
                    continue
                yield (
                    glyph.id,
                    {
                        "id": glyph.id,
                        "image": encode_png(pixels),
                        "label": f"U+{glyph.code:04X}",
                        "domain": script_name(script(chr(glyph.code))),
                        "group": glyph.family,
                    },
                )

    return Glyphs


def _config(size: int, fonts: Path, left_out: dict[str, str]) -> Any:
    import tensorflow_datasets as tfds

    @dataclasses.dataclass(eq=False)
    class GlyphsConfig(tfds.core.BuilderConfig):
        size: int = 32
        fonts: Path | None = None
        left_out: dict[str, str] = dataclasses.field(default_factory=dict)

    return GlyphsConfig(name=str(size), size=size, fonts=fonts, left_out=left_out)


def _font(path: Path, face: int, size: int) -> ImageFont.FreeTypeFont | None:
    """Returns a font of three quarters of the picture's height, or None if it has no outlines."""
    try:
        return ImageFont.truetype(path, size * 3 // 4, face, layout_engine=ImageFont.Layout.BASIC)
    except OSError:
        return None


def _glyphs_of(path: Path, file: str) -> list[Glyph]:
    """Returns at most 3,000 glyphs of a font file, drawn by their code points alone."""
    from fontTools.ttLib import TTCollection, TTFont

    found = []
    is_collection = path.suffix.lower() == ".ttc"
    with path.open("rb") as stream:  # closed here even if the file is no font
        opened = TTCollection(stream).fonts if is_collection else [TTFont(stream, lazy=True)]
        for face, font in enumerate(opened):
            names = font["name"]
            family = names.getDebugName(16) or names.getDebugName(1) or path.stem
            codes = [code for code in font.getBestCmap() or () if _is_rendered(code)]
            codes.sort(key=lambda code: zlib.crc32(str(code).encode()))
            found += [Glyph(file, face, family, code) for code in sorted(codes[:_MOST])]
    if not found:
        raise InputError("no letter, number or symbol")
    return found


def _is_rendered(code: int) -> bool:
    return unicodedata.category(chr(code))[0] in _KINDS
