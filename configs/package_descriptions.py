"""Five thousand of the descriptions of Debian packages, by sentence embeddings.

    scripts/fetch --only descriptions,minilm
    pip install tokenizers
    jaxcurate run --config=package_descriptions --workdir=runs/package_descriptions

Descriptions come from apt's lists. Their sections are labels, which only the evaluation would read.
"""

import os

from ml_collections import ConfigDict

from jaxcurate import Level
from jaxcurate.config import (
    ClusterConfig,
    Config,
    EmbedConfig,
    EvaluateConfig,
    ExportConfig,
    SampleConfig,
    to_config,
)


def get_config() -> ConfigDict:
    data = os.environ.get("JAXCURATE_DATA") or "data"
    return to_config(
        Config(
            title="Descriptions of Debian packages",
            source=f"text:{data}/raw/descriptions/descriptions.jsonl",
            label_key="section",
            embed=EmbedConfig("bert", weights=f"{data}/raw/minilm"),
            cluster=ClusterConfig(levels=(Level(3000, 10, 10), Level(300, 10, 5))),
            sample=SampleConfig(size=5000),
            export=ExportConfig("list,parquet"),
            evaluate=EvaluateConfig(arms=()),
        )
    )
