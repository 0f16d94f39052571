"""Matplotlib figures as inline SVG: page fonts, page colours (light and dark), and ids of their own.

Matplotlib draws with stand-in colours that are replaced by CSS variables here, so that one figure follows the
page's light and dark themes. Its ids repeat from figure to figure; each gets the figure's name in front.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SERIES = 6
# Stand-ins: any colours would do that no figure uses otherwise.
INK, MUTED, RULE, PAPER = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", PAPER: "--paper"}
_VARIABLES |= {f"#0101{index + 16:02x}": f"--series-{index + 1}" for index in range(SERIES)}

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"


def series(index: int) -> str:
    """The stand-in colour of the `index`-th series; six colours, then round again."""
    return f"#0101{index % SERIES + 16:02x}"


@contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    """A Figure of `width` × `height` CSS pixels, with fonts in CSS pixels too; leaves no global state."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "noiseopt",
        "font.size": 11,
        "axes.linewidth": 1,
        "axes.edgecolor": RULE,
        "axes.labelcolor": MUTED,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": RULE,
        "grid.linewidth": 0.75,
        "text.color": INK,
        "xtick.color": RULE,
        "ytick.color": RULE,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "xtick.major.size": 3,
        "ytick.major.size": 0,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
        "lines.linewidth": 1.75,
        "axes.axisbelow": True,
        "mathtext.default": "regular",
        "text.parse_math": False,
    }
    with matplotlib.rc_context(style):
        # 72 points to the inch: an SVG unit is then one CSS pixel of the page.
        yield Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none")


def to_svg(figure: Figure, *, name: str, label: str) -> str:
    """The figure as an `<svg>` element for an HTML page.

    `name`: unique on the page, goes in front of every id. `label`: what it shows, for those who hear it.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in [*parent.findall(f"{_SVG}metadata"), *parent.findall(f"{_SVG}style")]:
            parent.remove(child)
    seen: set[str] = set()
    for element in root.iter():
        # Two equal images in a figure get one id; whoever refers to it is served as well by the first.
        if element.get("id") in seen:
            del element.attrib["id"]
        seen.add(element.get("id", ""))
        element.tag = element.tag.removeprefix(_SVG)
        if _HREF in element.attrib:
            element.attrib["href"] = element.attrib.pop(_HREF)
        for key, value in element.attrib.items():
            element.attrib[key] = _attribute(key, value, name)
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": label,
        # Matplotlib says this in a style sheet, which inside a page would reach the whole page.
        "stroke-linejoin": "round",
        "class": "plot",
    }
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def _attribute(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return f"#{name}-{value[1:]}" if value.startswith("#") else value
    value = re.sub(r"url\(#([^)]*)\)", rf"url(#{name}-\1)", value)
    if key == "style":
        # The page's own font, at the size asked for; Matplotlib before 3.10 writes the `font` shorthand.
        value = re.sub(r"font-family:[^;]*;? *", "", value)
        value = re.sub(r"font: *((?:bold|\d00) )?[^;]*?([\d.]+px)[^;]*", _font, value)
    return re.sub(r"#[0-9a-f]{6}", _colour, value)


def _font(found: re.Match[str]) -> str:
    return f"font-size: {found[2]}" + (f"; font-weight: {found[1].strip()}" if found[1] else "")


def _colour(found: re.Match[str]) -> str:
    variable = _VARIABLES.get(found[0])
    return f"var({variable})" if variable else found[0]
