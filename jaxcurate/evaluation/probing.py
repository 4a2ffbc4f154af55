"""All measures of frozen features on a labeled test set, by the probes that are named."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxcurate.checks import InputError, check_choice
from jaxcurate.evaluation.accuracy import class_means, domain_means, macro_mean
from jaxcurate.evaluation.frequency import frequency_parts, label_frequency
from jaxcurate.evaluation.probes import PROBES, ProbeTask

__all__ = ["DEFAULT", "check_labels", "check_probes", "label_frequency", "probe_all"]

DEFAULT = ("knn", "ridge")
"""Names of the probes that are used by default."""
RESERVED = ("head", "middle", "tail", "micro")
"""Names of measures, which no domain may have."""


def probe_all(
    train_x: np.ndarray,
    test_x: np.ndarray,
    train_labels: np.ndarray,
    test_labels: np.ndarray,
    test_domains: np.ndarray,
    frequency: Mapping[str, int],
    names: Sequence[str] = DEFAULT,
    *,
    per_class: bool = False,
) -> dict[str, float]:
    """Returns all measures of frozen features by name.

    Items without a label (``""``) are left out. An item of the test set with a label that the probe
    set lacks counts as wrong; :func:`check_labels` says how many there are.

    Args:
        train_x: features of the probe set, float ``[n, d]``.
        test_x: features of the test set, float ``[m, d]``.
        train_labels: label of each item of the probe set, Unicode ``[n]``.
        test_labels: label of each item of the test set, Unicode ``[m]``.
        test_domains: domain of each item of the test set, Unicode ``[m]``.
        frequency: number of rows of the pool with each label, from
            :func:`~jaxcurate.evaluation.frequency.label_frequency`; empty to measure head, middle
            and tail together.
        names: names of the probes, in :data:`~jaxcurate.evaluation.probes.base.PROBES`.
        per_class: add ``PROBE/class/LABEL`` for every label of the test set.

    Returns:
        Number by measure. ``PROBE`` is the macro mean of the scores of the test items: every domain
        has the same weight, and within it every class. ``PROBE/DOMAIN``, if there are several
        domains, is the macro mean of a domain. ``PROBE/head``, ``PROBE/middle`` and
        ``PROBE/tail`` are those of the labels in a part of
        :func:`~jaxcurate.evaluation.frequency.frequency_parts`. ``PROBE/micro`` is the mean over
        items. A probe of the features alone gives one number, ``PROBE``.

    Raises:
        InputError: a probe is unknown, labels cannot be used (see :func:`check_labels`), lengths
            differ, a domain has the name of a measure, or features are not finite.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation import probe_all
        >>> x, labels = np.eye(4), np.array(["cat", "dog", "eel", "fox"])
        >>> probe_all(x, x, labels, labels, np.array([""] * 4), {}, ["ridge"])
        {'ridge': 1.0, 'ridge/micro': 1.0}
    """
    check_probes(names)
    for part, arrays in (
        ("probe", (train_x, train_labels)),
        ("test", (test_x, test_labels, test_domains)),
    ):
        if len({len(array) for array in arrays}) > 1:
            shown = ", ".join(str(len(array)) for array in arrays)
            raise InputError(f"features, labels, domains of the {part} set differ in rows: {shown}")
    if any(PROBES[name].needs_labels for name in names):
        check_labels(train_labels, test_labels)
    train, test = train_labels != "", test_labels != ""
    known, classes = np.unique(
        np.concatenate([train_labels[train], test_labels[test]]), return_inverse=True
    )
    train_y, test_y = np.split(classes, [int(train.sum())])
    domains = test_domains[test]
    parts = _parts(frequency, known[test_y], domains)
    task = ProbeTask(_rows(train_x, train), train_y, _rows(test_x, test), test_y)
    measures: dict[str, float] = {}
    for name in names:
        if not PROBES[name].needs_labels:
            everything = ProbeTask(train_x, train_labels, test_x, test_labels)
            measures[name] = float(PROBES[name].score(everything))
            continue
        scores = np.asarray(PROBES[name].score(task))
        by_domain = domain_means(scores, test_y, domains)
        measures[name] = float(np.mean(list(by_domain.values())))
        if len(by_domain) > 1:
            measures |= {f"{name}/{domain}": mean for domain, mean in by_domain.items()}
        for part, rows in parts.items():
            measures[f"{name}/{part}"] = macro_mean(scores[rows], test_y[rows], domains[rows])
        measures[f"{name}/micro"] = float(np.mean(scores))
        if per_class:
            by_class = class_means(scores, known[test_y])
            measures |= {f"{name}/class/{label}": mean for label, mean in by_class.items()}
    return measures


def check_probes(names: Sequence[str]) -> None:
    """Refuses names of probes that are unknown or given twice.

    Args:
        names: names of probes, at least one.

    Raises:
        InputError: the message lists the known names.

    Examples:
        >>> from jaxcurate.evaluation.probing import check_probes
        >>> check_probes(("knn", "knn"))
        Traceback (most recent call last):
        jaxcurate.checks.InputError: probes=('knn', 'knn') names a probe twice
    """
    for name in names:
        check_choice("probes", name, PROBES)
    if not names:
        raise InputError(f"probes is empty; known: {', '.join(PROBES)}")
    if len(set(names)) < len(names):
        raise InputError(f"probes={tuple(names)} names a probe twice")


def check_labels(
    train_labels: np.ndarray, test_labels: np.ndarray, source: str = "the held-out items"
) -> list[str]:
    """Refuses labels that no probe can be fitted to or tested on.

    Args:
        train_labels: label of each item of the probe set, Unicode ``[n]``; ``""`` for none.
        test_labels: label of each item of the test set, Unicode ``[m]``.
        source: name of the items in messages.

    Returns:
        Sentences to tell the user: the numbers of items that have no label or, in the test set, one
        that the probe set lacks.

    Raises:
        InputError: a set has no items, or none with a label, or the probe set has one label only.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation.probing import check_labels
        >>> check_labels(np.array(["cat", "dog"]), np.array(["cat", "eel", "eel"]))
        ['the held-out items: 2 of 3 to test on have a label that the probe set lacks, the first \
'eel': they count as wrong']
        >>> check_labels(np.array(["", ""]), np.array(["cat"]))
        Traceback (most recent call last):
        jaxcurate.checks.InputError: the held-out items: none of 2 to fit probes to has a label
    """
    sentences = []
    for labels, purpose in ((train_labels, "to fit probes to"), (test_labels, "to test on")):
        if not len(labels):
            raise InputError(f"{source}: there are none {purpose}")
        n_without = int((labels == "").sum())
        if n_without == len(labels):
            raise InputError(f"{source}: none of {n_without} {purpose} has a label")
        if n_without:
            sentences.append(
                f"{source}: {n_without} of {len(labels)} {purpose} have no label and are left out"
            )
    known = np.unique(train_labels[train_labels != ""])
    if len(known) < 2:
        raise InputError(
            f"{source}: all to fit probes to have the label {str(known[0])!r}, and probes need two"
        )
    lacking = test_labels[(test_labels != "") & ~np.isin(test_labels, known)]
    if len(lacking):
        sentences.append(
            f"{source}: {len(lacking)} of {len(test_labels)} to test on have a label that the "
            f"probe set lacks, the first {str(lacking[0])!r}: they count as wrong"
        )
    return sentences


def _rows(x: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Returns the rows that are kept, without a copy if all are."""
    return x if kept.all() else x[kept]


def _parts(
    frequency: Mapping[str, int], labels: np.ndarray, domains: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns the test rows of each part by frequency, bool ``[m]``, without empty parts."""
    taken = sorted(set(RESERVED) & set(domains.tolist()))
    if taken and len(set(domains.tolist())) > 1:
        raise InputError(f"a domain is named {taken[0]!r}, which is the name of a measure")
    parts = frequency_parts(frequency, labels)
    return {name: rows for name, rows in parts.items() if rows.any()}
