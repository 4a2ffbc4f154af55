"""Accuracies from predictions, and means of scores over classes and domains."""

import numpy as np

from jaxcurate.checks import InputError


def domain_accuracies(
    predicted: np.ndarray, labels: np.ndarray, domains: np.ndarray
) -> dict[int | str, float]:
    """Returns the macro accuracy of each domain: the mean of the accuracies on its classes.

    Args:
        predicted: ``[m]`` labels.
        labels: ``[m]`` true labels, of the same kind.
        domains: ``[m]`` numbers or names.

    Returns:
        Domain to accuracy, in sorted order of the domains.

    Raises:
        InputError: lengths differ, or there are no rows.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation import domain_accuracies
        >>> labels = np.array(["cat", "cat", "dog", "dog"])
        >>> predicted = np.array(["cat", "dog", "dog", "dog"])
        >>> domains = np.array(["photo", "photo", "photo", "sketch"])
        >>> domain_accuracies(predicted, labels, domains)
        {'photo': 0.75, 'sketch': 1.0}
    """
    predicted, labels, domains = (np.asarray(a) for a in (predicted, labels, domains))
    if not len(predicted) == len(labels) == len(domains):
        raise InputError(
            f"{len(predicted)} predicted, {len(labels)} labels and {len(domains)} domains: "
            "they must be as many"
        )
    if not len(labels):
        raise InputError("labels is empty: there is no accuracy to compute")
    return domain_means(predicted == labels, labels, domains)


def macro_accuracy(predicted: np.ndarray, labels: np.ndarray, domains: np.ndarray) -> float:
    """Returns the mean over domains of :func:`domain_accuracies`.

    Every domain has the same weight, and within it every class.

    Args:
        predicted: ``[m]`` labels.
        labels: ``[m]`` true labels, of the same kind.
        domains: ``[m]`` numbers or names.

    Raises:
        InputError: lengths differ, or there are no rows.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation import macro_accuracy
        >>> labels = np.array(["cat", "cat", "cat", "dog"])
        >>> macro_accuracy(np.array(["cat"] * 4), labels, np.zeros(4))
        0.5
    """
    return float(np.mean(list(domain_accuracies(predicted, labels, domains).values())))


def class_means(scores: np.ndarray, labels: np.ndarray) -> dict[int | str, float]:
    """Returns the mean score of each class, in sorted order of the labels.

    Args:
        scores: score of each row, ``[m]``: 1 or 0 for a prediction, or an average precision.
        labels: ``[m]`` true labels.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation.accuracy import class_means
        >>> class_means(np.array([1, 0, 1]), np.array(["cat", "cat", "dog"]))
        {'cat': 0.5, 'dog': 1.0}
    """
    known, classes = np.unique(labels, return_inverse=True)
    means = np.bincount(classes, np.asarray(scores, np.float64)) / np.bincount(classes)
    return dict(zip(known.tolist(), means.tolist(), strict=True))


def domain_means(
    scores: np.ndarray, labels: np.ndarray, domains: np.ndarray
) -> dict[int | str, float]:
    """Returns the mean over classes of the mean score, for each domain.

    Args:
        scores: score of each row, ``[m]``.
        labels: ``[m]`` true labels.
        domains: ``[m]`` numbers or names.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation.accuracy import domain_means
        >>> domain_means(np.array([1.0, 0.5, 0.0]), np.array([0, 0, 1]), np.array(["a"] * 3))
        {'a': 0.375}
    """
    means = {}
    for domain in np.unique(domains):
        inside = domains == domain
        by_class = class_means(scores[inside], labels[inside])
        means[domain.item()] = float(np.mean(list(by_class.values())))
    return means


def macro_mean(scores: np.ndarray, labels: np.ndarray, domains: np.ndarray) -> float:
    """Returns the mean over domains of :func:`domain_means`.

    Args:
        scores: score of each row, ``[m]``.
        labels: ``[m]`` true labels.
        domains: ``[m]`` numbers or names.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation.accuracy import macro_mean
        >>> macro_mean(np.array([1.0, 0.5, 0.0]), np.array([0, 0, 1]), np.array(["a", "b", "b"]))
        0.625
    """
    return float(np.mean(list(domain_means(scores, labels, domains).values())))
