"""Parts of the labels by their frequency in the pool: head, middle and tail."""

from collections.abc import Mapping

import numpy as np


def label_frequency(labels: np.ndarray) -> dict[str, int]:
    """Returns the number of rows of the pool with each label.

    Args:
        labels: label of each row of the pool, ``[n]``.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation import label_frequency
        >>> label_frequency(np.array(["cat", "dog", "cat"]))
        {'cat': 2, 'dog': 1}
    """
    names, counts = np.unique(labels, return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def frequency_parts(frequency: Mapping[str, int], known: np.ndarray) -> dict[str, np.ndarray]:
    """Returns for each known label whether it belongs to the head, the middle and the tail.

    The head holds the labels that are more frequent in the pool than the average label, and the
    tail all others, also those that the pool lacks. The middle lies across both: it holds the
    labels of the middle third when the labels of the pool are sorted by frequency. Labels of equal
    frequency share their mean rank, so that they are in the middle together or not at all.

    Args:
        frequency: number of rows of the pool with each label, from :func:`label_frequency`.
        known: labels to report, ``[k]``.

    Returns:
        Part (``head``, ``middle``, ``tail``) to bool ``[k]``; empty where no label of the pool is
        1.5 times as frequent as the average, so that there is neither head nor tail.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation import frequency_parts
        >>> pool = {"cat": 80, "dog": 12, "eel": 5}
        >>> parts = frequency_parts(pool, np.array(["cat", "dog", "eel", "fox"]))
        >>> {name: part.tolist() for name, part in parts.items()}  # doctest: +NORMALIZE_WHITESPACE
        {'head': [True, False, False, False],
         'middle': [False, True, False, False],
         'tail': [False, True, True, True]}
    """
    counts = np.array(list(frequency.values()), np.int64)
    even = counts.sum() / max(1, len(counts))
    if not counts.any() or counts.max() < 1.5 * even:
        return {}
    pool = np.sort([n for label, n in frequency.items() if label])
    counts = np.array([frequency.get(str(label), 0) for label in known], np.int64)
    head = counts > even
    more = len(pool) - np.searchsorted(pool, counts, "right")
    equal = np.searchsorted(pool, counts, "right") - np.searchsorted(pool, counts, "left")
    place = (more + equal / 2) / max(1, len(pool))
    middle = (place >= 1 / 3) & (place < 2 / 3) & (equal > 0)
    return {"head": head, "middle": middle, "tail": ~head}
