"""A web-like pool: a crushing head of near-duplicates and a thin tail of three other domains."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    c = ConfigDict()
    c.title = "A web-like pool"
    c.seed = 0
    c.n_devices = 0
    c.items = ConfigDict({"source": "tfds:weblike", "data_dir": "", "image_size": 32})
    c.embed = ConfigDict({"encoder": "pca", "n_components": 128})
    c.cluster = ConfigDict(
        {"n_clusters": (1000, 100), "n_resamples": (10, 10), "n_per_cluster": (10, 5)}
    )
    c.sample = ConfigDict({"size": 500})
    c.evaluate = ConfigDict({"n_seeds": 5, "arms": ("curated", "random", "pool")})
    c.evaluate.pretraining = ConfigDict({"n_steps": 300})
    return c
