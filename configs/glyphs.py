"""Glyphs of free fonts: a large, natural pool with a long tail of scripts, and no copies to remove.

Each letter, number and symbol of every font is a picture of 32 x 32 pixels; a character comes up
in hundreds of fonts, and most of the pool is Latin, Greek, Cyrillic and Chinese. Labels are
characters, domains are scripts, and the held-out splits are fonts of other families.

    scripts/fetch --only glyphs
    .venv/bin/jaxcurate run --config=configs/glyphs.py --workdir=runs/glyphs

The fonts are 1.4 GB. `FONTS="fonts-dejavu-core fonts-noto-core" scripts/fetch --only glyphs` takes
those of some packages. `--config.source=tfds:glyphs/64` draws them in 64 x 64 pixels.
"""

from ml_collections import ConfigDict

from jaxcurate import Level
from jaxcurate.config import ClusterConfig, Config, SampleConfig, to_config
from jaxcurate.encoders import EmbedConfig


def get_config() -> ConfigDict:
    return to_config(
        Config(
            title="Glyphs of free fonts",
            source="tfds:glyphs",
            embed=EmbedConfig("pca", n_components=64),
            cluster=ClusterConfig(levels=(Level(3000, 3, 30), Level(300, 3, 5))),
            sample=SampleConfig(size=5000),
        )
    )
