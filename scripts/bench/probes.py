#!/usr/bin/env python3
"""Measures the time of each probe of frozen features beside scikit-learn.

    python scripts/bench/probes.py
    python scripts/bench/probes.py --n 50000 --m 10000 --d 384 --classes 100

Features are Gaussian clusters whose directions have unequal spread, as those of encoders have.
Contenders take turns. Times are seconds on the wall, the least of the rounds, so that compilation
is in none of them; the first call, with compilation, is shown beside. Few-shot probes make ten
draws. Logistic regression is fitted with one penalty (``linear, fit``) and with the sweep of
penalties, in which scikit-learn starts each fit from the one before, too. On a machine that others
use, the BLAS of scikit-learn is up to a hundred times slower with two threads than with
``--threads 1``, because its threads wait for each other in loops.
"""

import argparse
import importlib
import time
from collections.abc import Callable

import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from threadpoolctl import threadpool_limits

from jaxcurate.evaluation import (
    ProbeTask,
    average_precisions,
    knn,
    linear,
    probe_all,
    ridge,
)
from jaxcurate.evaluation.probes.base import moments, unit_rows
from jaxcurate.evaluation.probes.few_shot import N_DRAWS, drawn, few_shot_scores
from jaxcurate.evaluation.probes.ridge import L2_GRID

linear_module = importlib.import_module("jaxcurate.evaluation.probes.linear")
Measure = Callable[[], float]
L2 = 1e-2
"""Penalty of the single fit."""


def features(n: int, m: int, d: int, n_classes: int) -> ProbeTask:
    """Returns features of a probe set and of a test set."""
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(d, d)) / d**0.5 * np.geomspace(1, 0.1, d)[:, None]
    centers = 0.35 * rng.normal(size=(n_classes, d))

    def split(rows: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, rows - n_classes)])
        x = (centers[y] + rng.normal(size=(rows, d))) @ basis + 1
        return x.astype(np.float32), y

    return ProbeTask(*split(n), *split(m))


def contenders(
    task: ProbeTask,
) -> dict[str, tuple[Callable[[], float], Callable[[], float] | None]]:
    """Returns for each probe two functions that return its score: ours, and scikit-learn's."""
    train_x, train_y, test_x, test_y = task
    n = len(train_x)
    mean, spread = moments(train_x)
    z, z_test = (((x - mean) / spread).astype(np.float32) for x in (train_x, test_x))

    def accuracy(predicted: np.ndarray) -> float:
        return float(np.mean(predicted == test_y))

    def other_knn() -> float:
        weights = lambda distances: np.exp((1 - distances) / 0.07)
        model = KNeighborsClassifier(20, metric="cosine", weights=weights, algorithm="brute")
        return accuracy(model.fit(train_x, train_y).predict(test_x))

    def other_ridge() -> float:
        model = RidgeClassifierCV([l2 * n for l2 in L2_GRID])
        return accuracy(model.fit(z.astype(np.float64), train_y).predict(z_test))

    def other_fit() -> float:
        model = LogisticRegression(C=1 / (L2 * n), tol=1e-5, max_iter=1000)
        return accuracy(model.fit(z, train_y).predict(z_test))

    def other_sweep() -> float:
        held = linear_module.held_out(np.unique(train_y, return_inverse=True)[1])
        fitted, judged = (z[~held], train_y[~held]), (z[held], train_y[held])
        model = LogisticRegression(tol=1e-4, max_iter=1000, warm_start=True)
        best, n_worse = (-1.0, 1.0), 0
        for l2 in linear_module.L2_GRID:
            model.set_params(C=1 / (l2 * len(fitted[0]))).fit(*fitted)
            score = model.score(*judged)
            n_worse = 0 if score > best[0] else n_worse + 1
            best = max(best, (score, l2))
            if n_worse == linear_module._PATIENCE:
                break
        model.set_params(C=1 / (best[1] * n), tol=1e-5).fit(z, train_y)
        return accuracy(model.predict(z_test))

    def other_few_shot() -> float:
        unit, unit_test = unit_rows(train_x), unit_rows(test_x)
        classes = np.unique(train_y, return_inverse=True)[1]
        scores = []
        for draw in range(N_DRAWS):
            rows = drawn(classes, 5, draw)
            scores.append(
                accuracy(NearestCentroid().fit(unit[rows], train_y[rows]).predict(unit_test))
            )
        return float(np.mean(scores))

    def other_retrieval() -> float:
        unit, unit_test = unit_rows(train_x), unit_rows(test_x)
        precisions = [
            average_precision_score(train_y == label, unit @ query)
            for query, label in zip(unit_test, test_y, strict=True)
        ]
        return float(np.mean(precisions))

    labels, none = test_y.astype(str), np.full(len(test_y), "")
    return {
        "k-NN": (lambda: accuracy(knn(train_x, train_y, test_x)), other_knn),
        "ridge": (lambda: accuracy(ridge(train_x, train_y, test_x)), other_ridge),
        "linear, fit": (lambda: accuracy(linear(train_x, train_y, test_x, l2=L2)), other_fit),
        "linear, sweep": (lambda: accuracy(linear(train_x, train_y, test_x)), other_sweep),
        "5-shot": (lambda: float(few_shot_scores(task, n_shots=5).mean()), other_few_shot),
        "retrieval mAP": (lambda: float(average_precisions(*task).mean()), other_retrieval),
        "RankMe": (
            lambda: probe_all(test_x, test_x, labels, labels, none, {}, ["rankme"])["rankme"],
            None,
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=3000, help="rows of the probe set")
    parser.add_argument("--m", type=int, default=500, help="rows of the test set")
    parser.add_argument("--d", type=int, default=64, help="features")
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="*", help="names of probes")
    parser.add_argument("--alone", action="store_true", help="without scikit-learn")
    parser.add_argument("--threads", type=int, help="of the BLAS of numpy and scikit-learn")
    args = parser.parse_args()
    threadpool_limits(args.threads)
    task = features(args.n, args.m, args.d, args.classes)
    print(f"{args.n:,} x {args.d} train, {args.m:,} test, {args.classes} classes")
    print(f"{'probe':<15}{'first call':>11}{'ours':>9}{'sklearn':>9}{'score':>9}{'sklearn':>9}")
    for name, (ours, other) in contenders(task).items():
        if args.only and name not in args.only:
            continue
        seconds: dict[str, list[float]] = {"ours": [], "sklearn": []}
        scores = {}
        for turn in range(args.rounds + 1):
            for who, contender in (("ours", ours), ("sklearn", other)):
                if contender is None or (who == "sklearn" and (args.alone or turn == 0)):
                    continue
                begun = time.perf_counter()
                scores[who] = contender()
                seconds[who].append(time.perf_counter() - begun)
        first, *later = seconds["ours"]
        shown = [f"{first:>11.2f}", f"{min(later):>9.2f}"]
        shown += [f"{min(seconds['sklearn']):>9.2f}" if seconds["sklearn"] else f"{'-':>9}"]
        shown += [f"{scores[who]:>9.4f}" if who in scores else f"{'-':>9}" for who in seconds]
        print(f"{name:<15}" + "".join(shown), flush=True)


if __name__ == "__main__":
    main()
