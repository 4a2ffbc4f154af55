"""k-means on sharded rows: seeding, Lloyd's iterations, assignment."""

from jaxcurate.kmeans.fit import KMeans
from jaxcurate.kmeans.kmeans import kmeans

__all__ = ["KMeans", "kmeans"]
