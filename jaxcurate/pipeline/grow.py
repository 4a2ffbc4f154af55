"""Stage ``grow``: from pool, tree and new items to a larger pool and tree, and their drift."""

import dataclasses
import itertools
import json
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np
from etils import epath

from jaxcurate.artifacts import files, folders
from jaxcurate.artifacts.pool import Pool
from jaxcurate.artifacts.pool_files import KIND as POOL
from jaxcurate.artifacts.pool_files import Block, fill_parts
from jaxcurate.artifacts.tree import KIND as TREE
from jaxcurate.artifacts.tree import ClusterTree
from jaxcurate.checks import InputError
from jaxcurate.config import Config, GrowConfig
from jaxcurate.curation import branch_refit, growth
from jaxcurate.kmeans.row_view import RowView
from jaxcurate.pipeline.context import Context
from jaxcurate.pipeline.output import Folder
from jaxcurate.pipeline.stage import ITEMS, Card, Stage
from jaxcurate.runtime import messages

KIND = "grown"


class Grow(Stage):
    """Stage that adds new items to the pool and its tree, in a folder that is a work directory."""

    name = "grow"
    reads = (*ITEMS, "embed", "cluster", "seed", "memory_limit", "grow")
    disabled = "there is nothing to grow by: config.grow.source names new items"

    def enabled(self, settings: Config) -> bool:
        """Returns whether there are new items."""
        return settings.grow.source is not None

    def output(self, settings: Config, path: epath.Path) -> Folder:
        """Returns ``grown/NAME/``."""
        return Folder(path / "grown" / settings.grow.name, KIND)

    def requires(self, settings: Config) -> tuple[str, ...]:
        """Returns the stage that made the tree."""
        return ("cluster",)

    def check(self, context: Context, chosen: Collection[str]) -> None:
        """Refuses new items that cannot be embedded like the pool, and several processes."""
        if messages.count() > 1:
            raise InputError("`grow` works in one process: --n_processes=1 on one host")
        context.check_source(chosen, embeds=True)
        context.items.newcomers  # noqa: B018  opens them

    def inputs(self, context: Context) -> dict[str, Any]:
        """Returns the tree and the new items."""
        return {
            **context.digest("cluster"),
            "new": context.items.newcomers.fingerprint,
            "grow": context.plain("grow"),
        }

    def run(self, context: Context, card: Card) -> dict[str, Any]:
        """Writes ``pool/``, ``tree/`` and ``drift.json``."""
        settings, pool, tree = context.settings.grow, context.pool(), context.tree()
        new = context.items.embedded("embedding", context.items.newcomers, settings.source or "")
        about: dict[str, Any] = {"run": context.run}
        with folders.new_folder(context.folder(self.name), about, KIND) as folder:
            blocks = itertools.chain(pool.blocks(), _as_new(new, pool, settings))
            about_pool: dict[str, Any] = {}
            with folder.subfolder("pool", about_pool, POOL) as below:
                filled = fill_parts(below, blocks, context.settings.embed.part_bytes)
                about |= card(unreadable=new.unreadable, old=len(pool), new=new.n_items)
                about_pool |= {**about, **filled}
            grown = Pool.load(folder.path / "pool")
            new_rows = RowView(grown.embeddings).select(slice(len(pool), None))
            larger = growth.grow(tree, new_rows, devices=context.devices)
            larger = dataclasses.replace(larger, pool=grown.fingerprint)
            levels = growth.drift(larger, grown.embeddings, len(pool))
            _tell(context, levels)
            branches = branch_refit.branches_to_refit(larger, levels) if settings.refit else None
            if branches is not None:
                larger = _refitted(context, larger, grown, *branches)
                levels = growth.drift(larger, grown.embeddings, len(pool))
                _tell(context, levels)
                about["refitted"] = {"level": branches[0], "clusters": branches[1].tolist()}
            with folder.subfolder("tree", larger.card(about), TREE) as below:
                larger.fill(below, context.settings.embed.part_bytes)
            plain = [level.to_plain() for level in levels]
            folder.write_text("drift.json", json.dumps(plain, indent=2) + "\n")
            for level in levels:
                folder.save_array(f"growth_l{level.level}.npy", level.growth)
        return {"items": len(grown), "new": about["new"], "not read": len(new.unreadable)}


def _tell(context: Context, levels: Iterable[growth.LevelDrift]) -> None:
    """Prints the verdict on each level."""
    for level in levels:
        context.progress.line(f"  {level.reason}")


def _refitted(
    context: Context, tree: ClusterTree, pool: Pool, level: int, clusters: np.ndarray
) -> ClusterTree:
    """Returns the grown tree with new branches, made with the settings of the stage `cluster`."""
    settings = context.settings
    context.progress.line(f"  refitting {len(clusters)} cluster(s) of level {level}")
    return branch_refit.refit_branches(
        tree,
        pool.embeddings,
        level,
        clusters,
        levels=settings.cluster.levels,
        seed=settings.seed,
        max_iter=settings.cluster.max_iter,
        init=settings.cluster.init,
        memory_limit=settings.memory_limit,
        devices=context.devices,
        progress=context.progress,
    )


def _as_new(blocks: Iterable[Block], pool: Pool, settings: GrowConfig) -> Iterator[Block]:
    """Yields blocks in the form in which they join a pool.

    Ids get the prefix, and positions are -1, since the items are not from the source of the pool.

    Raises:
        InputError: the embeddings have another width, or, at the end, ids are in the pool already.
    """
    ids, width = [], pool.embeddings.shape[1]
    for block in blocks:
        if block.embeddings.shape[1] != width:
            raise InputError(
                f"{settings.source} has embeddings of {block.embeddings.shape[1]} columns, but "
                f"those of the pool have {width}"
            )
        ids.append(np.char.add(settings.prefix, block.ids))
        yield Block(block.embeddings, ids[-1], np.full(len(block.items), -1))
    new = np.concatenate(ids)
    same = (np.intersect1d(new, pool.ids[block]) for block in files.blocks(pool.ids))
    known = np.sort(np.concatenate(list(same)))
    if len(known):
        raise InputError(
            f"{len(known)} id(s) of {settings.source} are in the pool already, the first "
            f"{str(known[0])!r}: config.grow.prefix makes new ids distinct"
        )
