"""k-means on one or several devices: seeding, Lloyd's iterations, assignment of rows."""

from jaxcurate.kmeans.checkpoint import KMeansState
from jaxcurate.kmeans.fit import KMeansResult
from jaxcurate.kmeans.kmeans import kmeans

__all__ = ["KMeansResult", "KMeansState", "kmeans"]
