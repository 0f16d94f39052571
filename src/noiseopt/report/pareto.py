"""Clean against audited accuracy as a picture: a point a method, its intervals, and the Pareto front."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise, zip_longest
from typing import TYPE_CHECKING

from noiseopt.report.kinds import KINDS
from noiseopt.report.pictures import COLOURS, STYLE, name_in_margin, text_width
from noiseopt.report.ranking import front, highest
from noiseopt.report.standings import Standing
from noiseopt.report.svg import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 520, 400
_LEFT, _TOP, _BOTTOM, _LEADER = 48, 40, 74, 26
_MARKERS = ("X", "o", "s", "D", "^", "P")


def pareto_picture(groups: Sequence[tuple[str, Sequence[Standing]]]) -> bytes:
    """A PNG with a panel for each of `groups` (title, rows). The front's rows and the best of each kind are named."""
    import matplotlib

    total = (len(groups) * _WIDTH, _HEIGHT)
    with canvas(*total) as figure, matplotlib.rc_context(STYLE):
        for place, (title, rows) in enumerate(groups):
            named = _named(rows)
            right = _LEADER + 8 + max((text_width(row.label) for row in named), default=0)
            box = (place * _WIDTH + _LEFT, _BOTTOM, _WIDTH - _LEFT - right, _HEIGHT - _BOTTOM - _TOP)
            axes = figure.add_axes(tuple(v / total[i % 2] for i, v in enumerate(box)))  # type: ignore[arg-type]
            _panel(axes, title, rows, named)
        kinds = [kind for kind in KINDS if any(row.kind == kind and row.placed for _, rows in groups for row in rows)]
        _legend(figure.axes[0], kinds)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=144, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def edge(leading: Sequence[Standing]) -> list[tuple[float, float]]:
    """The border of what is attained, (clean, audited), from corner to corner: all that is below it, some row has."""
    points = [(row.clean.mean, row.audited.mean) for row in leading]
    corners = [(to[0], of[1]) for of, to in pairwise(points)]
    return [point for pair in zip_longest(points, corners) for point in pair if point is not None]


def _named(rows: Sequence[Standing]) -> list[Standing]:
    chosen = [*front(rows), *(best for kind in KINDS if (best := highest(rows, kind)) is not None)]
    return [row for row in rows if row in chosen]


def _style(kind: str) -> tuple[str, str]:
    place = list(KINDS).index(kind)
    return COLOURS[place], _MARKERS[place]


def _panel(axes: Axes, title: str, rows: Sequence[Standing], named: Sequence[Standing]) -> None:
    from matplotlib.ticker import MaxNLocator

    attained = edge(front(rows))
    axes.plot(
        [x for x, _ in attained], [y for _, y in attained], color="#9aa1a9", linewidth=1.25, linestyle=(0, (4, 1.5))
    )
    for row in rows:
        if not row.placed:
            continue
        colour, marker = _style(row.kind)
        x, y = row.clean, row.audited
        if y.has_interval:
            axes.plot([x.mean, x.mean], [max(0.0, y.low), min(1.0, y.high)], color=colour, linewidth=1, alpha=0.55)
        if x.has_interval:
            axes.plot([x.low, min(1.0, x.high)], [y.mean, y.mean], color=colour, linewidth=1, alpha=0.55)
        hollow = bool(row.masking)  # not to be believed
        axes.plot(x.mean, y.mean, marker, color=colour, markersize=6, markerfacecolor="white" if hollow else colour)
    axes.grid(axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    # By the means: one wide interval, cut by the frame, would press all others together.
    placed = [row for row in rows if row.placed]
    axes.set_xlim(*_around([row.clean.mean for row in placed]))
    axes.set_ylim(*_around([row.audited.mean for row in placed]))
    axes.set_xlabel("clean accuracy", loc="right", labelpad=2)
    axes.set_title(f"{title}: audited accuracy", loc="left", fontsize=12, pad=10)
    name_in_margin(axes, {row.label: (row.clean.mean, row.audited.mean, _style(row.kind)[0]) for row in named})


def _around(values: Sequence[float]) -> tuple[float, float]:
    """Limits of an axis of shares, with room beside the outermost."""
    low, high = min(values), max(values)
    room = max(0.1 * (high - low), 0.01)
    return max(0.0, low - room), min(1.0, high + room)


def _legend(axes: Axes, kinds: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], color=_style(kind)[0], marker=_style(kind)[1], linestyle="", label=KINDS[kind]) for kind in kinds
    ]
    marks.append(Line2D([], [], color="#9aa1a9", linestyle=(0, (4, 1.5)), linewidth=1.25, label="Pareto front"))
    axes.figure.legend(
        handles=marks, loc="lower left", ncols=len(marks), frameon=False, fontsize=10.5, handletextpad=0.4,
        bbox_to_anchor=(0.02, 0.0), columnspacing=1.4,
    )  # fmt: skip
