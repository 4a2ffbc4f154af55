"""The published levels for web images: 743 M embeddings, four levels, 10 M clusters at the bottom.

    jaxcurate run --config=configs/web_4levels.py:embeddings.npy --workdir=gs://bucket/web

The file holds floats [743 M, 1024]. Level 1 is 100 k clusters, each split in 100, not resampled;
above it 500 k, 50 k and 10 k clusters with ten rounds of resampling. 100 M rows are kept;
--config.sample.size keeps another number, and a larger sample holds a smaller one.

Cost, by counting and not by measurement: 3 TB of float32, and about 1.4e19 floating-point
operations, two thirds of them at level 1 (fifty iterations over 743 M x 100 k x 1024): 80
chip-hours where a chip sustains 50 TFLOP/s.

The stages hold all embeddings in host memory as of now, so that this is for a machine that has as
much; the settings can be tried on fewer rows, with fewer clusters, anywhere.

Source: Vo et al., Automatic Data Curation for Self-Supervised Learning, 2024, arXiv 2405.15613.
"""

from ml_collections import ConfigDict

from jaxcurate.embed import Embedding
from jaxcurate.settings import Clustering, Evaluation, Sampling, Settings, to_config


def get_config(path: str = "embeddings.npy") -> ConfigDict:
    return to_config(
        Settings(
            title="Web images, four levels",
            source=f"npy:{path}",
            embed=Embedding("pixels"),
            cluster=Clustering(
                n_clusters=(100_000, 500_000, 50_000, 10_000),
                n_splits=(100, 1, 1, 1),
                n_resamples=(0, 10, 10, 10),
                n_per_cluster=(1, 10, 5, 3),
            ),
            sample=Sampling(size=100_000_000),
            evaluate=Evaluation(arms=()),
        )
    )
