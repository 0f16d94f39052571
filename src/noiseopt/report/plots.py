"""Error by distortion as pictures: SVG for the report, PNG for documents; each line is named at its end."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from noiseopt.report.bydistortion import Drawing, Line, Panel
from noiseopt.report.figures import spread
from noiseopt.report.pictures import COLOURS, DASHES, STYLE, text_width
from noiseopt.report.svg import SERIES, canvas, series, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT, _LETTERS, _TEXT = 460, 310, 20, 11
_LEFT, _TOP, _BOTTOM, _LEADER = 34, 12, 44, 22
_LEADING = _TEXT + 2.5
_MEET = 0.03
_HEADED = 20  # of a picture that bears its title itself


def panel_svg(panel: Panel, *, order: Sequence[str], name: str) -> str:
    """One panel for an HTML page, without its title. `order`: the rows of the figure, which settle the colours."""
    with canvas(_WIDTH, _HEIGHT) as figure:
        right = _room(panel)
        box = (_LEFT, _BOTTOM, _WIDTH - _LEFT - right, _HEIGHT - _BOTTOM - _TOP)
        axes = figure.add_axes(tuple(v / (_WIDTH, _HEIGHT)[i % 2] for i, v in enumerate(box)))  # type: ignore[arg-type]
        _draw(axes, panel, order, series)
        ends = "; ".join(f"{line.name} {100 * line.points[-1].error:.0f} %" for line in panel.lines)
        spoken = f"Error by distortion, {panel.title}. At a distortion of {panel.furthest:.3g}: {ends}."
        return to_svg(figure, name=name, label=spoken)


def drawing_png(drawing: Drawing) -> bytes:
    """A whole figure, two panels to a line, each under its title."""
    import matplotlib

    order = rows_of(drawing)
    height = _HEIGHT + _HEADED
    columns, rows = min(2, len(drawing.panels)), math.ceil(len(drawing.panels) / 2)
    total = (columns * _WIDTH, rows * height)
    with canvas(*total) as figure, matplotlib.rc_context(STYLE):
        for place, panel in enumerate(drawing.panels):
            x, y = (place % 2) * _WIDTH, (rows - 1 - place // 2) * height
            box = (x + _LEFT, y + _BOTTOM, _WIDTH - _LEFT - _room(panel), height - _BOTTOM - _TOP - _HEADED)
            axes = figure.add_axes(tuple(v / total[i % 2] for i, v in enumerate(box)))  # type: ignore[arg-type]
            _draw(axes, panel, order, lambda place: COLOURS[place % len(COLOURS)])
            axes.set_title(caption(panel), loc="left", x=-(_LEFT - 4) / box[2], fontsize=_TEXT + 1, pad=10)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=144, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def rows_of(drawing: Drawing) -> list[str]:
    """The rows of a figure's panels, in order."""
    return list(dict.fromkeys(line.name for panel in drawing.panels for line in panel.lines))


def caption(panel: Panel) -> str:
    """What is drawn in a panel."""
    return f"{panel.title}: error, %"


def how(drawing: Drawing) -> str:
    """What the bands are, in a sentence."""
    counts = sorted({len(line.seeds) for panel in drawing.panels for line in panel.lines})
    images = sorted({panel.images for panel in drawing.panels})
    of = " or ".join(f"{count:,}" for count in images)
    alone = f"the 95 % interval (Wilson) for the choice of {of} test images: nothing is known of other seeds"
    if counts == [1]:
        return f"One training seed. Bands are {alone}."
    more = [count for count in counts if count > 1]
    several = "–".join(str(count) for count in dict.fromkeys((more[0], more[-1])))
    text = f"Lines are means over {several} training seeds, bands their 95 % t-intervals over seeds"
    return f"{text}; of a line from one seed, {alone}." if counts[0] == 1 else f"{text} ({of} test images)."


def _room(panel: Panel) -> float:
    return _LEADER + 6 + max(text_width(part) for line in panel.lines for part in _parts(line))


def _parts(line: Line) -> list[str]:
    return textwrap.wrap(line.name, _LETTERS) or [""]


def _draw(axes: Axes, panel: Panel, order: Sequence[str], colour: Callable[[int], str]) -> None:
    from matplotlib.ticker import MaxNLocator

    for line in panel.lines:
        place = order.index(line.name)
        x = [point.distortion for point in line.points]
        errors, lows, highs = ([100 * v for v in values] for values in zip(
            *((p.error, p.low, p.high) for p in line.points), strict=True))  # fmt: skip
        axes.fill_between(x, lows, highs, color=colour(place), alpha=0.18, linewidth=0)
        axes.plot(x, errors, color=colour(place), linestyle=_dash(place), marker="o" if len(x) == 1 else "")
    highest = max(100 * point.high for line in panel.lines for point in line.points)
    axes.set_ylim(0, 100 if highest > 60 else max(1.08 * highest, 1))
    axes.set_xlim(0, panel.furthest or 0.01)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(axis="x", pad=7)  # its 0 is not the other's
    axes.set_xlabel("distortion: average change of a pixel", loc="right", labelpad=3)
    _label(axes, panel, order, colour)


def _dash(place: int) -> Any:
    return DASHES[place // SERIES % len(DASHES)]


def _label(axes: Axes, panel: Panel, order: Sequence[str], colour: Callable[[int], str]) -> None:
    """Name each line beside its end, pushed apart where two would collide, with a thin leader."""
    box = axes.get_window_extent()
    to_axes = axes.transData + axes.transAxes.inverted()
    lines = _stacked(panel.lines)
    ends = [to_axes.transform((line.points[-1].distortion, 100 * line.points[-1].error)) for line in lines]
    heights = [(len(_parts(line)) * _LEADING + 3) / box.height for line in lines]
    # Labels of several lines stay beside the plot: its title is above, its scale below.
    low, high = (max(height / 2 - _LEADING / 2 / box.height, 0.0) for height in (heights[0], heights[-1]))
    room = 1 - low - high
    offsets = [0.0, *(offset / room for offset in accumulate((a + b) / 2 for a, b in pairwise(heights)))]
    places = spread([(y - low) / room for _, y in ends], offsets)
    for line, (x, y), at in zip(lines, ends, (low + place * room for place in places), strict=True):
        place = order.index(line.name)
        axes.plot([x, 1 + 6 / box.width, 1 + 18 / box.width], [y, at, at], color=colour(place), linewidth=1.25,
                  linestyle=_dash(place), transform=axes.transAxes, clip_on=False)  # fmt: skip
        for number, part in enumerate(_parts(line)):
            middle = at + ((len(_parts(line)) - 1) / 2 - number) * _LEADING / box.height
            axes.text(1 + _LEADER / box.width, middle, part, transform=axes.transAxes, va="center_baseline")


def _stacked(lines: Sequence[Line]) -> list[Line]:
    """From below: by their ends, and where these all but meet, by their means. So labels stand as the curves do."""
    groups: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: line.points[-1].error):
        if groups and line.points[-1].error - groups[-1][0].points[-1].error < _MEET:
            groups[-1].append(line)
        else:
            groups.append([line])
    return [line for group in groups for line in sorted(group, key=lambda line: line.mean)]
