"""Data curation for self-supervised learning: hierarchical k-means and balanced sampling in JAX."""

from typing import TYPE_CHECKING, Any

from jaxcurate.artifacts.pool import Pool, make_pool
from jaxcurate.artifacts.tree import ClusterTree, TreeLevel
from jaxcurate.checks import InputError
from jaxcurate.curation.hierarchy import hierarchical_kmeans
from jaxcurate.curation.level import Level
from jaxcurate.curation.sampling import allocate, sample
from jaxcurate.kmeans import KMeansResult, kmeans
from jaxcurate.runtime.devices import Devices

if TYPE_CHECKING:
    from jaxcurate.pipeline.load import CuratedItems, load_subset

__all__ = [
    "ClusterTree",
    "CuratedItems",
    "Devices",
    "InputError",
    "KMeansResult",
    "Level",
    "Pool",
    "TreeLevel",
    "allocate",
    "hierarchical_kmeans",
    "kmeans",
    "load_subset",
    "make_pool",
    "sample",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports what needs all of the pipeline, which takes a second, when it is used."""
    if name in ("CuratedItems", "load_subset"):
        from jaxcurate.pipeline import load

        return getattr(load, name)
    raise AttributeError(f"module 'jaxcurate' has no attribute {name!r}")
