"""Curation of arrays: filters, deduplication, hierarchical k-means, sampling, growth, batches."""

from jaxcurate.curation.agreement import Agreement, agreement
from jaxcurate.curation.baselines import flat, sample_flat, sample_uniform
from jaxcurate.curation.branch_refit import branches_to_refit, refit_branches
from jaxcurate.curation.checkpoint import TreeState
from jaxcurate.curation.dedup import content_digests, deduplicate
from jaxcurate.curation.duplicates import Duplicates, LargestGroup, summary_line
from jaxcurate.curation.filters import (
    FilterConfig,
    Filtered,
    Rule,
    filter_rows,
    similarity_to,
)
from jaxcurate.curation.growth import LevelDrift, drift, grow
from jaxcurate.curation.hierarchy import hierarchical_kmeans
from jaxcurate.curation.leaks import Leaks, leaks
from jaxcurate.curation.level import Level
from jaxcurate.curation.mixing import Mix, indices_of, mix
from jaxcurate.curation.sampling import ShortfallWarning, allocate, sample
from jaxcurate.curation.stratified_batches import Batches
from jaxcurate.curation.suggest_levels import Proposal, propose_levels

__all__ = [
    "Agreement",
    "Batches",
    "Duplicates",
    "FilterConfig",
    "Filtered",
    "LargestGroup",
    "Leaks",
    "Level",
    "LevelDrift",
    "Mix",
    "Proposal",
    "Rule",
    "ShortfallWarning",
    "TreeState",
    "agreement",
    "allocate",
    "branches_to_refit",
    "content_digests",
    "deduplicate",
    "drift",
    "filter_rows",
    "flat",
    "grow",
    "hierarchical_kmeans",
    "indices_of",
    "leaks",
    "mix",
    "propose_levels",
    "refit_branches",
    "sample",
    "sample_flat",
    "sample_uniform",
    "similarity_to",
    "summary_line",
]
