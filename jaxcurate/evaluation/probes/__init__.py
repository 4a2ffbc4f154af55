"""Probes of frozen features, a file each."""

from functools import partial

from jaxcurate.evaluation.probes.base import PROBES, Probe, ProbeTask, classifier
from jaxcurate.evaluation.probes.few_shot import few_shot, few_shot_scores
from jaxcurate.evaluation.probes.knn import knn
from jaxcurate.evaluation.probes.linear import linear
from jaxcurate.evaluation.probes.rank import rank
from jaxcurate.evaluation.probes.retrieval import average_precisions, retrieval
from jaxcurate.evaluation.probes.ridge import ridge

PROBES |= {
    "knn": Probe(classifier(knn), "k-NN"),
    "ridge": Probe(classifier(ridge), "ridge"),
    "linear": Probe(classifier(linear), "linear"),
    "few_shot_1": Probe(partial(few_shot_scores, n_shots=1), "1-shot"),
    "few_shot_5": Probe(partial(few_shot_scores, n_shots=5), "5-shot"),
    "few_shot_10": Probe(partial(few_shot_scores, n_shots=10), "10-shot"),
    "retrieval": Probe(retrieval, "retrieval mAP"),
    "rankme": Probe(rank, "RankMe", needs_labels=False),
}

__all__ = [
    "PROBES",
    "Probe",
    "ProbeTask",
    "average_precisions",
    "few_shot",
    "knn",
    "linear",
    "ridge",
]
