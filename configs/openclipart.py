"""A thousand of the 8,100 pieces of Open Clip Art, by features of ImageNet at 224 pixels.

A real pool: public-domain pictures in 22 folders of 2,158 to 3 files, 1,220 of them links to
others, with transparency and three files that cannot be opened.

    scripts/fetch --only clipart
    jaxcurate run --config=openclipart --workdir=runs/openclipart

The subset is exported as links to the original files, with a list of them.
"""

import os

from ml_collections import ConfigDict

from jaxcurate import Level
from jaxcurate.config import (
    ClusterConfig,
    Config,
    EvaluateConfig,
    ExportConfig,
    SampleConfig,
    to_config,
)


def get_config() -> ConfigDict:
    data = os.environ.get("JAXCURATE_DATA") or "data"
    return to_config(
        Config(
            title="Open Clip Art",
            source=f"folder:{data}/raw/clipart/png",
            cluster=ClusterConfig(levels=(Level(700, 10, 5), Level(70, 10, 5)), metric="cosine"),
            sample=SampleConfig(size=1000),
            export=ExportConfig(format="list,link"),
            evaluate=EvaluateConfig(arms=()),
        )
    )
