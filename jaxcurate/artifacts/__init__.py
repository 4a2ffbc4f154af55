"""Artifacts that stages pass on, and their form on disk.

Subsets are exported by :mod:`jaxcurate.export`, because they need pyarrow.
"""

from jaxcurate.artifacts.files import DamagedError
from jaxcurate.artifacts.pool import Pool, make_pool, write_pool
from jaxcurate.artifacts.pool_files import Block
from jaxcurate.artifacts.pool_parts import join_pool
from jaxcurate.artifacts.tree import ClusterTree, Metric, SurplusWarning, TreeLevel

__all__ = [
    "Block",
    "ClusterTree",
    "DamagedError",
    "Metric",
    "Pool",
    "SurplusWarning",
    "TreeLevel",
    "join_pool",
    "make_pool",
    "write_pool",
]
