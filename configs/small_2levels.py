"""Published small example: 100 k embeddings of 256 dimensions, levels of 5000 and 1000 clusters.

    .venv/bin/jaxcurate run --config=configs/small_2levels.py:embeddings.npy --workdir=runs/small

The file holds floats [100 k, 256]. Other sizes work too, and configs/auto.py proposes levels for
them. There are ten rounds of resampling with 10 and 3 rows a cluster. 10 k rows are kept.

Cost, counted and not measured: 100 MB of float32, and at most 1e14 floating-point operations: some
ten minutes on two CPU cores, seconds on an accelerator.

Source: Vo et al., Automatic Data Curation for Self-Supervised Learning, 2024, arXiv 2405.15613.
"""

from ml_collections import ConfigDict

from jaxcurate import Level
from jaxcurate.config import ClusterConfig, Config, EvaluateConfig, SampleConfig, to_config


def get_config(path: str = "embeddings.npy") -> ConfigDict:
    return to_config(
        Config(
            title="A small example, two levels",
            source=f"npy:{path}",
            cluster=ClusterConfig(
                levels=(Level(5000, 10, 10), Level(1000, 10, 3)),
            ),
            sample=SampleConfig(size=10_000),
            evaluate=EvaluateConfig(arms=()),
        )
    )
