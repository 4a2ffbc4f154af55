"""k-means on sharded rows: seeding, Lloyd's iterations, assignment."""

from jaxcurate.kmeans.fit import KMeansResult
from jaxcurate.kmeans.kmeans import kmeans

__all__ = ["KMeansResult", "kmeans"]
