"""Web-like pool with a diverse head: no near-duplicates, and a small tail of three other domains.

It has 20,000 distinct Fashion-MNIST images, 200 digits, 600 pieces of clip art and 200 emoji
(`jaxcurate/sources/synthetic/recipe.py`): the pool of `configs/weblike.py` with a head that no
removal of near-duplicates makes smaller. 500 of the 21,000 items are kept.

    scripts/fetch
    .venv/bin/jaxcurate run --config=configs/weblike_diverse.py --workdir=runs/weblike_diverse

About 5 minutes on two CPU cores, most of it for 15 pretrainings. `scripts/evidence/README.md` has
the results.
"""

from ml_collections import ConfigDict

from jaxcurate import Level
from jaxcurate.config import ClusterConfig, Config, DedupConfig, SampleConfig, to_config
from jaxcurate.encoders import EmbedConfig
from jaxcurate.sources import web_like_diverse


def get_config() -> ConfigDict:
    return to_config(
        Config(
            title="A web-like pool with a diverse head",
            source="tfds:weblike",
            recipe=web_like_diverse(seed=0),
            embed=EmbedConfig("pca", n_components=128),
            dedup=DedupConfig(enabled=False),  # as in weblike.py
            cluster=ClusterConfig(
                levels=(Level(1000, 10, 10), Level(100, 10, 5)),
            ),
            sample=SampleConfig(size=500),
        )
    )
