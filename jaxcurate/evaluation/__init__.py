"""Comparison of subsets by pretraining and probes, and measures of how balanced they are."""

from jaxcurate.evaluation import arms
from jaxcurate.evaluation.arms import ARMS, Arm, EvaluateConfig
from jaxcurate.evaluation.balance import Balance, balance_of, gini, normalized_entropy
from jaxcurate.evaluation.compare import Interval, paired_interval
from jaxcurate.evaluation.coverage import (
    Coverage,
    LevelBalance,
    kl_to_uniform,
    level_balance,
    measure_coverage,
)
from jaxcurate.evaluation.probe import domain_accuracies, knn, macro_accuracy, ridge

ARMS |= {
    "curated": Arm(arms.curated, "the curated subset"),
    "random": Arm(arms.random, "a random subset of the same size"),
    "pool": Arm(arms.pool, "the whole pool"),
    "flat": Arm(arms.flat, "a subset balanced over one level alone"),
    "stratified": Arm(arms.stratified, "the whole pool in batches balanced over the tree"),
}

__all__ = [
    "ARMS",
    "Arm",
    "Balance",
    "Coverage",
    "EvaluateConfig",
    "Interval",
    "LevelBalance",
    "balance_of",
    "domain_accuracies",
    "gini",
    "kl_to_uniform",
    "knn",
    "level_balance",
    "macro_accuracy",
    "measure_coverage",
    "normalized_entropy",
    "paired_interval",
    "ridge",
]
