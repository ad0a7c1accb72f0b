"""Matplotlib figures as small inline SVG whose colours follow the page, light, dark or printed.

Figures are drawn in placeholder colours; `inline_svg` puts the page's CSS variables in their place.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, BAD, SURFACE, ACCENT = "#010101", "#010102", "#010103", "#010104", "#010105", "#010106"
SEQUENTIAL, CATEGORICAL = 12, 7  # how many colours each of the page's two scales has
_ROLES = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    BAD: "var(--bad)",
    SURFACE: "var(--surface)",
    ACCENT: "var(--accent)",
}
_ROLES |= {f"#0102{level:02x}": f"var(--q{level})" for level in range(SEQUENTIAL)}
_ROLES |= {f"#0103{number:02x}": f"var(--k{number})" for number in range(CATEGORICAL)}

_STYLE = {
    "svg.fonttype": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "text.parse_math": False,  # a cell may be called anything
    "font.size": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.6,
}
_DROPPED = (
    re.compile(r"^.*?(?=<svg)", re.DOTALL),  # the XML prolog
    re.compile(r"<metadata>.*?</metadata>", re.DOTALL),
    re.compile(r"<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL),  # would style the whole page
    re.compile(r'<path d="[^"]*" style="fill: none"/>'),  # invisible backgrounds
    re.compile(r"<!--.*?-->", re.DOTALL),
)
_NEEDLESS = re.compile(r" font-family: [^;\"]*;?| ?stroke-linejoin: miter;?|-webkit-[^;]*;")


def sequential(position: float) -> str:
    """Return the colour at `position` (0 to 1) of the scale that runs from dark to bright."""
    return f"#0102{round(position * (SEQUENTIAL - 1)):02x}"


def categorical(number: int) -> str:
    """Return a colour that tells categories apart, also for the colour-blind; they repeat after `CATEGORICAL`."""
    return f"#0103{number % CATEGORICAL:02x}"


def css_colour(placeholder: str) -> str:
    """Return what stands for a placeholder colour in the page's own CSS."""
    return _ROLES[placeholder]


@contextmanager
def page_style(key: str) -> Iterator[None]:
    """Let matplotlib draw in the page's style; the settings of the process are as before afterwards.

    Args:
        key: unique on the page; makes the ids inside the SVG unique and the same every time.
    """
    import matplotlib as mpl

    settings: Any = {**_STYLE, "svg.hashsalt": key}  # matplotlib types its keys one by one
    with mpl.rc_context(settings):
        yield


def new_axes(width: float = 4.4, height: float = 2.9) -> tuple["Figure", "Axes"]:
    """Return an empty figure of a size in inches, and its axes; no pyplot, hence no global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def inline_svg(figure: "Figure", key: str, label: str) -> Markup:
    """Return the figure as an `<svg>` element for a page; equal figures give equal text.

    Args:
        figure: drawn in placeholder colours, within `page_style(key)`.
        key: unique on the page.
        label: what a screen reader says instead.
    """
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing", UserWarning)  # the browser has fonts of its own
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    for pattern in _DROPPED:
        text = pattern.sub("", text)
    text = _NEEDLESS.sub("", text)
    text = re.sub(r"<[^>]*>", _rounded, text)
    text = re.sub(r"#010[123][0-9a-f]{2}", lambda found: _ROLES[found[0]], text)
    text = _unique_ids(text.replace("xlink:href", "href"), key)
    text = re.sub(r"\s*\n\s*", "\n", re.sub(r"\n(?=[LMQCz\"])", " ", text))
    view = re.search(r'viewBox="[^"]*"', text)
    head = f'<svg {view[0] if view else ""} role="img" aria-label="{escape(label)}">'
    return Markup(re.sub(r"<svg[^>]*>", lambda _: head, text, count=1).strip())  # noqa: S704 - texts are escaped by matplotlib


def _rounded(tag: re.Match[str]) -> str:
    """Return a tag, not the text between tags, with coordinates to a hundredth of a point, finer than any screen."""
    return re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0])


def _unique_ids(text: str, key: str) -> str:
    """Drop the ids that nothing refers to, and start the others with `key`."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda found: f' id="{key}-{found[1]}"' if found[1] in used else "", text)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{key}-", text)
