"""The stages in order, each from the files of the one before to files of its own.

A stage is skipped when what it would write is there, whole, and made from the same inputs; the
card of each folder tells what it was made from.
"""

import dataclasses
import json
import platform
import time
from collections.abc import Iterable
from functools import cached_property
from importlib import metadata
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from jaxcurate import embed as encoders
from jaxcurate import evaluation, experiment, export, parallel, report, sources, workdir
from jaxcurate.hierarchy import hierarchical_kmeans
from jaxcurate.pool import Pool, make_pool
from jaxcurate.progress import Progress
from jaxcurate.sampling import sample
from jaxcurate.settings import Settings
from jaxcurate.tree import ClusterTree

STAGES = ("embed", "cluster", "sample", "export", "evaluate", "report")
NEEDS = {
    "cluster": "embed",
    "sample": "cluster",
    "export": "sample",
    "evaluate": "sample",
    "report": "sample",
}
"""The stage whose files each stage reads, of those that only one stage can have written."""
PACKAGES = ("jaxcurate", "jax", "jaxlib", "flax", "optax", "numpy")


class Status(NamedTuple):
    """How a stage stands."""

    stage: str
    state: str
    """``done``, ``missing``, ``out of date`` or ``damaged``."""
    where: str


class Pipeline:
    """One work directory and the settings of what is done in it.

    Every stage is a method that goes from files to files; each raises a ValueError with one
    clear line where its input is missing, damaged, or made for something else.
    """

    def __init__(self, settings: Settings, path: epath.PathLike, progress: Progress) -> None:
        self.settings = settings
        self.path = epath.Path(path)
        self.progress = progress
        self.subset_path = self.path / "subsets" / settings.sample.name
        self.export_path = self.path / "exports" / settings.sample.name
        self._begun = time.perf_counter()

    # The stages.

    def embed(self) -> dict[str, Any]:
        """Source to ``pool/``: an embedding for every item that can be read."""
        settings = self.settings.embed
        n, size = len(self.source), settings.batch_size
        fitting = lambda: (b.images for b in self._reading("reading", np.arange(n), size))
        encoder = encoders.make_encoder(settings, fitting, self.mesh)
        rows, ids, embeddings = [], [], []
        reading = self._reading("embedding", np.arange(n), size)
        for batch in reading:
            rows.append(batch.rows)
            ids.append(batch.ids)
            embeddings.append(
                encoders.embed(encoder, batch.images, batch_size=size, mesh=self.mesh)
            )
        if not rows:
            raise ValueError(f"{self.settings.source} has no item that can be read")
        pool = make_pool(*map(np.concatenate, (embeddings, ids, rows)))
        skipped = [[item.id, item.reason] for item in reading.unreadable]
        if skipped:
            id_, reason = skipped[0]
            self.progress.line(
                f"  {len(skipped)} item(s) could not be read and were left out, the first "
                f"{id_!r} ({reason}); {self.path / 'pool' / workdir.CARD} lists them"
            )
        pool.save(self.path / "pool", self._about("embed", unreadable=skipped))
        return {"items": len(pool), "dimensions": pool.embeddings.shape[1]}

    def cluster(self) -> dict[str, Any]:
        """``pool/`` to ``tree/``: hierarchical k-means with resampling."""
        settings = self.settings.cluster
        pool = self._pool()
        tree = hierarchical_kmeans(
            pool,
            settings.levels,
            self.settings.seed,
            max_iter=settings.max_iter,
            init=settings.init,
            mesh=self.mesh,
            progress=self.progress,
        )
        tree.save(self.path / "tree", self._about("cluster", pool=pool.fingerprint))
        return {"clusters": [len(level.centroids) for level in tree.levels]}

    def sample(self) -> dict[str, Any]:
        """``tree/`` to ``subsets/NAME/``: a balanced subset with its manifest."""
        pool, tree = self._pool(), self._tree()
        indices = self._draw(tree, self.settings.seed)
        missing = self.settings.sample.size - len(indices)
        if missing:
            self.progress.line(f"  the pool holds {missing} item(s) fewer than sample.size wants")
        about = self._about("sample", shortfall=missing)
        export.save_subset(self.subset_path, indices, pool, tree, about)
        return {"taken": len(indices), "missing": missing}

    def export(self) -> dict[str, Any]:
        """``subsets/NAME/`` and the source to ``exports/NAME/``: the items themselves."""
        pool = self._pool()
        rows = np.unique(export.load_subset(self.subset_path, pool).indices)
        reading = self._reading("exporting", pool.items[rows], 256)
        pairs = (pair for b in reading for pair in zip(b.ids.tolist(), b.images, strict=True))
        about = self._about("export")
        export.export_items(self.export_path, pairs, self.settings.export.format, about)
        return {"items": len(rows)}

    def evaluate(self) -> dict[str, Any]:
        """All of this to ``evaluation/``: balance, and the comparison by pretraining.

        The only stage that reads labels and domains.
        """
        settings, seed = self.settings.evaluate, self.settings.seed
        pool, tree = self._pool(), self._tree()
        subset = export.load_subset(self.subset_path, pool)
        draws = evaluation.draw_arms(
            subset.indices, lambda s: self._draw(tree, s), len(pool), settings.n_seeds, seed
        )
        notes = self.source.annotations(pool.items)
        results: dict[str, Any] = {"balance": evaluation.balance(notes, draws)}
        losses: dict[str, np.ndarray] = {}
        if settings.arms:
            probe_set, test_set = map(_read_held_out, self._held_out_sources)
            compared = experiment.compare(
                self._read(pool.items),
                {arm: draws[arm] for arm in settings.arms},
                probe_set,
                test_set,
                experiment.head_labels(notes.label, np.unique(probe_set.labels)),
                settings.pretraining,
                seed=seed,
                mesh=self.mesh,
                progress=self.progress,
            )
            results |= evaluation.to_plain(compared)
            losses = compared.losses
        with workdir.new_folder(self.path / "evaluation", self._about("evaluate")) as folder:
            (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
            for arm, curve in losses.items():
                workdir.save_array(folder / f"losses_{arm}.npy", curve)
        for text in evaluation.lines(results):
            self.progress.line(f"  {text}")
        return {}

    def report(self) -> dict[str, Any]:
        """Everything that is there to ``report.html``."""
        pool, tree = self._pool(), self._tree()
        subset = export.load_subset(self.subset_path, pool)
        cards = {name: workdir.read_card(folder) for name, folder in self._folders.items()}
        results, losses = None, {}
        if cards["evaluate"] is not None:
            folder = self._folders["evaluate"]
            workdir.check_files(folder)
            results = json.loads((folder / "results.json").read_text())
            losses = {
                file.stem.removeprefix("losses_"): workdir.load_array(file)
                for file in folder.glob("losses_*.npy")
            }
        page = report.render(
            report.Findings(
                title=self.settings.title,
                made_from=workdir.fingerprint(self._made_from("report")),
                settings=_plain(self.settings),
                cards={name: card for name, card in cards.items() if card is not None},
                pool=pool,
                tree=tree,
                indices=subset.indices,
                images=lambda rows: self._read(pool.items[rows]),
                results=results,
                losses=losses,
            )
        )
        workdir.write_text(self.path / "report.html", page)
        return {}

    # What binds them.

    def run(self, stages: Iterable[str] = STAGES) -> None:
        """Does stages in order, but for those that are done.

        Raises:
            ValueError: in one line; before anything is written, wherever it can be known by then.
        """
        self._check(stages)
        for stage in stages:
            with self.progress.timed(stage):
                state = self._state(stage)
                if state == "done":
                    self.progress.line(f"{stage}: done before")
                    continue
                why = "" if state == "missing" else f" ({state})"
                self.progress.line(f"{stage} ...{why}")
                self._begun = time.perf_counter()
                found = getattr(self, stage)()
                self._write_config()  # after the first stage: bad input leaves no trace
                told = ", ".join(f"{key} {value}" for key, value in found.items())
                spent = time.perf_counter() - self._begun
                self.progress.line(f"{stage}: {told + ', ' if told else ''}{spent:.1f} s")

    def status(self) -> list[Status]:
        """How every stage stands; changes nothing."""
        return [
            Status(stage, self._state(stage), str(self._folders.get(stage, self._report_path)))
            for stage in STAGES
        ]

    def _check(self, stages: Iterable[str]) -> None:
        """Refuses what cannot work while nothing has been written yet."""
        settings, stages = self.settings, set(stages)
        for stage in stages & set(NEEDS):
            before = self._folders[NEEDS[stage]]
            if NEEDS[stage] not in stages and workdir.read_card(before) is None:
                raise ValueError(f"{before} is missing: `{stage}` needs `{NEEDS[stage]}` first")
        if "embed" in stages:
            n, source = len(self.source), settings.source
            level = settings.cluster.levels[0]
            if n < level.n_clusters * level.n_splits:
                raise ValueError(
                    f"cluster.n_clusters asks for {level.n_clusters * level.n_splits} clusters at "
                    f"level 1, but {source} has only {n} item(s)"
                )
        elif stages & {"export", "evaluate", "report"}:  # these read items by the pool's rows
            card = workdir.read_card(self._folders["embed"]) or {"made_from": {"source": None}}
            if card["made_from"]["source"] != self.source.fingerprint:
                raise ValueError(
                    f"{self._folders['embed']} was made from source "
                    f"{card['made_from']['source']}, but {settings.source} is now "
                    f"{self.source.fingerprint}: `embed` comes first"
                )
        if "evaluate" in stages and settings.evaluate.arms:
            try:
                self._held_out_sources  # noqa: B018  opens them
            except ValueError as error:
                raise ValueError(
                    f"{error} (config.evaluate.arms=() evaluates without held-out items)"
                ) from error

    def _write_config(self) -> None:
        config = json.dumps(_plain(self.settings), indent=2) + "\n"
        workdir.write_text(self.path / "config.json", config)

    def _state(self, stage: str) -> str:
        try:
            if stage == "report":
                if not self._report_path.exists():
                    return "missing"
                made_from = workdir.fingerprint(self._made_from(stage))
                return "done" if made_from in self._report_path.read_text() else "out of date"
            card = workdir.read_card(self._folders[stage])
            if card is None:
                return "missing"
            same = card.get("made_from") == _as_json(self._made_from(stage))
            return "done" if same else "out of date"
        except workdir.DamagedError as error:
            return f"damaged: {error}"

    def _made_from(self, stage: str) -> dict[str, Any]:
        """All that the outcome of a stage depends on."""
        settings = self.settings
        digest = lambda name: workdir.fingerprint(
            (workdir.read_card(self._folders[name]) or {}).get("files")
        )
        match stage:
            case "embed":
                return {"source": self.source.fingerprint, "embed": _plain(settings.embed)}
            case "cluster":
                return {
                    "embed": digest("embed"),
                    "cluster": _plain(settings.cluster),
                    "seed": settings.seed,
                }
            case "sample":
                return {
                    "cluster": digest("cluster"),
                    "sample": _plain(settings.sample),
                    "seed": settings.seed,
                }
            case "export":
                return {"sample": digest("sample"), "export": _plain(settings.export)}
            case "evaluate":
                held_out = self._held_out_sources if settings.evaluate.arms else ()
                return {
                    "cluster": digest("cluster"),
                    "sample": digest("sample"),
                    "held_out": [source.fingerprint for source in held_out],
                    "evaluate": _plain(settings.evaluate),
                    "seed": settings.seed,
                }
            case "report":
                return {"title": settings.title, **{name: digest(name) for name in self._folders}}
        raise ValueError(f"stage={stage!r}; known: {', '.join(STAGES)}")

    def _about(self, stage: str, **more: Any) -> dict[str, Any]:
        """What the card of a stage's folder tells."""
        device = jax.devices()[0]
        return {
            "stage": stage,
            "made_from": _as_json(self._made_from(stage)),
            "seconds": round(time.perf_counter() - self._begun, 3),
            "devices": f"{parallel.n_shards(self.mesh)} x {device.device_kind}",
            "mapper": parallel.mapper,
            "versions": {"python": platform.python_version()}
            | {package: metadata.version(package) for package in PACKAGES},
            **more,
        }

    @property
    def _report_path(self) -> epath.Path:
        return self.path / "report.html"

    @property
    def _folders(self) -> dict[str, epath.Path]:
        return {
            "embed": self.path / "pool",
            "cluster": self.path / "tree",
            "sample": self.subset_path,
            "export": self.export_path,
            "evaluate": self.path / "evaluation",
        }

    @cached_property
    def mesh(self) -> Mesh | None:
        """The devices that the settings ask for."""
        return parallel.make_mesh(self.settings.n_devices or None)

    @cached_property
    def source(self) -> sources.Source:
        """The pool's items."""
        return self._open(self.settings.split)

    @cached_property
    def _held_out_sources(self) -> tuple[sources.Source, sources.Source]:
        """What the probes learn from, and what they are tested on."""
        settings = self.settings.evaluate
        return self._open(settings.probe_split), self._open(settings.test_split)

    def _open(self, split: str) -> sources.Source:
        settings = self.settings
        return sources.open_source(
            settings.source,
            split=split,
            data_dir=settings.data_dir or None,
            image_size=settings.image_size,
            recipe=settings.recipe,
            image_key=settings.image_key or None,
            label_key=settings.label_key or None,
        )

    def _pool(self) -> Pool:
        return Pool.load(self.path / "pool")

    def _tree(self) -> ClusterTree:
        """The tree, if it is one over the pool that stands beside it."""
        here, of = (
            workdir.read_card(self.path / "pool"),
            workdir.check_files(self.path / "tree"),
        )
        if of["pool"] != here["pool"]:
            raise ValueError(
                f"{self.path / 'tree'} was made from pool {of['pool']}, "
                f"but the pool here is {here['pool']}"
            )
        return ClusterTree.load(self.path / "tree")

    def _draw(self, tree: ClusterTree, seed: int) -> np.ndarray:
        settings = self.settings.sample
        size = min(settings.size, tree.n_points * settings.max_repeats)
        return sample(tree, size, settings.strategy, settings.max_repeats, seed)

    def _reading(self, what: str, rows: np.ndarray, batch_size: int) -> sources.Reading:
        done = 0

        def told(more: int) -> None:
            nonlocal done
            done += more
            self.progress(what, done, len(rows))

        return sources.read_images(self.source, rows, batch_size=batch_size, progress=told)

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """Items of the source at ``rows``, which all were readable once."""
        reading = self._reading("reading", rows, 1024)
        images = [batch.images for batch in reading]
        if reading.unreadable:
            item = reading.unreadable[0]
            raise ValueError(f"item {item.id!r} can no longer be read: {item.reason}")
        return np.concatenate(images)


def _read_held_out(source: sources.Source) -> experiment.HeldOut:
    batches = list(sources.read_images(source, batch_size=1024))
    notes = source.annotations(np.concatenate([batch.rows for batch in batches]))
    images = np.concatenate([batch.images for batch in batches])
    return experiment.HeldOut(images, notes.label, notes.domain)


def _plain(settings: Any) -> dict[str, Any]:
    return dataclasses.asdict(settings)


def _as_json(value: Any) -> Any:
    """What JSON makes of a value: tuples turn into lists."""
    return json.loads(json.dumps(value))
