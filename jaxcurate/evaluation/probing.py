"""All measures of frozen features on a labeled test set, by the probes that are named."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxcurate.evaluation import probe

PROBES = {"knn": probe.knn, "ridge": probe.ridge}
"""Classifiers of frozen features by name."""


def label_frequency(labels: np.ndarray) -> dict[str, int]:
    """Returns the number of rows of the pool with each label.

    Args:
        labels: label of each row of the pool, ``[n]``.

    Examples:
        >>> import numpy as np
        >>> label_frequency(np.array(["cat", "dog", "cat"]))
        {'cat': 2, 'dog': 1}
    """
    names, counts = np.unique(labels, return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def probe_all(
    train_x: np.ndarray,
    test_x: np.ndarray,
    train_labels: np.ndarray,
    test_labels: np.ndarray,
    test_domains: np.ndarray,
    frequency: Mapping[str, int],
    names: Sequence[str] = ("knn", "ridge"),
) -> dict[str, float]:
    """Returns all accuracies of frozen features by measure.

    Args:
        train_x: features of the probe set, float ``[n, d]``.
        test_x: features of the test set, float ``[m, d]``.
        train_labels: label of each item of the probe set, Unicode ``[n]``.
        test_labels: label of each item of the test set, Unicode ``[m]``.
        test_domains: domain of each item of the test set, Unicode ``[m]``.
        frequency: number of rows of the pool with each label, from :func:`label_frequency`.
        names: names of the probes, in :data:`PROBES`.

    Returns:
        Accuracy by measure: ``knn``, ``knn/DOMAIN``, ``knn/head``, ``knn/tail`` ...

    Examples:
        >>> import numpy as np
        >>> x, labels = np.eye(4), np.array(["cat", "dog", "eel", "fox"])
        >>> probe_all(x, x, labels, labels, np.array([""] * 4), {}, ["ridge"])
        {'ridge': 1.0}
    """
    known, classes = np.unique(np.concatenate([train_labels, test_labels]), return_inverse=True)
    train_y, test_y = np.split(classes, [len(train_labels)])
    domain_names, domains = np.unique(test_domains, return_inverse=True)
    is_head = _is_head(frequency, known)
    accuracies = {}
    for name in names:
        predicted = PROBES[name](train_x, train_y, test_x)
        accuracies[name] = probe.macro_accuracy(predicted, test_y, domains)
        if len(domain_names) > 1:
            for number, accuracy in probe.domain_accuracies(predicted, test_y, domains).items():
                accuracies[f"{name}/{domain_names[number]}"] = accuracy
        if is_head is not None:
            head = is_head[test_y]
            for part, rows in (("head", head), ("tail", ~head)):
                if rows.any():
                    accuracies[f"{name}/{part}"] = probe.macro_accuracy(
                        predicted[rows], test_y[rows], domains[rows]
                    )
    return accuracies


def _is_head(frequency: Mapping[str, int], known: np.ndarray) -> np.ndarray | None:
    """Returns whether the pool holds more of each known label than of the average label.

    Returns:
        bool ``[k]``; None where no label of the pool is 1.5 times as frequent as the average, so
        that there is neither head nor tail.
    """
    even = sum(frequency.values()) / max(1, len(frequency))
    if max(frequency.values(), default=0) < 1.5 * even or not frequency:
        return None
    return np.array([frequency.get(str(label), 0) > even for label in known])
