"""Matplotlib figures as inline SVG, in the colors and fonts of the page."""

import io
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = {
    "ink": "#4a5460",
    "soft": "#6b7580",
    "rule": "#b9c0c7",
    "curated": "#d0541f",
    "random": "#848c95",
    "pool": "#3f7dc0",
    "flat": "#5c8433",
    "stratified": "#8355b5",
    "flat_plain": "#2e8a80",
    "deduplicated": "#a3761b",
    "mixed": "#b5437a",
    "elsewhere": "#7d6249",
    "untrained": "#a4abb3",
}
"""Colors by the name of the CSS variable that replaces them in the page."""


def color_name(arm: str) -> str:
    """Returns the name of the color of an arm, which is its class in the page as well.

    Examples:
        >>> color_name("flat"), color_name("a subset of mine")
        ('flat', 'elsewhere')
    """
    return arm if arm in COLORS and arm not in ("ink", "soft", "rule") else "elsewhere"


_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxcurate",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": COLORS["soft"],
    "axes.edgecolor": COLORS["rule"],
    "axes.labelcolor": COLORS["soft"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": COLORS["rule"],
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "xtick.color": COLORS["rule"],
    "ytick.color": COLORS["rule"],
    "xtick.labelcolor": COLORS["soft"],
    "ytick.labelcolor": COLORS["soft"],
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def svg(
    name: str, alt: str, paint: Callable[["Figure"], None], *, width: int = 360, height: int = 220
) -> Markup:
    """Returns a figure as an ``<svg>`` element, the same bytes for the same figure.

    Args:
        name: a name that no other figure of the page has, for the ids in the element.
        alt: a description of the figure for screen readers.
        paint: function that draws into an empty figure, with the colors of :data:`COLORS`.
        width: width in CSS pixels at which text has the size of small print; the page may scale
            the figure.
        height: height in CSS pixels.
    """
    import matplotlib
    from matplotlib.figure import Figure

    file = io.StringIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        # The browser sets the text, and has more fonts than matplotlib.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()  # ignores the style of the user's own plots
        matplotlib.rcParams.update(cast(Any, _STYLE))
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        paint(figure)
        figure.savefig(file, format="svg", transparent=True, dpi=150, metadata=_NO_METADATA)
    return Markup(_adopt(file.getvalue(), name, alt))


def _adopt(text: str, name: str, alt: str) -> str:
    """Returns the text of an SVG file as an element of the page."""
    box = re.search(r'viewBox="([\d. ]+)"', text)
    body = text[text.index(">", text.index("<svg")) + 1 :]
    unused = r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->"
    body = re.sub(unused, "", body, flags=re.DOTALL)
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r'\bid="|url\(#|href="#', lambda match: f"{match[0]}{name}-", body)
    body = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", body)
    for variable, color in COLORS.items():
        body = body.replace(color, f"var(--{variable})")
    assert box is not None  # matplotlib always writes one
    head = f'<svg class="plot" viewBox="{box[1]}" role="img" aria-label="{escape(alt)}">'
    return head + body.strip()
