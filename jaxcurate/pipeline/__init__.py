"""Stages of a run over a work directory, in order, each in its own file."""

from jaxcurate.pipeline.cluster import Cluster
from jaxcurate.pipeline.dedup import Dedup
from jaxcurate.pipeline.embed import Embed
from jaxcurate.pipeline.evaluate import Evaluate
from jaxcurate.pipeline.export import Export
from jaxcurate.pipeline.filter import Filter
from jaxcurate.pipeline.grow import Grow
from jaxcurate.pipeline.report import Report
from jaxcurate.pipeline.sample import Sample
from jaxcurate.pipeline.stage import Stage

__all__ = ["STAGES", "Stage"]

STAGES: tuple[Stage, ...] = (
    Embed(),
    Filter(),
    Dedup(),
    Cluster(),
    Sample(),
    Export(),
    Evaluate(),
    Report(),
    Grow(),
)
"""All stages, in the order of a run, which does those that its settings ask for."""
