"""The page's plots."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from jaxcurate.report.drawing import COLOURS, svg
from jaxcurate.report.numbers import count, decimals, percent, short, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Counts = Mapping[str, np.ndarray]
"""Arm to items in each group, in one order for all."""


def shares(name: str, alt: str, counts: Counts, what: str) -> Markup:
    """Returns each group's share of the items, the pool's largest group first, on a logarithmic
    axis.

    Of the pool a line, of every other arm a dot for each group; groups without items have none.
    """

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        order = np.argsort(-counts["pool"], kind="stable")
        ranks = np.arange(1, len(order) + 1)
        axes.axhline(1 / len(order), color=COLOURS["soft"], linestyle=(0, (2, 3)), linewidth=1)
        for arm, sizes in counts.items():
            share = sizes[order] / max(1, sizes.sum())
            there = share > 0
            style: dict[str, Any] = {"color": COLOURS.get(arm, COLOURS["soft"])}
            if arm == "pool":
                style["drawstyle"] = "steps-mid"
            else:
                style |= {"linestyle": "none", "marker": "o", "markersize": 3, "alpha": 0.85}
            axes.plot(ranks[there], share[there], **style)
        axes.set_yscale("log")
        _digits(axes.yaxis, percent, log=True)
        _digits(axes.xaxis, count, whole=True)
        axes.set(xlabel=f"{what}, by size in the pool", ylabel="share of items")

    return svg(name, alt, paint)


def lorenz(name: str, alt: str, counts: Counts, what: str) -> Markup:
    """Returns what share of the items the largest groups hold together."""

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=COLOURS["soft"], linestyle=(0, (2, 3)), linewidth=1)
        for arm, sizes in counts.items():
            held = np.cumsum(np.sort(sizes)[::-1]) / max(1, sizes.sum())
            x = np.linspace(0, 1, len(held) + 1)
            axes.plot(x, np.append(0, held), color=COLOURS.get(arm, COLOURS["soft"]))
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        _digits(axes.xaxis, percent)
        _digits(axes.yaxis, percent)
        axes.set(xlabel=f"{what}, the largest first", ylabel="items they hold together")

    return svg(name, alt, paint)


def ranked(name: str, alt: str, counts: Counts, what: str) -> Markup:
    """Returns shares of groups, each arm's own largest first, on a logarithmic axis."""

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        for arm, sizes in counts.items():
            share = np.sort(sizes[sizes > 0])[::-1] / max(1, sizes.sum())
            ranks = np.arange(1, len(share) + 1)
            shade = COLOURS.get(arm, COLOURS["soft"])
            axes.plot(ranks, share, color=shade, marker="o", markersize=2.5, linewidth=1.2)
        axes.set_yscale("log")
        _digits(axes.yaxis, percent, log=True)
        _digits(axes.xaxis, count, whole=True)
        axes.set(xlabel=f"{what}, the largest first", ylabel="share of items")

    return svg(name, alt, paint)


def cluster_sizes(name: str, alt: str, sizes: np.ndarray) -> Markup:
    """Returns what share of the points lies in clusters of which size, and what share those
    clusters are.

    Args:
        name: of the figure.
        alt: its description.
        sizes: points of each cluster, at least 1.
    """

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        edges = np.unique(np.round(np.geomspace(1, sizes.max() + 1, 26)).astype(np.int64))
        points, _ = np.histogram(sizes, edges, weights=sizes / sizes.sum())
        clusters, _ = np.histogram(sizes, edges, weights=np.full(len(sizes), 1 / len(sizes)))
        axes.stairs(points, edges, fill=True, color=COLOURS["pool"], alpha=0.55)
        axes.stairs(clusters, edges, color=COLOURS["ink"], linewidth=1.3)
        axes.set_xscale("log")
        axes.grid(visible=False, axis="x")
        _digits(axes.xaxis, count, log=True)
        _digits(axes.yaxis, percent)
        axes.set(xlabel="points in a cluster", ylabel="share")

    return svg(name, alt, paint, height=190)


def accuracies(name: str, alt: str, by_arm: Mapping[str, Sequence[float]]) -> Markup:
    """Returns every seed a dot, the mean a bar."""

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        for place, (arm, values) in enumerate(by_arm.items()):
            shade = COLOURS.get(arm, COLOURS["soft"])
            mean = float(np.mean(values))
            axes.plot(values, [place] * len(values), "o", color=shade, markersize=5, alpha=0.5,
                      markeredgewidth=0)  # fmt: skip
            axes.plot([mean, mean], [place - 0.3, place + 0.3], color=shade, linewidth=2.6)
            _beside(axes, place, decimals(mean))
        _rows(axes, list(by_arm))
        axes.margins(x=0.08)
        _digits(axes.xaxis, lambda x: f"{x:.3g}")
        axes.set_xlabel("accuracy")

    return svg(name, alt, paint, height=50 + 28 * len(by_arm))


