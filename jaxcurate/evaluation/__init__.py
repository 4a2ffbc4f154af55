"""Comparison of subsets by pretraining and probes, and measures of how balanced they are."""

from jaxcurate.evaluation import arms
from jaxcurate.evaluation.arms import ARMS, Arm, EvaluateConfig

ARMS |= {
    "curated": Arm(arms.curated, "the curated subset"),
    "random": Arm(arms.random, "a random subset of the same size"),
    "pool": Arm(arms.pool, "the whole pool"),
    "flat": Arm(arms.flat, "a subset balanced over one level alone"),
    "stratified": Arm(arms.stratified, "the whole pool in batches balanced over the tree"),
}

__all__ = ["ARMS", "Arm", "EvaluateConfig"]
