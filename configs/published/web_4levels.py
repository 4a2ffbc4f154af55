"""Published levels for web images: 743 M embeddings, four levels, 10 M clusters at the bottom.

    jaxcurate run --config=web_4levels:embeddings.npy --workdir=gs://bucket/web

The file holds floats [743 M, 1024]. Level 1 has 100 k clusters, each split into 100, without
resampling. The levels above have 500 k, 50 k and 10 k clusters, with ten rounds of resampling.
100 M rows are kept; --config.sample.size changes that, and a larger sample contains a smaller one.

Cost, counted and not measured: 3 TB of float32, and about 1.4e19 floating-point operations, two
thirds of them at level 1 (fifty iterations over 743 M x 100 k x 1024): 80 chip-hours if a chip
sustains 50 TFLOP/s.

Embeddings are read in chunks if they take more than memory_limit, here 100 GB. Set it to the memory
of host and devices, or to None if all embeddings fit. In addition, by count, some 150 bytes a row
(ids, labels, distances, sorted copies; 110 GB) and a few copies of the centroids of level 1 (41 GB
each) stay in memory. Every iteration is a pass over the file. The seeding is therefore "k-means||",
which takes six passes, and not "k-means++", which takes one for each of 100 k centroids. On gs://
the pool is written and read through a temporary file, for which $TMPDIR needs as much space as the
embeddings take. With fewer rows and clusters these settings can be tried anywhere.

Source: Vo et al., Automatic Data Curation for Self-Supervised Learning, 2024, arXiv 2405.15613.
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
            title="Web images, four levels",
            source=f"npy:{path}",
            dedup=DedupConfig(enabled=False),  # a pool of this size is deduplicated before
            cluster=ClusterConfig(
                levels=(
                    Level(100_000, n_splits=100),
                    Level(500_000, 10, 10),
                    Level(50_000, 10, 5),
                    Level(10_000, 10, 3),
                ),
                init="k-means||",
            ),
            sample=SampleConfig(size=100_000_000),
            evaluate=EvaluateConfig(arms=()),
            memory_limit=100_000_000_000,
        )
    )