def forest(name: str, alt: str, rows: Mapping[str, Mapping[str, Any]]) -> Markup:
    """Returns differences with their intervals: filled where zero is outside, hollow where it is
    not.

    Args:
        name: of the figure.
        alt: its description.
        rows: label to an interval with ``mean``, ``low``, ``high`` and ``values``.
    """

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.axvline(0, color=COLOURS["ink"], linewidth=1)
        for place, one in enumerate(rows.values()):
            sure = one["low"] > 0 or one["high"] < 0
            shade = COLOURS["curated"] if sure else COLOURS["soft"]
            if np.isfinite([one["low"], one["high"]]).all():
                axes.plot([one["low"], one["high"]], [place, place], color=shade, linewidth=1.8)
            axes.plot(one["values"], [place] * len(one["values"]), "|", color=shade, alpha=0.55,
                      markersize=7)  # fmt: skip
            axes.plot(one["mean"], place, "s", color=shade, markersize=6,
                      markerfacecolor=shade if sure else "none")  # fmt: skip
            _beside(axes, place, signed(one["mean"]))
        _rows(axes, list(rows))
        axes.margins(x=0.08)
        _digits(axes.xaxis, lambda x: f"{x:+.3g}".replace("-", "\N{MINUS SIGN}") if x else "0")
        axes.set_xlabel("difference of accuracies")

    return svg(name, alt, paint, height=50 + 24 * len(rows))


def losses(name: str, alt: str, by_arm: Mapping[str, np.ndarray]) -> Markup:
    """Returns training losses: the mean over seeds bold, every seed thin."""

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        for arm, curves in by_arm.items():
            shade = COLOURS.get(arm, COLOURS["soft"])
            steps, curves = _thinned(np.atleast_2d(curves))
            axes.plot(steps, curves.T, color=shade, linewidth=0.6, alpha=0.35)
            axes.plot(steps, curves.mean(axis=0), color=shade)
        _digits(axes.xaxis, count)
        _digits(axes.yaxis, lambda x: f"{x:.3g}")
        axes.set(xlabel="step", ylabel="loss")

    return svg(name, alt, paint)


def scatter(name: str, alt: str, pool: np.ndarray, subset: np.ndarray) -> Markup:
    """Returns points ``[n, 2]`` of the pool beside those of the subset."""

    def paint(figure: "Figure") -> None:
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, arm, points in zip(panels, ("pool", "curated"), (pool, subset), strict=True):
            size = float(np.clip(2e4 / max(1, len(points)), 1, 14))
            axes.scatter(*points.T, s=size, color=COLOURS[arm], alpha=0.6, linewidth=0,
                         rasterized=True)  # fmt: skip
            axes.set_aspect("equal", adjustable="box")
            _digits(axes.xaxis, lambda x: f"{x:.3g}")
            _digits(axes.yaxis, lambda x: f"{x:.3g}")

    return svg(name, alt, paint, width=720, height=360)


def _digits(axis: "Axis", write: Any, *, log: bool = False, whole: bool = False) -> None:
    """Sets few ticks, with labels as everywhere else on the page."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    locator = LogLocator(numticks=6) if log else MaxNLocator(5, integer=whole)
    axis.set_major_locator(locator)
    axis.set_major_formatter(FuncFormatter(lambda x, _: write(x)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", length=0)
    axis.set_tick_params(which="major", length=3)


def _rows(axes: "Axes", labels: list[str]) -> None:
    """Lays out one row for each label, from the top down."""
    axes.set_yticks(range(len(labels)), [short(label, 22) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])


def _beside(axes: "Axes", place: int, text: str) -> None:
    """Writes a number at the right of a row."""
    axes.text(1.02, place, text, transform=axes.get_yaxis_transform(), va="center",
              color=COLOURS["ink"])  # fmt: skip


def _thinned(curves: np.ndarray, most: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Returns curves ``[m, n]`` with their steps, as means over equal stretches if they are
    long."""
    stretch = -(-curves.shape[1] // most)
    n = curves.shape[1] // stretch
    means = curves[:, : n * stretch].reshape(len(curves), n, stretch).mean(axis=2)
    return 1 + np.arange(n) * stretch + (stretch - 1) / 2, means
