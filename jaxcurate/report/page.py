"""Self-contained HTML page, made from findings."""

import functools
import json
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from jaxcurate.report import numbers, plots
from jaxcurate.report.balance import arms_of, over_clusters, over_groups
from jaxcurate.report.choose import choose
from jaxcurate.report.clusters import clusters
from jaxcurate.report.drawing import color_name
from jaxcurate.report.duplicates import Pair, duplicates, lowest
from jaxcurate.report.evaluation import arm_names, outcome
from jaxcurate.report.findings import Findings
from jaxcurate.report.gallery import gallery
from jaxcurate.report.items import LARGE, SMALL, read_items
from jaxcurate.report.left_out import left_out
from jaxcurate.report.measures import measures, reasons
from jaxcurate.report.provenance import provenance
from jaxcurate.report.tree import level_sizes

if TYPE_CHECKING:
    import jinja2

_POINTS = 20_000
"""Largest number of points in a scatter plot."""
_GENERATOR = '<meta name="generator" content="jaxcurate">'


def is_report(text: str) -> bool:
    """Returns whether a page was made by :func:`render`.

    Examples:
        >>> is_report("<html><head></head></html>")
        False
    """
    return _GENERATOR in text


def is_whole(text: str) -> bool:
    """Returns whether a page is complete, that is, not truncated.

    Examples:
        >>> is_whole("<html><body></body></html>"), is_whole("<html><body>")
        (True, False)
    """
    return text.rstrip().endswith("</html>")


def render(findings: Findings) -> str:
    """Returns the page; the same findings give the same bytes.

    The page loads no other file, neither from the network nor from the disk, and runs no script.
    It has at most about 10 MB.

    Args:
        findings: the contents of the page.

    Returns:
        HTML that contains ``findings.made_from``.

    Examples:
        >>> import jaxcurate as jc
        >>> x = np.random.default_rng(0).normal(size=(40, 3))
        >>> pool = jc.make_pool(x)
        >>> tree = jc.ClusterTree.from_labels([np.arange(40) % 5])
        >>> findings = Findings(
        ...     title="Vectors", source="npy:x.npy", kind="vector", made_from="0a1b2c3d",
        ...     settings={}, cards={}, pool=pool, tree=tree, indices=np.arange(10),
        ...     contents=lambda rows: [None] * len(rows), links=lambda rows: [None] * len(rows),
        ...     results=None, losses={},
        ... )
        >>> page = render(findings)
        >>> is_report(page), "<h1>Vectors</h1>" in page
        (True, True)
    """
    is_kept = np.zeros(len(findings.pool), bool)
    is_kept[findings.indices] = True
    choices = choose(findings, is_kept)
    pairs = lowest(findings.duplicates) if "dedup" in findings.cards else []
    large = [c.rows for c in choices.strips] + [choices.kept, choices.dropped]
    large += [np.array(pair[:2], np.int64) for pair in pairs]
    small = [c.rows for c in choices.listed]
    large_items, small_items = read_items(
        findings.contents, findings.links, findings.pool.ids, is_kept,
        [(LARGE, np.concatenate(large)), (SMALL, np.concatenate(small))],
    )  # fmt: skip
    kinds = over_groups((findings.results or {}).get("balance", {}))
    template = _templates().get_template("page.html.jinja")
    page = template.render(
        findings=findings,
        title=findings.title or findings.source,
        generator=Markup(_GENERATOR),
        n_pool=len(findings.pool),
        n_kept=len(findings.indices),
        n_distinct=len(np.unique(findings.indices)),
        spread=over_clusters(findings),
        kinds=kinds,
        arms=arms_of(kinds),
        measures=measures(findings.cards),
        reasons=reasons(findings.cards),
        duplicates=duplicates(
            findings.cards,
            len(findings.pool),
            [Pair(large_items[a], large_items[b], similarity) for a, b, similarity in pairs],
        ),
        levels=level_sizes(findings.tree),
        gallery=gallery(choices, large_items),
        clusters=clusters(findings.tree, choices, small_items, is_kept),
        left_out=left_out(findings.cards),
        scatter=_scatter(findings) if findings.kind == "vector" else None,
        outcome=outcome(findings),
        arm_names=arm_names(findings),
        provenance=provenance(findings.cards),
        as_text=lambda value: json.dumps(value, ensure_ascii=False),
    )
    # An id may be a file name that is not Unicode, but the page must be.
    return page.encode("utf-8", "replace").decode("utf-8")


@functools.cache
def _templates() -> "jinja2.Environment":
    """Returns the templates, which are compiled once in a process."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxcurate.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(numbers, name)
        for name in ("count", "percent", "signed", "figure", "decimals", "duration", "short")
    }
    environment.filters["color_name"] = color_name
    return environment


def _scatter(findings: Findings) -> Markup | None:
    """Returns a scatter plot of the pool and the subset, if embeddings have two dimensions."""
    points = findings.pool.embeddings
    if points.shape[1] != 2:
        return None
    rng = np.random.default_rng(0)
    rows = [np.arange(len(points)), np.unique(findings.indices)]
    rows = [np.sort(rng.choice(all_, min(_POINTS, len(all_)), replace=False)) for all_ in rows]
    alt = "The pool's points on the left, those of the curated subset on the right."
    return plots.scatter("points", alt, *(np.asarray(points[shown]) for shown in rows))
