"""Draws of the arms of a comparison, a function for each arm."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from jaxcurate.checks import InputError
from jaxcurate.curation.baselines import sample_flat, sample_uniform
from jaxcurate.curation.mixing import indices_of, mix
from jaxcurate.curation.sampling import ShortfallWarning
from jaxcurate.curation.stratified_batches import Batches
from jaxcurate.evaluation.arms import Common, Draw, EvaluateConfig
from jaxcurate.stateless_random import other_seed


def curated(common: Common, seed: int) -> Draw:
    """Returns the exported subset for the first seed, and a new draw of it for any other."""
    is_first = seed == common.first_seed
    return Draw(common.subset if is_first else common.arms.curated(seed))


def random(common: Common, seed: int) -> Draw:
    """Returns as many rows as the subset has, uniformly at random."""
    return Draw(common.arms.random(seed, len(common.subset)))


def pool(common: Common, seed: int) -> Draw:
    """Returns all rows of the pool."""
    del seed
    return Draw(np.arange(len(common.arms.pool)))


def flat(common: Common, seed: int) -> Draw:
    """Returns as many rows as the subset has, balanced over the clusters of one level alone."""
    return Draw(common.arms.flat(seed, common.settings.flat_level))


def flat_plain(common: Common, seed: int) -> Draw:
    """Returns as many rows as the subset has, balanced over clusters of plain k-means.

    The clusters are those of k-means on the rows of the pool, as many as the level of the arm
    `flat` has, without resampling and without levels: the baseline of the paper.

    References:
        Vo et al., Automatic Data Curation for Self-Supervised Learning, 2024, section 4.
        https://arxiv.org/abs/2405.15613
    """
    arms = common.arms
    if arms.plain is None:
        raise InputError("the arm 'flat_plain' needs clusters of its own (Arms.plain)")
    rows = sample_flat(
        arms.plain,
        arms.size,
        arms.sampling.strategy,
        arms.sampling.max_repeats,
        other_seed(seed, 6),
        rows=arms.valid,
        ids=arms.pool.ids,
    )
    return Draw(rows)


def deduplicated(common: Common, seed: int) -> Draw:
    """Returns as many rows as the subset has, at random, of those that deduplication kept."""
    arms = common.arms
    if not arms.deduplicated or arms.valid is None:
        raise InputError(
            "the arm 'deduplicated' needs deduplication, which is off: config.dedup.enabled=True "
            "turns it on"
        )
    size = min(len(common.subset), len(arms.valid))
    rows = sample_uniform(
        arms.tree, size, seed=other_seed(seed, 4), rows=arms.valid, ids=arms.pool.ids
    )
    return Draw(rows)


def mixed(common: Common, seed: int) -> Draw:
    """Returns as many rows as the subset has: a curated, a retrieved and a raw part."""
    arms, own = common.arms, common.settings.mix
    config, neighbors = (
        (own, arms.mixed_neighbors) if own.is_mixed else (arms.sampling.mix, arms.neighbors)
    )
    if not config.is_mixed:
        raise InputError(
            "the arm 'mixed' needs a mixture, such as config.evaluate.mix.curated=0.5 with "
            "config.evaluate.mix.raw=0.5"
        )
    n_valid = len(arms.pool) if arms.valid is None else len(arms.valid)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ShortfallWarning)
        parts = mix(
            arms.tree,
            min(arms.size, n_valid),
            config.fractions,
            neighbors,
            strategy=arms.sampling.strategy,
            seed=other_seed(seed, 5),
            rows=arms.valid,
            ids=arms.pool.ids,
        )
    return Draw(indices_of(parts))


def stratified(common: Common, seed: int) -> Draw:
    """Returns all rows of the pool, in batches that are balanced over the tree."""
    settings, n_rows = common.settings, len(common.arms.pool)
    batches = Batches(
        common.arms.tree,
        settings.pretraining.batch_size,
        common.n_steps(n_rows),
        equal=settings.stratified_by,
        seed=seed,
    )
    return Draw(np.arange(n_rows), batches)


def steps_of(
    draws: Mapping[str, Sequence[Draw]], settings: EvaluateConfig, n_subset: int
) -> dict[str, int]:
    """Returns the number of steps of every run of each arm that is pretrained on.

    Draws of different sizes for different seeds make as many steps as that of the first seed.

    Args:
        draws: the rows that each arm trains on, for each seed.
        settings: the settings of the comparison.
        n_subset: number of rows in the curated subset.

    Examples:
        >>> settings = EvaluateConfig(("curated", "pool"), budget="epochs")
        >>> draws = {"curated": [Draw(np.arange(10))], "pool": [Draw(np.arange(40))]}
        >>> steps_of(draws, settings, 10)
        {'curated': 300, 'pool': 1200}
    """
    return {arm: settings.n_steps(len(draws[arm][0].rows), n_subset) for arm in settings.trained}
