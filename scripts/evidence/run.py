#!/usr/bin/env python3
"""Runs a part of the evidence for a pool, and writes a line of JSON for every run.

    scripts/fetch                                       # web-like pools
    scripts/fetch --only descriptions,minilm,glyphs
    python scripts/evidence/run.py --pool=weblike --part=primary

PROTOCOL.md says what is run. Lines go to ``scripts/evidence/results/POOL.jsonl``, where those of an
earlier run of the same part are replaced; `tables.py` makes the tables. A run that was stopped
continues where it was; ``--finished`` writes the lines of its finished runs and runs nothing, and
``--missing`` leaves out variants whose lines are whole, as after a move to another machine.
``--exploratory`` takes the items and seeds of development, ``--tier=large`` the budget for a GPU.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from before import HeldOutRows, Yardstick, embed_probe_set, rounded
from parts import FIRST_SEED, PARTS, Job, Variant
from pools import KEEP_RATE, PLANS, Place, Plan

from jaxcurate.artifacts.tree import ClusterTree
from jaxcurate.checks import InputError
from jaxcurate.config import Config
from jaxcurate.evaluation.arms import UNTRAINED
from jaxcurate.pipeline.run import Pipeline
from jaxcurate.runtime.progress import Progress

HERE = Path(__file__).parent
_PACKAGES = ("jaxcurate", "jax", "flax", "optax", "numpy")
_KEY = ("part", "variant", "exploratory", "tier")
"""Fields of a line that name the runs which replace each other."""


class Labels(NamedTuple):
    """Facts that all lines of a command share."""

    pool: str
    part: str
    command: str
    exploratory: bool
    tier: str


def run_part(
    plan: Plan,
    about: Labels,
    place: Place,
    *,
    work: Path,
    out: Path,
    progress: Progress,
    finished: bool = False,
    missing: bool = False,
) -> None:
    """Runs all variants of a part, and writes the lines of each when it is done.

    Args:
        plan: the pool.
        about: facts for the lines.
        place: the folders of the items.
        work: folder of the work directories, one for each variant.
        out: file of the lines.
        progress: reporter.
        finished: run nothing, and write the lines of those runs that are finished.
        missing: train no variant of which the file has all lines. Its tree is made anew where
            another variant is measured on it.
    """
    base = plan.settings(place)
    job = Job(base, plan.n_items(base), plan.near, KEEP_RATE, work / about.part)
    variants = PARTS[about.part](job, 0 if about.exploratory else FIRST_SEED)
    whole = variants_of_whole_lines(out, about, variants) if missing else set()
    needed = {of.measured_on for of in variants if of.name not in whole}
    trees: dict[str, ClusterTree] = {}
    for variant in variants:
        has_lines = variant.name in whole
        if has_lines and variant.name not in needed:
            continue
        progress.line(f"{about.pool}, {about.part}: {variant.name}")
        path = work / about.part / variant.name
        shared = work / f"pool-{_digest(variant.settings.embed)}"
        _copy_pool(shared / "pool", path / "pool")
        pipeline = Pipeline(variant.settings, path, progress)
        if not finished:
            stages = stages_of(variant.settings)
            pipeline.run(stages[: stages.index("sample")] if has_lines else stages)
        elif not _can_be_told(pipeline):
            continue
        _copy_pool(path / "pool", shared / "pool")
        held_out = _probe_set(pipeline, shared / "probe.npz")
        trees[variant.name] = pipeline.context.tree()
        if has_lines:
            continue
        tree = trees[variant.measured_on]
        replace_lines(out, _lines_of(pipeline, variant, about, tree, held_out))


def variants_of_whole_lines(out: Path, about: Labels, variants: Iterable[Variant]) -> set[str]:
    """Returns the names of the variants of which a file has a line for every run.

    Args:
        out: file of the lines, which need not exist.
        about: facts of the lines that are meant.
        variants: the variants of the part.
    """
    meant = about.part, about.exploratory, about.tier
    found = {
        (line["variant"], line["arm"], line["seed"])
        for line in (read_lines(out) if out.exists() else [])
        if (line["part"], line["exploratory"], line["tier"]) == meant
    }
    return {
        variant.name
        for variant in variants
        if all(
            (variant.name, arm, variant.settings.seed + i) in found
            for arm in (*variant.arms.values(), UNTRAINED)
            for i in range(variant.settings.evaluate.n_seeds)
        )
    }


def _can_be_told(pipeline: Pipeline) -> bool:
    """Returns whether a work directory has finished runs, of the settings of the pipeline."""
    states = {status.stage: status.state for status in pipeline.status()}
    current = states["sample"] == "done" and states["evaluate"] in ("done", "missing")
    return current and bool(_runs(Path(pipeline.path)))


def _runs(path: Path) -> list[dict[str, Any]]:
    """Returns the records of the finished runs of a work directory, those of an evaluation that is
    not whole yet included."""
    whole = path / "evaluation" / "runs.jsonl"
    files = [whole] if whole.exists() else sorted(path.glob("evaluation.parts/*/runs.jsonl"))
    return [json.loads(text) for file in files for text in file.read_text().splitlines()]


def stages_of(settings: Config) -> tuple[str, ...]:
    """Returns the stages of a run."""
    dedup = ("dedup",) if settings.dedup.enabled else ()
    return ("embed", *dedup, "cluster", "sample", "evaluate")


def _lines_of(
    pipeline: Pipeline,
    variant: Variant,
    about: Labels,
    tree: ClusterTree,
    held_out: HeldOutRows,
) -> list[dict[str, Any]]:
    """Returns a line for every run of a variant, with the measures of its rows."""
    context, settings = pipeline.context, variant.settings
    pool = context.pool()
    notes = context.items.source.annotations(pool.items)
    yardstick = Yardstick(pool.embeddings, notes, tree, held_out)
    arms = context.arms(pool, context.tree())
    if "mixed" in settings.evaluate.arms:
        near = context.neighbors(pool, arms.valid, settings.evaluate.mix)
        arms = arms.__class__(**{**vars(arms), "mixed_neighbors": near})
    subset = context.subset(pool).indices
    draws = arms.draw(subset, settings.evaluate, settings.seed)
    known: dict[bytes, dict[str, float]] = {}
    lines = []
    for record in _runs(Path(pipeline.path)):
        arm, seed = record["arm"], record["seed"]
        before, n_rows = {}, 0
        if arm in variant.arms:
            drawn = draws[arm][seed - settings.seed]
            key = np.ascontiguousarray(drawn.seen).tobytes()
            if key not in known:
                known[key] = rounded(yardstick.measure(drawn.seen, context.devices))
            before, n_rows = known[key], len(np.unique(drawn.rows))
        lines.append(
            {
                **about._asdict(),
                "variant": variant.name,
                "arm": variant.arms.get(arm, arm),
                "seed": seed,
                "keep": variant.keep,
                "size": n_rows,
                "n_pool": len(pool),
                "encoder": settings.embed.encoder,
                **{name: record[name] for name in ("steps", "batch", "objective", "seconds")},
                "device": record["device"],
                "versions": versions(),
                "protocol": protocol_digest(),
                "before": before,
                "probes": rounded(record["measures"]),
            }
        )
    return lines


def versions() -> dict[str, str]:
    """Returns the versions of the packages on which the figures depend, and of Python."""
    known = {name: metadata.version(name) for name in _PACKAGES}
    return known | {"python": platform.python_version()}


def protocol_digest() -> str:
    """Returns twelve hexadecimal digits of the hash of the protocol."""
    return hashlib.sha256((HERE / "PROTOCOL.md").read_bytes()).hexdigest()[:12]


def replace_lines(out: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Writes lines to a file, in place of those of an earlier run of the same variant.

    The file appears whole, sorted by part, variant, seed and arm.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    kept = read_lines(out) if out.exists() else []
    new = {tuple(line[field] for field in _KEY) for line in lines}
    kept = [line for line in kept if tuple(line[field] for field in _KEY) not in new]
    every = sorted([*kept, *lines], key=_place)
    part = out.with_name(out.name + ".part")
    part.write_text("".join(json.dumps(line) + "\n" for line in every))
    part.rename(out)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a file of results.

    Raises:
        InputError: a line is damaged; the message names the file and the line.
    """
    lines = []
    for number, text in enumerate(path.read_text().splitlines(), 1):
        try:
            line = json.loads(text)
        except ValueError as error:
            raise InputError(f"{path}, line {number} is not JSON: {error}") from error
        lines.append(line)
    return lines


