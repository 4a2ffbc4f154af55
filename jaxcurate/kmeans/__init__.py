"""k-means on sharded rows: seeding, Lloyd's iterations, assignment."""

from jaxcurate.kmeans.fit import KMeans, kmeans

__all__ = ["KMeans", "kmeans"]
