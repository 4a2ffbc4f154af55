"""Comparison of subsets by pretraining and probes, and measures of how balanced they are."""

from jaxcurate.evaluation import draws
from jaxcurate.evaluation.accuracy import domain_accuracies, macro_accuracy
from jaxcurate.evaluation.arms import ARMS, Arm, EvaluateConfig
from jaxcurate.evaluation.balance import Balance, balance_of, gini, normalized_entropy
from jaxcurate.evaluation.coverage import (
    Coverage,
    LevelBalance,
    kl_to_uniform,
    level_balance,
    measure_coverage,
)
from jaxcurate.evaluation.frequency import frequency_parts, label_frequency
from jaxcurate.evaluation.intervals import Interval, holm, paired_interval
from jaxcurate.evaluation.other_tests import probe_other, split_by_id
from jaxcurate.evaluation.probes import (
    PROBES,
    Probe,
    ProbeTask,
    average_precisions,
    few_shot,
    knn,
    linear,
    ridge,
)
from jaxcurate.evaluation.probing import probe_all

ARMS |= {
    "curated": Arm(draws.curated, "the curated subset"),
    "random": Arm(draws.random, "a random subset of the same size"),
    "pool": Arm(draws.pool, "the whole pool"),
    "flat": Arm(draws.flat, "a subset balanced over one level alone"),
    "flat_plain": Arm(draws.flat_plain, "a subset balanced over clusters of plain k-means"),
    "stratified": Arm(draws.stratified, "the whole pool in batches balanced over the tree"),
    "deduplicated": Arm(draws.deduplicated, "a random subset of the rows without duplicates"),
    "mixed": Arm(draws.mixed, "a mixture of curated, retrieved and random rows"),
}

__all__ = [
    "ARMS",
    "PROBES",
    "Arm",
    "Balance",
    "Coverage",
    "EvaluateConfig",
    "Interval",
    "LevelBalance",
    "Probe",
    "ProbeTask",
    "average_precisions",
    "balance_of",
    "domain_accuracies",
    "few_shot",
    "frequency_parts",
    "gini",
    "holm",
    "kl_to_uniform",
    "knn",
    "label_frequency",
    "level_balance",
    "linear",
    "macro_accuracy",
    "measure_coverage",
    "normalized_entropy",
    "paired_interval",
    "probe_all",
    "probe_other",
    "ridge",
    "split_by_id",
]
