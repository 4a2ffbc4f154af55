"""Exact searches: the rows nearest to each query, and all pairs of rows that are close."""

from jaxcurate.neighbors.close_pairs import Pairs, close_pairs, neighboring_clusters
from jaxcurate.neighbors.nearest_rows import Neighbors, nearest_rows

__all__ = ["Neighbors", "Pairs", "close_pairs", "nearest_rows", "neighboring_clusters"]
