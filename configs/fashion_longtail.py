"""The harder case: one domain, ten classes from 4,000 images down to 40, no duplicates."""

from ml_collections import ConfigDict

from jaxcurate.embed import Embedding
from jaxcurate.settings import Clustering, Sampling, Settings, to_config
from jaxcurate.sources import balanced, fashion_longtail

RECIPES = {"longtail": fashion_longtail, "balanced": balanced}


def get_config(recipe: str = "longtail") -> ConfigDict:
    if recipe not in RECIPES:
        raise ValueError(f"recipe {recipe!r} is not one of {', '.join(RECIPES)}")
    return to_config(
        Settings(
            title=f"Fashion-MNIST, {recipe}",
            source="tfds:weblike",
            recipe=RECIPES[recipe](seed=0),
            embed=Embedding("pca", n_components=128),
            cluster=Clustering(
                n_clusters=(1000, 100),
                n_resamples=(10, 10),
                n_per_cluster=(5, 5),
            ),
            sample=Sampling(size=500),
        )
    )
