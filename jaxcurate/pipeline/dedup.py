"""Stage ``dedup``: from the pool to the kept rows, one of each group of duplicates."""

from collections.abc import Collection
from typing import Any

import numpy as np
from etils import epath

from jaxcurate.checks import InputError
from jaxcurate.config import Config
from jaxcurate.curation import dedup
from jaxcurate.pipeline.context import Context
from jaxcurate.pipeline.embedding import DIGEST, PIXELS
from jaxcurate.pipeline.output import Folder
from jaxcurate.pipeline.stage import Card, Stage


class Dedup(Stage):
    """Stage that finds rows of equal content, and near-duplicates."""

    name = "dedup"
    reads = ("dedup", "seed", "memory_limit")
    disabled = "deduplication is off: config.dedup.enabled=True turns it on"

    def enabled(self, settings: Config) -> bool:
        """Returns whether duplicates are removed."""
        return settings.dedup.enabled

    def output(self, settings: Config, path: epath.Path) -> Folder:
        """Returns ``dedup/``."""
        return Folder(path / "dedup", dedup.KIND)

    def requires(self, settings: Config) -> tuple[str, ...]:
        """Returns the stage that made the pool."""
        return ("embed", "filter") if settings.filter.enabled else ("embed",)

    def foresee(self, context: Context, chosen: Collection[str]) -> None:
        """Refuses to embed fewer items than the quick k-means has clusters."""
        n_clusters = context.settings.dedup.n_clusters or 0
        if "embed" in chosen and len(context.items.source) < n_clusters:
            raise InputError(
                f"dedup.n_clusters asks for {n_clusters} clusters, but {context.settings.source} "
                f"has only {len(context.items.source)} item(s)"
            )

    def inputs(self, context: Context) -> dict[str, Any]:
        """Returns the pool, the settings and the seed."""
        return {
            **context.digest("embed", "filter"),
            "dedup": context.plain("dedup"),
            "seed": context.settings.seed,
        }

    def run(self, context: Context, card: Card) -> dict[str, Any]:
        """Writes the kept rows, the pairs and the groups."""
        settings, pool = context.settings.dedup, context.pool()
        digests = _digests(context) if settings.content == "items" else None
        duplicates = dedup.deduplicate(
            pool,
            settings.threshold,
            digests=digests,
            n_clusters=settings.n_clusters,
            n_neighbors=settings.n_neighbors,
            seed=context.settings.seed,
            memory_limit=context.settings.memory_limit,
            devices=context.devices,
            progress=context.progress,
        )
        duplicates.save(context.folder(self.name), card(pool=pool.fingerprint))
        return {
            "kept": len(duplicates.kept),
            "same": duplicates.n_same,
            "nearly the same": duplicates.n_near,
        }


def _digests(context: Context) -> np.ndarray | None:
    """Returns the hash of each item of the pool, uint64 ``[n, 2]``, or None for vectors.

    Pictures are compared as they were decoded, at their full size, so that the same picture in
    two formats is equal. Files of equal bytes are equal in any case.
    """
    known = context.columns()
    name = PIXELS if PIXELS in known else DIGEST
    if name not in known:
        return None
    joined = b"".join(known[name])
    return np.frombuffer(joined, np.uint64).reshape(-1, 2)
