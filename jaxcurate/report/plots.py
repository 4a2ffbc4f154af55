"""Plots of the page."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from jaxcurate.report.drawing import COLORS, color_name, svg
from jaxcurate.report.numbers import count, decimals, percent, short, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Counts = Mapping[str, np.ndarray]
"""Number of items in each group by arm, with the groups in the same order."""


def fractions(name: str, alt: str, counts: Counts, groups: str) -> Markup:
    """Returns a plot of the fraction of the items in each group, on a logarithmic axis.

    Groups are in descending order of their size in the pool. The pool is a line, and every other
    arm has a dot for each group with items.

    Args:
        name: the name of the figure.
        alt: its description.
        counts: the number of items in each group, by arm.
        groups: the name of the groups, in the plural.
    """

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        order = np.argsort(-counts["pool"], kind="stable")
        ranks = np.arange(1, len(order) + 1)
        axes.axhline(1 / len(order), color=COLORS["soft"], linestyle=(0, (2, 3)), linewidth=1)
        for arm, sizes in counts.items():
            fraction = sizes[order] / max(1, sizes.sum())
            present = fraction > 0
            style: dict[str, Any] = {"color": COLORS[color_name(arm)]}
            if arm == "pool":
                style["drawstyle"] = "steps-mid"
            else:
                style |= {"linestyle": "none", "marker": "o", "markersize": 3, "alpha": 0.85}
            axes.plot(ranks[present], fraction[present], **style)
        axes.set_yscale("log")
        _digits(axes.yaxis, percent, log=True)
        _digits(axes.xaxis, count, whole=True)
        axes.set(xlabel=f"{groups}, by size in the pool", ylabel="share of items")

    return svg(name, alt, paint)


def lorenz(name: str, alt: str, counts: Counts, groups: str) -> Markup:
    """Returns Lorenz curves: the fraction of the items that the largest groups hold together."""

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=COLORS["soft"], linestyle=(0, (2, 3)), linewidth=1)
        for arm, sizes in counts.items():
            held = np.cumsum(np.sort(sizes)[::-1]) / max(1, sizes.sum())
            x = np.linspace(0, 1, len(held) + 1)
            axes.plot(x, np.append(0, held), color=COLORS[color_name(arm)])
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        _digits(axes.xaxis, percent)
        _digits(axes.yaxis, percent)
        axes.set(xlabel=f"{groups}, the largest first", ylabel="items they hold together")

    return svg(name, alt, paint)


def ranked(name: str, alt: str, counts: Counts, groups: str) -> Markup:
    """Returns a plot of the fractions of groups in descending order, on a logarithmic axis."""

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        for arm, sizes in counts.items():
            fraction = np.sort(sizes[sizes > 0])[::-1] / max(1, sizes.sum())
            ranks = np.arange(1, len(fraction) + 1)
            color = COLORS[color_name(arm)]
            axes.plot(ranks, fraction, color=color, marker="o", markersize=2.5, linewidth=1.2)
        axes.set_yscale("log")
        _digits(axes.yaxis, percent, log=True)
        _digits(axes.xaxis, count, whole=True)
        axes.set(xlabel=f"{groups}, the largest first", ylabel="share of items")

    return svg(name, alt, paint)


def cluster_sizes(name: str, alt: str, sizes: np.ndarray) -> Markup:
    """Returns histograms of the sizes of clusters: fractions of the points, and of the clusters.

    Args:
        name: the name of the figure.
        alt: its description.
        sizes: the number of points in each cluster, at least 1.
    """

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        edges = np.unique(np.round(np.geomspace(1, sizes.max() + 1, 26)).astype(np.int64))
        points, _ = np.histogram(sizes, edges, weights=sizes / sizes.sum())
        clusters, _ = np.histogram(sizes, edges, weights=np.full(len(sizes), 1 / len(sizes)))
        axes.stairs(points, edges, fill=True, color=COLORS["pool"], alpha=0.55)
        axes.stairs(clusters, edges, color=COLORS["ink"], linewidth=1.3)
        axes.set_xscale("log")
        axes.grid(visible=False, axis="x")
        _digits(axes.xaxis, count, log=True)
        _digits(axes.yaxis, percent)
        axes.set(xlabel="points in a cluster", ylabel="share")

    return svg(name, alt, paint, height=190)


def accuracies(
    name: str, alt: str, by_arm: Mapping[str, Sequence[float]], unit: str = "accuracy"
) -> Markup:
    """Returns a plot of accuracies by arm: a dot for every seed, and a bar for the mean."""

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        for place, (arm, values) in enumerate(by_arm.items()):
            color = COLORS[color_name(arm)]
            mean = float(np.mean(values))
            axes.plot(values, [place] * len(values), "o", color=color, markersize=5, alpha=0.5,
                      markeredgewidth=0)  # fmt: skip
            axes.plot([mean, mean], [place - 0.3, place + 0.3], color=color, linewidth=2.6)
            _beside(axes, place, decimals(mean))
        _rows(axes, list(by_arm))
        axes.margins(x=0.08)
        _digits(axes.xaxis, lambda x: f"{x:.3g}")
        axes.set_xlabel(unit)

    return svg(name, alt, paint, height=50 + 28 * len(by_arm))


def forest(name: str, alt: str, rows: Mapping[str, Mapping[str, Any]]) -> Markup:
    """Returns a forest plot of differences: filled if the interval excludes zero, else hollow.

    Args:
        name: the name of the figure.
        alt: its description.
        rows: intervals with ``mean``, ``low``, ``high`` and ``values``, by label.
    """

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.axvline(0, color=COLORS["ink"], linewidth=1)
        for place, interval in enumerate(rows.values()):
            mean, low, high = (interval[key] for key in ("mean", "low", "high"))
            excludes_zero = low > 0 or high < 0
            color = COLORS["curated"] if excludes_zero else COLORS["soft"]
            if np.isfinite([low, high]).all():
                axes.plot([low, high], [place, place], color=color, linewidth=1.8)
            values = interval["values"]
            axes.plot(values, [place] * len(values), "|", color=color, alpha=0.55,
                      markersize=7)  # fmt: skip
            axes.plot(mean, place, "s", color=color, markersize=6,
                      markerfacecolor=color if excludes_zero else "none")  # fmt: skip
            _beside(axes, place, signed(mean))
        _rows(axes, list(rows))
        axes.margins(x=0.08)
        _digits(axes.xaxis, lambda x: f"{x:+.3g}".replace("-", "\N{MINUS SIGN}") if x else "0")
        axes.set_xlabel("difference of accuracies")

    return svg(name, alt, paint, height=50 + 24 * len(rows))


def losses(name: str, alt: str, by_arm: Mapping[str, np.ndarray]) -> Markup:
    """Returns a plot of training losses: bold for the mean over seeds, thin for every seed."""

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        for arm, curves in by_arm.items():
            color = COLORS[color_name(arm)]
            steps, curves = _thinned(np.atleast_2d(curves))
            axes.plot(steps, curves.T, color=color, linewidth=0.6, alpha=0.35)
            axes.plot(steps, curves.mean(axis=0), color=color)
        _digits(axes.xaxis, count)
        _digits(axes.yaxis, lambda x: f"{x:.3g}")
        axes.set(xlabel="step", ylabel="loss")

    return svg(name, alt, paint)


def scatter(name: str, alt: str, pool: np.ndarray, subset: np.ndarray) -> Markup:
    """Returns scatter plots of the points ``[n, 2]`` of the pool and of the subset."""

    def paint(figure: "Figure") -> None:
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, arm, points in zip(panels, ("pool", "curated"), (pool, subset), strict=True):
            size = float(np.clip(2e4 / max(1, len(points)), 1, 14))
            axes.scatter(*points.T, s=size, color=COLORS[arm], alpha=0.6, linewidth=0,
                         rasterized=True)  # fmt: skip
            axes.set_aspect("equal", adjustable="box")
            _digits(axes.xaxis, lambda x: f"{x:.3g}")
            _digits(axes.yaxis, lambda x: f"{x:.3g}")

    return svg(name, alt, paint, width=720, height=360)


def _digits(axis: "Axis", write: Any, *, log: bool = False, whole: bool = False) -> None:
    """Sets a few ticks, with labels in the formats of the page."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    locator = LogLocator(numticks=6) if log else MaxNLocator(5, integer=whole)
    axis.set_major_locator(locator)
    axis.set_major_formatter(FuncFormatter(lambda x, _: write(x)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", length=0)
    axis.set_tick_params(which="major", length=3)


def _rows(axes: "Axes", labels: list[str]) -> None:
    """Lays out a row for each label, from top to bottom."""
    axes.set_yticks(range(len(labels)), [short(label, 22) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=COLORS["ink"])


def _beside(axes: "Axes", place: int, text: str) -> None:
    """Writes a number to the right of a row."""
    axes.text(1.02, place, text, transform=axes.get_yaxis_transform(), va="center",
              color=COLORS["ink"])  # fmt: skip


def _thinned(curves: np.ndarray, most: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Returns steps, and curves ``[m, n]`` as means over equal intervals if they are long."""
    length = -(-curves.shape[1] // most)
    n = curves.shape[1] // length
    means = curves[:, : n * length].reshape(len(curves), n, length).mean(axis=2)
    return 1 + np.arange(n) * length + (length - 1) / 2, means
