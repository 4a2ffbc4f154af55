"""What each stage does: from the files of the stages before it to files of its own."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from etils import epath

from jaxcurate import export, report, training
from jaxcurate.artifacts import files, folders
from jaxcurate.artifacts.pool import KIND as POOL
from jaxcurate.artifacts.pool import Block, Pool, fill_pool, write_pool
from jaxcurate.artifacts.tree import KIND as TREE
from jaxcurate.artifacts.tree import ClusterTree
from jaxcurate.checks import InputError
from jaxcurate.config import Settings
from jaxcurate.curation import dedup, growth
from jaxcurate.curation.hierarchy import hierarchical_kmeans
from jaxcurate.curation.mixing import indices_of
from jaxcurate.evaluation import compare, coverage, summary
from jaxcurate.evaluation.arms import Arms
from jaxcurate.kmeans.row_view import RowView
from jaxcurate.neighbors.nearest_rows import Neighbours, nearest_rows
from jaxcurate.pipeline.context import Items, check_all_read, read_held_out
from jaxcurate.runtime.progress import Progress

KINDS = {
    "embed": POOL,
    "dedup": dedup.KIND,
    "cluster": TREE,
    "sample": export.SUBSET,
    "export": export.EXPORT,
    "evaluate": "evaluation",
    "grow": "grown",
}
"""What the folder of each stage holds."""
_N_MEASURED = 20_000
"""Rows of the pool whose distance to the subset is measured, at most."""

Card = Callable[..., dict[str, Any]]
"""Makes what the card of the folder tells, with any keyword arguments added."""


class Stages(Items):
    """The stages over one work directory.

    Each is a method that returns what there is to say of it; each raises a ValueError with one
    clear line where its input is damaged or made for something else.
    """

    def __init__(self, settings: Settings, path: epath.PathLike, progress: Progress) -> None:
        super().__init__(settings, progress, leave_out=path)
        self.path = epath.Path(path)
        self.run: str | None = None
        """Identifies the run that writes; what another one wrote is not replaced."""
        self.subset_path = self.path / "subsets" / settings.sample.name
        self.export_path = self.path / "exports" / settings.sample.name
        self.report_path = self.path / "report.html"
        self.folders = {
            "embed": self.path / "pool",
            **({"dedup": self.path / "dedup"} if settings.dedup.enabled else {}),
            "cluster": self.path / "tree",
            "sample": self.subset_path,
            "export": self.export_path,
            "evaluate": self.path / "evaluation",
            **({"grow": self.path / "grown" / settings.grow.name} if settings.grow.source else {}),
        }

    def embed(self, card: Card) -> dict[str, Any]:
        """Source to ``pool/``: an embedding for every item that can be read."""
        blocks = self.embedded("embedding", self.source, self.settings.source)
        about = lambda: card(unreadable=blocks.unreadable, **blocks.zeros)
        pool = write_pool(self.folders["embed"], blocks, about, self.run)
        if blocks.unreadable:
            id_, reason = blocks.unreadable[0]
            self.progress.line(
                f"  {len(blocks.unreadable)} item(s) could not be read or used and were left out, "
                f"the first {id_!r} ({reason}); {self.path / 'pool' / folders.CARD} lists them"
            )
        return {"items": len(pool), "dimensions": pool.embeddings.shape[1]}

    def dedup(self, card: Card) -> dict[str, Any]:
        """``pool/`` to ``dedup/``: which rows are alike, and which of them stay."""
        settings, pool = self.settings.dedup, self._pool()
        digests = None
        if settings.content == "items":
            reading = self.reading("reading", pool.items, 1024)
            digests = np.concatenate([dedup.content_digests(batch.images) for batch in reading])
            check_all_read(reading)
        found = dedup.deduplicate(
            pool,
            settings.threshold or None,
            digests=digests,
            n_clusters=settings.n_clusters or None,
            n_neighbours=settings.n_neighbours,
            seed=self.settings.seed,
            memory_limit=self.settings.memory_limit or None,
            devices=self.devices,
            progress=self.progress,
        )
        found.save(self.folders["dedup"], card(pool=pool.fingerprint))
        return {"kept": len(found.kept), "same": found.n_same, "nearly the same": found.n_near}

    def cluster(self, card: Card) -> dict[str, Any]:
        """``pool/`` to ``tree/``: hierarchical k-means with resampling."""
        settings = self.settings.cluster
        pool = self._pool()
        tree = hierarchical_kmeans(
            pool,
            settings.levels,
            self.settings.seed,
            rows=self._valid(),
            max_iter=settings.max_iter,
            init=settings.init,
            metric=settings.metric,
            memory_limit=self.settings.memory_limit or None,
            devices=self.devices,
            progress=self.progress,
        )
        for line in tree.surplus_lines():
            self.progress.line(f"  {line}")
        surplus = {name: empty for name, (empty, _) in tree.surplus.items() if empty}
        about = card(pool=pool.fingerprint, **({"surplus": surplus} if surplus else {}))
        tree.save(self.folders["cluster"], about)
        return {"clusters": [len(level.centroids) for level in tree.levels]}

    def sample(self, card: Card) -> dict[str, Any]:
        """``tree/`` to ``subsets/NAME/``: a balanced subset with its manifest."""
        pool, tree = self._pool(), self._tree()
        arms = self._arms(pool, tree)
        parts = arms.parts(self.settings.seed)
        indices = indices_of(parts)
        missing = self.settings.sample.size - len(indices)
        if missing:
            self.progress.line(f"  the pool holds {missing} item(s) fewer than sample.size wants")
        about = card(shortfall=missing, measures=self._measures(arms, indices))
        mixed = self.settings.sample.mix.is_mixed
        export.save_subset(self.subset_path, indices, pool, tree, about, parts if mixed else None)
        sizes = {name: len(rows) for name, rows in parts.items()} if mixed else {}
        return {"taken": len(indices), **sizes, "missing": missing}

    def export(self, card: Card) -> dict[str, Any]:
        """``subsets/NAME/`` and the source to ``exports/NAME/``: the items themselves."""
        pool = self._pool()
        rows = np.unique(export.load_subset(self.subset_path, pool).indices)
        reading = self.reading("exporting", pool.items[rows], 256)
        pairs = (pair for b in reading for pair in zip(b.ids.tolist(), b.images, strict=True))
        about = card()
        export.export_items(self.export_path, pairs, self.settings.export.format, about)
        return {"items": len(rows)}

    def evaluate(self, card: Card) -> dict[str, Any]:
        """All of this to ``evaluation/``: balance, and the comparison by pretraining.

        The only stage that reads labels and domains.
        """
        settings, seed = self.settings.evaluate, self.settings.seed
        pool, tree = self._pool(), self._tree()
        subset = export.load_subset(self.subset_path, pool)
        draws = self._arms(pool, tree).draw(subset.indices, settings, seed)
        notes = self.source.annotations(pool.items)
        seen = {arm: drawn[0].seen for arm, drawn in draws.items()}
        results: dict[str, Any] = {"balance": summary.balance(notes, seen)}
        losses: dict[str, np.ndarray] = {}
        if settings.arms:
            probe_set, test_set = (
                read_held_out(source, strict=self.settings.strict, tell=self.progress.line)
                for source in self.held_out_sources
            )
            compared = compare.compare(
                self.read(pool.items),
                {
                    arm: [
                        training.Run(draw.rows, seed + i, draw.batches)
                        for i, draw in enumerate(draws[arm])
                    ]
                    for arm in settings.arms
                },
                probe_set,
                test_set,
                compare.head_labels(notes.label, np.unique(probe_set.labels)),
                settings.pretraining,
                devices=self.devices,
                progress=self.progress,
            )
            results |= summary.to_plain(compared)
            losses = compared.losses
        with folders.new_folder(self.folders["evaluate"], card(), KINDS["evaluate"]) as folder:
            folder.write_text("results.json", json.dumps(results, indent=2) + "\n")
            for arm, curve in losses.items():
                folder.save_array(f"losses_{arm}.npy", curve)
        for text in summary.lines(results):
            self.progress.line(f"  {text}")
        return {}

    def report(self, card: Card) -> dict[str, Any]:
        """Everything that is there to ``report.html``."""
        pool, tree = self._pool(), self._tree()
        subset = export.load_subset(self.subset_path, pool)
        cards = {
            name: folders.read_card(folder)
            for name, folder in self.folders.items()
            if name != "grow"
        }
        results, losses = None, {}
        if cards["evaluate"] is not None:
            folder = self.folders["evaluate"]
            folders.check_files(folder)
            results = json.loads((folder / "results.json").read_text())
            losses = {
                file.stem.removeprefix("losses_"): files.load_array(file)
                for file in folder.glob("losses_*.npy")
            }
        page = report.render(
            report.Findings(
                title=self.settings.title,
                made_from=files.fingerprint(card()["made_from"]),
                settings=dataclasses.asdict(self.settings),
                cards={name: card for name, card in cards.items() if card is not None},
                pool=pool,
                tree=tree,
                indices=subset.indices,
                images=lambda rows: self.read(pool.items[rows]),
                results=results,
                losses=losses,
            )
        )
        files.write_text(self.report_path, page, report.is_report)
        return {}

    def grow(self, card: Card) -> dict[str, Any]:
        """``pool/``, ``tree/`` and new items to ``grown/NAME/``: both of these, and their drift.

        The folder is a work directory for ``sample``.
        """
        settings, pool, tree = self.settings.grow, self._pool(), self._tree()
        new = self.embedded("embedding", self.newcomers, settings.source)
        about: dict[str, Any] = {"run": self.run}
        with folders.new_folder(self.folders["grow"], about, KINDS["grow"]) as folder:
            blocks = itertools.chain(pool.blocks(), self._as_new(new, pool))
            of_pool: dict[str, Any] = {}
            with folder.subfolder("pool", of_pool, POOL) as below:
                ids, items, fingerprint = fill_pool(below, blocks)
                about |= card(unreadable=new.unreadable, old=len(pool), new=new.n_items)
                of_pool |= {**about, "pool": fingerprint, "n": len(ids)}
            rows = files.load_array(folder.path / "pool" / "embeddings.npy", mmap=True)
            grown = Pool(rows, ids, items, fingerprint)
            larger = growth.grow(tree, grown.embeddings[len(pool) :], devices=self.devices)
            larger = dataclasses.replace(larger, pool=grown.fingerprint)
            levels = growth.drift(larger, grown.embeddings, len(pool))
            with folder.subfolder("tree", larger.card(about), TREE) as below:
                larger.fill(below)
            plain = [level.to_plain() for level in levels]
            folder.write_text("drift.json", json.dumps(plain, indent=2) + "\n")
            for level in levels:
                folder.save_array(f"growth_l{level.level}.npy", level.growth)
        for level in levels:
            self.progress.line(f"  {level.reason}")
        new_and_not = {"new": about["new"], "not read": len(new.unreadable)}
        return {"items": len(grown), **new_and_not}

    def _as_new(self, blocks: Iterable[Block], pool: Pool) -> Iterator[Block]:
        """Blocks as they join a pool: under their prefix, and of no item of its source.

        Raises:
            ValueError: their embeddings have another width; or, in the end, ids are in the pool
                already.
        """
        settings, ids, width = self.settings.grow, [], pool.embeddings.shape[1]
        for block in blocks:
            if block.embeddings.shape[1] != width:
                raise InputError(
                    f"{settings.source} has embeddings of {block.embeddings.shape[1]} columns, "
                    f"but those of the pool have {width}"
                )
            ids.append(np.char.add(settings.prefix, block.ids))
            yield Block(block.embeddings, ids[-1], np.full(len(block.items), -1))
        known = np.intersect1d(np.concatenate(ids), pool.ids)
        if len(known):
            raise InputError(
                f"{len(known)} id(s) of {settings.source} are in the pool already, the first "
                f"{str(known[0])!r}: config.grow.prefix tells new ones apart"
            )

    def _pool(self) -> Pool:
        return Pool.load(self.path / "pool")

    def _tree(self) -> ClusterTree:
        """The tree, if it is one over the pool that stands beside it."""
        here, of = (
            folders.read_card(self.path / "pool"),
            folders.check_files(self.path / "tree"),
        )
        if of["pool"] != here["pool"]:
            raise InputError(
                f"{self.path / 'tree'} was made from pool {of['pool']}, "
                f"but the pool here is {here['pool']}"
            )
        return ClusterTree.load(self.path / "tree")

    def _valid(self) -> np.ndarray | None:
        """The rows that deduplication left; None where there was none."""
        if not self.settings.dedup.enabled:
            return None
        folder = self.folders["dedup"]
        here, of = folders.read_card(self.folders["embed"]), folders.check_sizes(folder)
        if of["pool"] != here["pool"]:
            raise InputError(
                f"{folder} was made from pool {of['pool']}, but the pool here is {here['pool']}"
            )
        return dedup.Duplicates.load(folder).kept

    def _arms(self, pool: Pool, tree: ClusterTree) -> Arms:
        valid = self._valid()
        return Arms(pool, tree, self.settings.sample, valid, self._neighbours(pool, valid))

    def _neighbours(self, pool: Pool, valid: np.ndarray | None) -> Neighbours | None:
        """The rows that are nearest to each reference; None where nothing is retrieved."""
        settings = self.settings.sample.mix
        if self.references is None:
            return None
        blocks = self.embedded(
            "references",
            self.references,
            settings.references,
            need_direction=settings.metric == "cosine",
        )
        queries = np.concatenate([block.embeddings for block in blocks])
        if skipped := blocks.unreadable:
            self.progress.line(
                f"  {len(skipped)} reference(s) could not be read or used: {skipped[0]}"
            )
        among = RowView(pool.embeddings, valid)
        near = nearest_rows(
            among, queries, settings.n_per_query, settings.metric, devices=self.devices
        )
        return near if valid is None else near._replace(rows=valid[near.rows])

    def _measures(self, arms: Arms, indices: np.ndarray) -> dict[str, Any]:
        """Plain numbers on the subset, beside those of a random one of the same size."""
        pool, tree = arms.pool, arms.tree
        random = arms.random(self.settings.seed, len(np.unique(indices)))
        told = {}
        for arm, rows in (("curated", indices), ("random", random)):
            covered = coverage.coverage(
                pool.embeddings,
                rows,
                n_measured=_N_MEASURED,
                metric=tree.metric,
                devices=self.devices,
            )
            told[arm] = {
                "levels": [one._asdict() for one in coverage.level_balance(tree, rows)],
                "coverage": covered._asdict(),
            }
            if pool.embeddings.shape[1] <= 3:
                low, high = pool.embeddings.min(axis=0), pool.embeddings.max(axis=0)
                points = pool.embeddings[rows]
                if (high > low).all():
                    told[arm]["kl_to_uniform"] = coverage.kl_to_uniform(points, low, high)
        return told
