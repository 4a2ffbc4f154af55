"""Levels of DINOv3 for about 17 B images: 200 M, 8 M, 800 k, 100 k and 25 k clusters.

    jaxcurate run --config=dinov3_5levels:embeddings.npy --workdir=gs://bucket/web17b

The numbers of clusters are those of the paper. The other settings are choices of this project: the
splits of the two lowest levels (20 k clusters into 10 k parts each, 80 k into 100 each, so that no
k-means is more than a few times larger than the largest published one), ten rounds of resampling
above them, and half of the members of an average cluster for r. 1 B rows are kept;
--config.sample.size changes that.

Cost, counted and not measured: 70 TB of float32 at 1024 dimensions, and about 7e19 floating-point
operations: 400 chip-hours if a chip sustains 50 TFLOP/s.

Embeddings are read in chunks if they take more than memory_limit, here 1 TB. The seeding is
"k-means||", which takes six passes over the rows. In addition, by count, some 150 bytes a row
(2.6 TB) and a few copies of the centroids of level 1 (820 GB each) stay in memory: ids, labels and
centroids are not streamed, so that these settings need a machine with that much memory. With fewer
rows and clusters they can be tried anywhere.

Source: Simeoni et al., DINOv3, 2025, arXiv 2508.10104, section 3.1.
"""

from ml_collections import ConfigDict

from jaxcurate import Level
from jaxcurate.config import (
    ClusterConfig,
    Config,
    DedupConfig,
    EvaluateConfig,
    SampleConfig,
    to_config,
)


def get_config(path: str = "embeddings.npy") -> ConfigDict:
    return to_config(
        Config(
            title="17 B images, five levels",
            source=f"npy:{path}",
            dedup=DedupConfig(enabled=False),  # a pool of this size is deduplicated before
            cluster=ClusterConfig(
                levels=(
                    Level(20_000, n_splits=10_000),
                    Level(80_000, n_splits=100),
                    Level(800_000, 10, 5),
                    Level(100_000, 10, 4),
                    Level(25_000, 10, 2),
                ),
                init="k-means||",
            ),
            sample=SampleConfig(size=1_000_000_000),
            evaluate=EvaluateConfig(arms=()),
            memory_limit=1_000_000_000_000,
        )
    )
