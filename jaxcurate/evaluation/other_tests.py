"""Probes on labeled sources other than the held-out splits of the pool."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxcurate.checks import InputError, check_name
from jaxcurate.evaluation.probing import DEFAULT, probe_all
from jaxcurate.stateless_random import keys_of, priorities

_STREAM = 9
"""Stream of the random numbers of the split, apart from other draws from the same ids."""


def parse_tests(entries: Sequence[str]) -> dict[str, str]:
    """Returns the specification of each source by its name, from entries ``NAME=SOURCE``.

    Args:
        entries: such as ``("cars=folder:/data/cars", "flowers=tfds:oxford_flowers102")``.

    Raises:
        InputError: an entry is not ``NAME=SOURCE``, a name cannot name a folder, or is there twice.

    Examples:
        >>> from jaxcurate.evaluation.other_tests import parse_tests
        >>> parse_tests(["cars=folder:/data/cars"])
        {'cars': 'folder:/data/cars'}
    """
    tests: dict[str, str] = {}
    for entry in entries:
        name, equals, source = entry.partition("=")
        if not (name and equals and source):
            raise InputError(f"extra_tests: {entry!r} is not NAME=SOURCE")
        check_name(name)
        if name in tests:
            raise InputError(f"extra_tests: {name!r} is the name of two sources")
        tests[name] = source
    return tests


def split_by_id(ids: np.ndarray, labels: np.ndarray, fraction: float = 0.5) -> np.ndarray:
    """Returns which items of a labeled source probes are fitted to; the others are tested on.

    Items are split within each label by a hash of their ids, so that the split depends neither on
    their order nor on the encoder. At least one item of each label is fitted to, so that a label
    with a single item is not tested.

    Args:
        ids: distinct ids, Unicode or whole numbers ``[n]``.
        labels: label of each item, ``[n]``.
        fraction: fraction of the items that probes are fitted to, above 0 and below 1.

    Returns:
        bool ``[n]``.

    Raises:
        InputError: ids are given twice, lengths differ, or the fraction is out of range.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation import split_by_id
        >>> labels = np.array(["cat"] * 4 + ["dog"] * 3 + ["eel"])
        >>> fitted = split_by_id(np.arange(8), labels)
        >>> labels[fitted].tolist()
        ['cat', 'cat', 'dog', 'dog', 'eel']
    """
    if not 0 < fraction < 1:
        raise InputError(f"fraction={fraction} must be above 0 and below 1")
    if len(ids) != len(labels):
        raise InputError(f"{len(ids)} ids and {len(labels)} labels: they must be as many")
    _, classes = np.unique(labels, return_inverse=True)
    order = np.lexsort((priorities(keys_of(ids), 0, _STREAM), classes))
    ordered = classes[order]
    place = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    counts = np.bincount(classes)
    # Half of an item goes to the probe set.
    fitted = np.zeros(len(labels), bool)
    fitted[order] = place < np.ceil(fraction * counts - 1e-9)[ordered]
    return fitted


def probe_other(
    name: str,
    features: np.ndarray,
    labels: np.ndarray,
    domains: np.ndarray,
    ids: np.ndarray,
    frequency: Mapping[str, int],
    probes: Sequence[str] = DEFAULT,
    *,
    fraction: float = 0.5,
) -> dict[str, float]:
    """Returns the measures of features of another labeled source, which is split by its ids.

    Args:
        name: name of the source, from :func:`parse_tests`.
        features: float ``[n, d]``.
        labels: label of each item, Unicode ``[n]``; items without (``""``) are left out.
        domains: domain of each item, Unicode ``[n]``.
        ids: distinct ids of the items, ``[n]``.
        frequency: number of rows of the pool with each label, for head, middle and tail; empty if
            the source has other labels than the pool.
        probes: names of the probes.
        fraction: fraction of each label that probes are fitted to.

    Returns:
        Number by measure, ``PROBE@NAME`` and ``PROBE@NAME/PART``, as in
        :func:`~jaxcurate.evaluation.probing.probe_all`.

    Raises:
        InputError: the source cannot be probed; the message names it.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation import probe_other
        >>> labels, x = np.array(["cat", "dog"] * 4), np.eye(2)[[0, 1] * 4]
        >>> probe_other("pets", x, labels, np.full(8, ""), np.arange(8), {}, ["ridge"])
        {'ridge@pets': 1.0, 'ridge@pets/micro': 1.0}
    """
    fitted = split_by_id(ids, labels, fraction)
    try:
        measures = probe_all(
            features[fitted],
            features[~fitted],
            labels[fitted],
            labels[~fitted],
            domains[~fitted],
            frequency,
            probes,
        )
    except InputError as error:
        raise InputError(f"extra_tests, {name}: {error}") from error
    return {"/".join(_at(measure, name)): number for measure, number in measures.items()}


def _at(measure: str, name: str) -> list[str]:
    """Returns the parts of the name of a measure, with the name of the source after the probe."""
    probe, *rest = measure.split("/", 1)
    return [f"{probe}@{name}", *rest]
