"""Artifacts that stages pass on, and their form on disk.

Subsets are exported by :mod:`jaxcurate.export`, because they need pyarrow.
"""

from jaxcurate.artifacts.files import DamagedError
from jaxcurate.artifacts.pool import Block, Pool, make_pool, write_pool
from jaxcurate.artifacts.tree import ClusterTree, Metric, SurplusWarning, TreeLevel

__all__ = [
    "Block",
    "ClusterTree",
    "DamagedError",
    "Metric",
    "Pool",
    "SurplusWarning",
    "TreeLevel",
    "make_pool",
    "write_pool",
]
