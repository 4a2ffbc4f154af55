"""Effective rank of the features of the test set (RankMe)."""

from jaxcurate.evaluation.probes.base import ProbeTask
from jaxcurate.training.rankme import rankme


def rank(task: ProbeTask) -> float:
    """Returns the effective rank of the features of the test set, from 1 to their width.

    It falls if the features of an encoder collapse.

    Args:
        task: features and labels, of which the features of the test set are used.

    Raises:
        InputError: there are no features, or they are not finite.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.evaluation.probes.base import ProbeTask
        >>> from jaxcurate.evaluation.probes.rank import rank
        >>> x, y = np.eye(4), np.arange(4)
        >>> rank(ProbeTask(x, y, x, y))
        4.0
    """
    return rankme(task.test_x)
