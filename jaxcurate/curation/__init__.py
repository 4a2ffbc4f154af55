"""Curation of arrays: hierarchical k-means, balanced sampling, deduplication, growth, batches."""

from jaxcurate.curation.agreement import Agreement, agreement
from jaxcurate.curation.baselines import flat, sample_flat, sample_uniform
from jaxcurate.curation.branch_refit import branches_to_refit, refit_branches
from jaxcurate.curation.checkpoint import TreeState
from jaxcurate.curation.dedup import content_digests, deduplicate
from jaxcurate.curation.duplicates import Duplicates, LargestGroup, summary_line
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
    "LargestGroup",
    "Leaks",
    "Level",
    "LevelDrift",
    "Mix",
    "Proposal",
    "ShortfallWarning",
    "TreeState",
    "agreement",
    "allocate",
    "branches_to_refit",
    "content_digests",
    "deduplicate",
    "drift",
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
    "summary_line",
]
