"""One process of several, started by test_processes.py, and what both do with the rows."""

import json
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import jax
import numpy as np

import jaxcurate as jc
from jaxcurate.curation import dedup, growth
from jaxcurate.encoders import fit_pca
from jaxcurate.evaluation import coverage
from jaxcurate.kmeans import normalize, predict, splitting
from jaxcurate.kmeans.row_view import RowView
from jaxcurate.runtime import facts, processes
from jaxcurate.runtime.devices import Devices, fetch
from jaxcurate.runtime.sharing import own_items, share

jax.config.update("jax_numpy_rank_promotion", "raise")


def small_pieces(work):
    """Gives few rows enough pieces for something to be divided."""
    for module, name, value in (
        (normalize, "_CHUNK", 256),
        (splitting, "_STACK_ROWS", 1024),
        (predict, "_CHUNK_BYTES", 2**14),
    ):
        work = mock.patch.object(module, name, value)(work)
    return work


@small_pieces
def fits(x, devices, few=False):
    """Clusterings of the rows, as named arrays; ``few`` leaves out the less usual ways."""
    # Compiling takes nearly all of the time: what can share shapes does.
    kmeans = lambda init, max_iter=30, **options: jc.kmeans(
        x, 12, init, max_iter, seed=3, devices=devices, **options
    )
    runs = {"k-means++": kmeans("k-means++")}
    found = {}
    if not few:
        for init in ("k-means||", "random"):
            runs[init] = kmeans(init)
        runs["array"] = kmeans(np.asarray(x[:12]))
        limit = len(x) * x.shape[1] * 4 - 1
        runs["streamed"] = kmeans("k-means++", 3, memory_limit=limit)
        runs["streamed k-means||"] = kmeans("k-means||", 3, memory_limit=limit)
        tree = jc.hierarchical_kmeans(
            x,
            [jc.Level(12, 1, 5, n_fit=2500), jc.Level(12)],
            5,
            rows=np.arange(300, len(x)),
            max_iter=30,
            devices=devices,
        )
        streamed = jc.hierarchical_kmeans(
            x,
            [jc.Level(12, 1, 5)],
            5,
            rows=np.arange(300, len(x)),
            init="k-means||",
            max_iter=3,
            memory_limit=limit - 4 * 300 * x.shape[1],
            devices=devices,
        )
        for number, level in enumerate([*tree.levels, *streamed.levels], 1):
            found |= {f"tree: {number}.{i}": array for i, array in enumerate(level)}
        labels = np.arange(len(x)) % 8
        parts = splitting.split_clusters(RowView(x), labels, 2, jax.random.key(0), 5, devices)
        found |= {f"split: {i}": array for i, array in enumerate(parts)}
    for name, run in runs.items():
        arrays = run.centroids, run.labels, run.distances, np.array(run.n_iter)
        found |= {f"{name}: {i}": array for i, array in enumerate(arrays)}
    return found


class Recorded:
    """Rows that remember which of them were read."""

    def __init__(self, x):
        self.x, self.shape, self.dtype, self.read = x, x.shape, x.dtype, np.zeros(len(x), int)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, rows):
        self.read[rows] += 1
        return self.x[rows]


@small_pieces
def parts(x, devices):
    """Returns the rows that a process reads for frame, devices and a fit, and what it got."""
    for_frame, placed, fitted = Recorded(x), Recorded(x), Recorded(x)
    there = normalize.fit_normalizer(for_frame, devices=devices)
    rows, weights = devices.put_rows(placed, 16, at_least=len(x) + 100)
    starts = range(0, len(x), 128)
    batches = lambda rows, starts: (rows[i : i + 128] for i in starts)
    shared = fit_pca(batches(fitted, own_items(starts, devices)), 4, devices=devices)
    alone = fit_pca(batches(x, starts), 4, devices=devices.local)
    return {
        "for frame": for_frame.read,
        "placed": placed.read,
        "fitted": fitted.read,
        "components": shared.components,
        "components of one": alone.components,
        "center": shared.mean,
        "center of one": alone.mean,
        "rows": fetch(rows),
        "weights": fetch(weights),
        "mean": there.mean,
    }


def message(of):
    """The kind and the text of the error that a call raises."""
    try:
        of()
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


