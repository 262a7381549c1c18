"""Figures of matplotlib as SVG inside a page: without styles, in the page's colours, with stable bytes."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree as ET

from ortc.pages.document import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

INSTALL = "install the extra `plots`: pip install 'ortc[plots]'"
INK, SOFT, GRID, OWN, OTHER, GOOD, BAD, PAPER = (f"#0{index}0{index}0{index}" for index in range(1, 9))
"""Colours that stand for those of the page, whichever scheme its reader prefers."""
_ROLES = {
    INK: "--ink",
    SOFT: "--soft",
    GRID: "--grid",
    OWN: "--series-1",
    OTHER: "--series-2",
    GOOD: "--good",
    BAD: "--bad",
    PAPER: "--paper",
}
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ortc",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"#(?=[\w-]+)")
_LONGEST = 40
_LETTER = 5.4
"""Points that a letter of a name takes."""


class _Box(NamedTuple):
    """A rectangle, in points."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, other: _Box) -> bool:
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1

    def inside(self, outer: Bbox) -> bool:
        return bool(outer.x0 <= self.x0 and self.x1 <= outer.x1 and outer.y0 <= self.y0 and self.y1 <= outer.y1)


def can_draw() -> bool:
    """Whether the library that draws is installed."""
    return find_spec("matplotlib") is not None


def label(text: str) -> str:
    """A text of somebody else as a figure shows it: printable, in one line, and cut when it is long."""
    shown = printable(" ".join(text.split()))
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"


def drawn(name: str, described: str, draw: Callable[[Figure], None], size: tuple[float, float] = (7.6, 3.2)) -> str:
    """Draw a figure.

    Args:
        name: begins the ids of its elements; no other figure of the page has it.
        described: for readers who do not see it.
        draw: fills an empty figure.
        size: in inches of 72 points.

    Returns:
        An element `svg`.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with _settings():
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        written = io.BytesIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    # These bytes are matplotlib's own, whose texts are escaped.
    root = ET.fromstring(written.getvalue())  # noqa: S314
    return _inline(root, name, described)


@contextmanager
def _settings() -> Iterator[None]:
    import matplotlib as mpl

    with warnings.catch_warnings(), mpl.rc_context(_SETTINGS):
        # Of characters that the measuring font lacks: the reader's browser has others.
        warnings.simplefilter("ignore", UserWarning)
        yield


def _inline(root: ET.Element, name: str, described: str) -> str:
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.attrib = dict(_attributes(element.attrib, name))
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": described,
        "stroke-linejoin": "round",
    }
    return ET.tostring(root, encoding="unicode")


def _attributes(found: dict[str, str], name: str) -> Iterator[tuple[str, str]]:
    """Attributes with the page's colours, ids of the figure's own, and no style."""
    for key, value in found.items():
        if key == "style":
            yield from _styled(value, name)
        elif key == "id":
            yield key, f"{name}-{value}"
        elif key in (_LINK, "clip-path"):
            yield key.rpartition("}")[2], _REFERENCE.sub(f"#{name}-", value)
        else:
            yield key, value


def _styled(style: str, name: str) -> Iterator[tuple[str, str]]:
    """A style as attributes; the font is the page's."""
    for part in style.split(";"):
        key, _, value = (text.strip() for text in part.partition(":"))
        if key == "font" and (size := re.search(r"([\d.]+)px", value)) is not None:
            yield "font-size", size[1]
        elif key == "font-size":
            yield key, value.removesuffix("px")
        elif value in _ROLES:
            yield key, f"var({_ROLES[value]})"
        elif key and key not in ("font", "font-family"):
            yield key, _REFERENCE.sub(f"#{name}-", value) if "url(" in value else value


def annotate(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Name points beside them, where a name lies on no other name or point; a name without such a place is left out."""
    places = [axes.transData.transform((x, y)) for x, y, _ in points]
    taken = [_Box(x - 4, y - 4, x + 4, y + 4) for x, y in places]
    for (x, y, text), (left, bottom) in zip(points, places, strict=True):
        shown = label(text)
        width = _LETTER * len(shown)
        for ha, dx, dy in (("left", 7, 3), ("left", 7, -11), ("right", -7, 3), ("right", -7, -11), ("center", 0, 8)):
            start = left + dx - {"left": 0.0, "right": width, "center": width / 2}[ha]
            box = _Box(start, bottom + dy, start + width, bottom + dy + 9)
            if box.inside(axes.bbox) and not any(box.overlaps(other) for other in taken):
                axes.annotate(shown, (x, y), xytext=(dx, dy), textcoords="offset points", ha=ha, fontsize=9)
                taken.append(box)
                break


def logarithmic(axis: Axis) -> None:
    """Write the ticks of a logarithmic axis as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
