"""Levels proposed for your own embeddings, by their number and the size of the subset.

    .venv/bin/jaxcurate run --config=configs/auto.py:embeddings.npy,5000 --workdir=runs/auto

The file holds floats [n, d]. The reasons are printed. The proposed settings are then written to
config.json of the work directory, like those of any other configuration, and each of them can be
overridden, such as `--config.cluster.levels[0].n_clusters=2000`. The proposal follows the
published settings (`jaxcurate/curation/suggest_levels.py`). For 100 k x 256 it costs as much as
configs/small_2levels.py.
"""

import sys

from ml_collections import ConfigDict

from jaxcurate.config import ClusterConfig, Config, EvaluateConfig, SampleConfig, to_config
from jaxcurate.curation.suggest_levels import propose_levels
from jaxcurate.sources.arrays import ArraySource


def get_config(argument: str = "") -> ConfigDict:
    path, _, size = argument.rpartition(",")
    if not path or not size.isdigit():
        raise ValueError(f"auto.py:{argument} must be auto.py:PATH.npy,SIZE")
    n = len(ArraySource(path))
    proposal = propose_levels(n, int(size))
    print(f"{n:,} rows, {int(size):,} of them wanted:", file=sys.stderr)
    for reason in proposal.reasons:
        print(f"  {reason}", file=sys.stderr)
    return to_config(
        Config(
            title=f"{size} of {n} rows",
            source=f"npy:{path}",
            cluster=ClusterConfig(levels=proposal.levels),
            sample=SampleConfig(size=int(size)),
            evaluate=EvaluateConfig(arms=()),
        )
    )