@small_pieces
def errors(x, devices):
    """What is said of arguments that cannot be used."""

    mine = jax.process_index()
    bad = np.array(x)
    bad[[10, 2000], 1] = np.nan
    last = np.array(x)
    last[-1] = np.inf

    def fails_in_one(items):
        if mine == 1:
            raise OSError("the disk is gone")
        return (np.zeros(len(items)),)

    levels = [jc.Level(5)]
    said = {
        "nan": lambda: jc.kmeans(bad, 3),
        "infinite": lambda: jc.hierarchical_kmeans(last, levels),
        "only assigned": lambda: jc.hierarchical_kmeans(bad, levels, rows=np.arange(20, 90)),
        "init": lambda: jc.kmeans(x, 3, "best"),
        "too many": lambda: jc.kmeans(x, len(x) + 1),
        "not the same": lambda: jc.kmeans(x[: len(x) - mine], 3),
        "one fails": lambda: share(range(9), fails_in_one, devices),
        "pmap": lambda: replace(devices, mapper="pmap").spmd(len, (), ()),
        "no device": lambda: Devices.first(2),
    }
    return {name: np.array(message(of)) for name, of in said.items()}


def differing(x, devices):
    """What is said of calls that are not the same in all processes."""
    mine = jax.process_index()
    either = lambda first, other: other if mine else first
    kmeans = lambda **given: jc.kmeans(**{"x": x, "n_clusters": 3, "devices": devices} | given)
    levels = lambda k: jc.hierarchical_kmeans(x, [jc.Level(k)], devices=devices)
    other = np.array(x)
    other[-1] += 1
    calls = {
        "n_clusters": lambda: kmeans(n_clusters=either(3, 4)),
        "max_iter": lambda: kmeans(max_iter=either(50, 30)),
        "metric": lambda: kmeans(metric=either("euclidean", "cosine")),
        "memory_limit": lambda: kmeans(memory_limit=either(None, 10**5)),
        "init": lambda: kmeans(init=either("k-means++", x[:3])),
        "seed": lambda: kmeans(seed=mine),
        "dtype": lambda: kmeans(x=either(x, x.astype(np.float64))),
        "content": lambda: kmeans(x=either(x, other)),
        "levels": lambda: levels(either(5, 6)),
        "tree": lambda: growth.grow(either(tree(4), tree(5)), x, devices=devices),
        "rows": lambda: coverage.measure_coverage(x, either([1, 2], [1, 3]), devices=devices),
        "threshold": lambda: dedup.deduplicate(x, either(0.9, 0.8), devices=devices),
        "call": lambda: either(kmeans, lambda: levels(3))(),
        "jax_default_matmul_precision": lambda: with_precision(either(None, "highest")),
    }

    def tree(k):
        labels, distances = np.zeros(9, np.int32), np.zeros(9, np.float32)
        return jc.ClusterTree((jc.TreeLevel(np.eye(k, 6, dtype=np.float32), labels, distances),))

    def with_precision(precision):
        with jax.default_matmul_precision(precision):
            kmeans()

    return {name: np.array(message(of)) for name, of in calls.items()}


def running():
    """Marks that this process has begun its work."""
    (Path(sys.argv[2]).parent / f"running{jax.process_index()}").touch()


def asked():
    """Whether the test asks this process to do what it came for."""
    return (Path(sys.argv[2]).parent / "go").exists()


def endless(x, devices, at_go=lambda: None):
    """Goes on until the process is ended; process 1 does something else where a file asks."""
    for _ in range(10**6):
        normalize.fit_normalizer(x, devices=devices)
        running()
        if jax.process_index() == 1 and asked():
            at_go()


def idle(x, devices):
    """Works on the host alone, so that no broken connection tells of the others."""
    normalize.fit_normalizer(x, devices=devices)
    running()
    time.sleep(600)


def breaks(x, devices):
    """Process 1 raises an error."""

    def fail():
        raise OSError("the disk is gone")

    endless(x, devices, fail)


def sticks(x, devices):
    """Process 1 waits for a lock that nobody gives back."""

    def lock():
        held = threading.Lock()
        held.acquire()
        held.acquire()

    endless(x, devices, lock)


def leaves(x, devices):
    """Process 1 ends its program before the others do."""
    endless(x, devices, sys.exit)


def computes(x, devices):
    """Process 1 computes for longer than a stuck process may be at rest."""
    for _ in range(2):
        end = time.monotonic() + 5
        while jax.process_index() == 1 and time.monotonic() < end:
            sum(range(10**4))
        normalize.fit_normalizer(x, devices=devices)
    return {}


def main():
    what, path, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    other_code = {"jaxcurate": "0.0.1"} if options.pop("other_code", False) else {}
    if options["num_processes"] > 1:
        with mock.patch.object(processes, "code_facts", lambda: facts.code_facts() | other_code):
            processes.initialize(**options)
    x = np.load(Path(path).parent / "x.npy", mmap_mode="r")
    devices = Devices.all()
    few = {"few": True} if what == "few" else {}
    work = {"few": fits, "fits": fits, "parts": parts, "errors": errors}
    work |= {"differing": differing, "endless": endless, "idle": idle, "breaks": breaks}
    work |= {"sticks": sticks, "leaves": leaves, "computes": computes}
    np.savez(path, **work[what](x, devices, **few))


if __name__ == "__main__":
    main()
