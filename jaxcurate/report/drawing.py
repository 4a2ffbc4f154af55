"""A matplotlib figure as inline SVG, in the page's own colours and type."""

import io
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Each stands for the CSS variable of its name; the shade counts only where no style sheet reaches.
COLOURS = {
    "ink": "#4a5460",
    "soft": "#6b7580",
    "rule": "#b9c0c7",
    "curated": "#d0541f",
    "random": "#848c95",
    "pool": "#3f7dc0",
    "flat": "#5c8433",
    "stratified": "#8355b5",
    "untrained": "#a4abb3",
}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxcurate",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": COLOURS["soft"],
    "axes.edgecolor": COLOURS["rule"],
    "axes.labelcolor": COLOURS["soft"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": COLOURS["rule"],
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "xtick.color": COLOURS["rule"],
    "ytick.color": COLOURS["rule"],
    "xtick.labelcolor": COLOURS["soft"],
    "ytick.labelcolor": COLOURS["soft"],
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def svg(
    name: str, alt: str, paint: Callable[["Figure"], None], *, width: int = 360, height: int = 220
) -> Markup:
    """Draws a figure.

    Args:
        name: unlike that of any other figure of the page; sets its ids apart.
        alt: what can be seen, for those who do not see it.
        paint: puts axes into an empty figure, with shades of :data:`COLOURS`.
        width: CSS pixels at which type has the size of small print; the page may scale it.
        height: likewise.

    Returns:
        An ``<svg>`` element: the same bytes for the same figure.
    """
    import matplotlib
    from matplotlib.figure import Figure

    out = io.StringIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        # Type is set by the browser, which has more fonts than the one that is measured here.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()  # whatever style the user's own plots have
        matplotlib.rcParams.update(cast(Any, _STYLE))
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        paint(figure)
        figure.savefig(out, format="svg", transparent=True, dpi=150, metadata=_NO_METADATA)
    return Markup(_adopt(out.getvalue(), name, alt))


def _adopt(text: str, name: str, alt: str) -> str:
    """Returns a whole SVG file as an element of the page."""
    box = re.search(r'viewBox="([\d. ]+)"', text)
    body = text[text.index(">", text.index("<svg")) + 1 :]
    no_use = r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->"
    body = re.sub(no_use, "", body, flags=re.DOTALL)
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r'\bid="|url\(#|href="#', lambda found: f"{found[0]}{name}-", body)
    body = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", body)
    for variable, shade in COLOURS.items():
        body = body.replace(shade, f"var(--{variable})")
    assert box is not None  # matplotlib always writes one
    head = f'<svg class="plot" viewBox="{box[1]}" role="img" aria-label="{escape(alt)}">'
    return head + body.strip()
