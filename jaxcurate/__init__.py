"""Data curation for self-supervised learning: hierarchical k-means and balanced sampling in JAX."""

from jaxcurate.artifacts.pool import Pool, make_pool
from jaxcurate.artifacts.tree import ClusterTree, TreeLevel
from jaxcurate.checks import InputError
from jaxcurate.curation.hierarchy import hierarchical_kmeans
from jaxcurate.curation.level import Level
from jaxcurate.curation.sampling import allocate, sample
from jaxcurate.kmeans import KMeansResult, kmeans
from jaxcurate.runtime.devices import Devices

__all__ = [
    "ClusterTree",
    "Devices",
    "InputError",
    "KMeansResult",
    "Level",
    "Pool",
    "TreeLevel",
    "allocate",
    "hierarchical_kmeans",
    "kmeans",
    "make_pool",
    "sample",
]
__version__ = "0.1.0"
