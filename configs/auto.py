"""Levels, encoder and memory proposed for a pool of your own, by its kind and its size.

    jaxcurate run --config=auto:pictures,1000 --workdir=runs/auto

The part before the comma is a source: a path of a folder or file, which is opened as what it is,
or a specification such as `tfds:NAME` (README, "Your own data"). The number is the size of the
subset. The reasons are printed. The proposed settings are then written to config.json of the work
directory, like those of any other configuration, so that further commands need no configuration.
Each of them can be overridden, such as `--config.cluster.levels[0].n_clusters=2000`. The proposal
follows the published settings (`jaxcurate/curation/suggest_levels.py`). For 100 k x 256 it costs as
much as configs/small_2levels.py.
"""

import os
import sys

from ml_collections import ConfigDict

from jaxcurate.checks import InputError
from jaxcurate.config import ClusterConfig, Config, EvaluateConfig, SampleConfig, to_config
from jaxcurate.curation.suggest_levels import propose_levels
from jaxcurate.encoders.base import DEFAULTS
from jaxcurate.sources import InBlocks, open_source

_ENCODERS = {
    "picture": "ImageNet features, which tell pictures apart far better than their pixels do",
    "text": "sentence embeddings",
    "vector": "given vectors stay as they are",
}
_COLUMNS = {"picture": 1280, "text": 384}


def get_config(argument: str = "") -> ConfigDict:
    spec, _, size = argument.rpartition(",")
    if not spec or not size.isdigit():
        raise InputError(f"auto:{argument} must be auto:SOURCE,SIZE, such as auto:pictures,1000")
    source = open_source(spec)
    n, kind = len(source), source.kind
    proposal = propose_levels(n, int(size))
    d = source.width if isinstance(source, InBlocks) else _COLUMNS[kind]
    n_bytes, memory = 4 * n * d, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = memory // 4 if n_bytes > memory // 4 else None
    print(f"{source.name}: {n:,} {kind}s, {int(size):,} of them wanted:", file=sys.stderr)
    reasons = [*proposal.reasons, f"encoder {DEFAULTS[kind]}: {_ENCODERS[kind]}"]
    if limit is not None:
        reasons.append(
            f"memory_limit = {limit:,}: the embeddings take {n_bytes / 1e9:.0f} GB, more than a "
            f"quarter of the {memory / 1e9:.0f} GB of this machine, so that they are streamed"
        )
    for reason in reasons:
        print(f"  {reason}", file=sys.stderr)
    return to_config(
        Config(
            source=spec,
            memory_limit=limit,
            cluster=ClusterConfig(
                levels=proposal.levels, init="k-means++" if limit is None else "k-means||"
            ),
            sample=SampleConfig(size=int(size)),
            evaluate=EvaluateConfig(arms=()),
        )
    )