def _place(line: Mapping[str, Any]) -> tuple[Any, ...]:
    part = list(PARTS).index(line["part"]) if line["part"] in PARTS else len(PARTS)
    return part, line["tier"], line["exploratory"], line["variant"], line["seed"], line["arm"]


def _digest(settings: Any) -> str:
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:8]


def _copy_pool(source: Path, target: Path) -> None:
    """Copies the folder of a pool, which the stage `embed` then finds done."""
    if source.exists() and not target.exists():
        part = target.with_name(target.name + ".copying")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(source, part)
        part.rename(target)


def _probe_set(pipeline: Pipeline, cache: Path) -> HeldOutRows:
    """Returns the embedded probe set, which the file keeps for later variants."""
    if not cache.exists():
        held_out = embed_probe_set(pipeline.context.items)
        part = cache.with_suffix(".part.npz")
        np.savez(part, **held_out._asdict())
        part.rename(cache)
    with np.load(cache, allow_pickle=False) as saved:
        return HeldOutRows(**{name: saved[name] for name in HeldOutRows._fields})


def _arguments(argv: Iterable[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    default_data = os.environ.get("JAXCURATE_DATA") or HERE.parents[1] / "data"
    parser.add_argument("--pool", required=True, choices=PLANS)
    parser.add_argument("--part", required=True, choices=PARTS)
    parser.add_argument("--tier", default="small", choices=("small", "large"))
    parser.add_argument("--exploratory", action="store_true", help="items and seeds of development")
    parser.add_argument(
        "--finished", action="store_true", help="write what is finished, run nothing"
    )
    parser.add_argument(
        "--missing", action="store_true", help="leave out variants whose lines are whole"
    )
    parser.add_argument("--data", type=Path, default=default_data, help="folder of scripts/fetch")
    parser.add_argument("--work", type=Path, default=HERE.parents[1] / "runs" / "evidence")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    return parser.parse_args(None if argv is None else list(argv))


def main(argv: Iterable[str] | None = None) -> int:
    """Runs the command line, and returns its exit code."""
    from jaxcurate.runtime.compile_cache import use_compile_cache

    given = _arguments(argv)
    import jax

    use_compile_cache()
    if jax.config.jax_num_cpu_devices < 0:  # a device for each core, as the command line does
        jax.config.update("jax_num_cpu_devices", min(len(os.sched_getaffinity(0)), 8))
    side = "development" if given.exploratory else "results"
    work = given.work / f"{given.pool}-{side}-{given.tier}"
    flags = f"--pool={given.pool} --part={given.part}"
    flags += " --exploratory" if given.exploratory else ""
    flags += f" --tier={given.tier}" if given.tier != "small" else ""
    about = Labels(
        given.pool,
        given.part,
        f"scripts/evidence/run.py {flags}",
        given.exploratory,
        given.tier,
    )
    place = Place(given.data, work / "inputs", given.exploratory, given.tier == "large")
    try:
        run_part(
            PLANS[given.pool],
            about,
            place,
            work=work,
            out=given.out / f"{given.pool}.jsonl",
            progress=Progress(),
            finished=given.finished,
            missing=given.missing,
        )
    except InputError as error:
        print(f"run.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
