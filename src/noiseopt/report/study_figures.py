"""The figures of a study: accuracy by distortion (figure 8 of Uličný et al.), response times, confusion.

Colours tell the sets of images apart, dashes who looked at them. What comes from simulated participants says so in the
figures themselves.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from noiseopt.report.figures import spread
from noiseopt.report.pictures import COLOURS, DASHES, STYLE, text_width
from noiseopt.report.svg import canvas, series, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIMULATED = "SIMULATED"
ROLES = {"attacked": "made against itself", "transfer": "made against others"}
_WIDTH, _HEIGHT, _LETTERS, _TEXT, _LEADING = 620, 380, 26, 11, 13.5
_LEFT, _TOP, _BOTTOM, _LEADER = 36, 34, 44, 22
Data = Mapping[str, Any]
Colour = Callable[[int], str]


def figure_files(data: Data) -> dict[str, bytes]:
    """Figure 8, response times and confusion as pictures of their own: file name → SVG or PNG."""
    drawn = {"figure8": accuracy, "response-times": response_times, "confusion": confusion}
    made: dict[str, bytes] = {}
    for name, draw in drawn.items():
        for kind in ("svg", "png") if draw is not response_times or data["participants"] else ():
            made[f"{name}{data['mark']}.{kind}"] = _picture(draw, data, kind)
    return made


def accuracy_svg(data: Data) -> str:
    """Figure 8 for a page, without its title."""
    with canvas(_WIDTH, _HEIGHT) as figure:
        accuracy(figure, data, series, title="")
        spoken = f"Accuracy by distortion. {about(data)}. The numbers are in the table below."
        return to_svg(figure, name="study-accuracy", label=spoken)


def _picture(draw: Callable[..., None], data: Data, kind: str) -> bytes:
    import matplotlib

    with canvas(*_size(draw, data)) as figure, matplotlib.rc_context(STYLE):
        draw(figure, data, lambda place: COLOURS[place % len(COLOURS)])
        buffer = io.BytesIO()
        known: Any = {"Date" if kind == "svg" else "Software": None, "Title": about(data)}
        figure.savefig(buffer, format=kind, dpi=144 if kind == "png" else 72, facecolor="white", metadata=known)
    return buffer.getvalue()


def _size(draw: Callable[..., None], data: Data) -> tuple[float, float]:
    if draw is not confusion:
        return _WIDTH, _HEIGHT
    sets = len(_sets(data))
    return 90 + 210 * sets, 60 + 250 * len(data["confusion"])


def about(data: Data) -> str:
    """What the figures are about, in a line."""
    if not data["participants"]:
        return f"{data['title']}: networks only, nobody asked; {data['places']} sets of {data['images']} images"
    who = f"{data['participants']} {SIMULATED if data['simulated'] else ''} participants".replace("  ", " ")
    return f"{data['title']}: {who}, {data['images']} images each"


def _sets(data: Data) -> list[str]:
    return list(dict.fromkeys(level["key"] for level in data["levels"]))


def _curves(data: Data, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sets with several levels, if there are any. A curve begins with the natural images, the first clean set."""
    plain = [number for number, level in enumerate(data["levels"]) if level["noise"] == "clean"][:1]
    begun = []
    for line in lines:
        if len(line["points"]) < 2:
            continue
        same = [x for x in lines if x["title"] == line["title"] and x["who"] == line["who"]]
        first = [point for x in same for point in x["points"] if point["level"] in plain]
        begun.append({**line, "points": [*first, *line["points"]]})
    return begun or list(lines)


def accuracy(figure: Figure, data: Data, colour: Colour, *, title: str = "Accuracy, %") -> None:
    """Accuracy by distortion, with the 95 % regions."""
    _lines(figure, data, _curves(data, data["lines"]), colour, scale=100.0, title=title, top=100)


def response_times(figure: Figure, data: Data, colour: Colour) -> None:
    """The mean over participants of the median response time."""
    by_set: dict[str, list[Any]] = {}
    for point in data["response_ms"]:
        by_set.setdefault(point["set"], []).append(point)
    titles = {level["key"]: level["title"] for level in data["levels"]}
    lines = [
        {"who": "people", "title": "People", "role": "", "set": key, "set_title": titles[key], "points": points}
        for key, points in by_set.items()
    ]
    _lines(
        figure, data, _curves(data, lines), colour, scale=0.001, title="Response time, s (mean of medians)", top=None
    )


def _lines(
    figure: Figure,
    data: Data,
    lines: Sequence[Mapping[str, Any]],
    colour: Colour,
    *,
    scale: float,
    title: str,
    top: float | None,
) -> None:
    from matplotlib.ticker import MaxNLocator

    names = [_name(line) for line in lines]
    right = _LEADER + 6 + max([0.0, *(text_width(part) for name in names for part in textwrap.wrap(name, _LETTERS))])
    box = (_LEFT, _BOTTOM, _WIDTH - _LEFT - right, _HEIGHT - _BOTTOM - _TOP)
    axes = figure.add_axes(tuple(v / (_WIDTH, _HEIGHT)[i % 2] for i, v in enumerate(box)))  # type: ignore[arg-type]
    furthest, highest = 0.01, 0.0
    for line in lines:
        x = [point["distortion"] for point in line["points"]]
        means, lows, highs = (
            [scale * (point[key] if point[key] is not None else point["mean"]) for point in line["points"]]
            for key in ("mean", "low", "high")
        )
        tint, dash = colour(_place(data, line)), DASHES[_dash(line)]
        if len(x) > 1:
            axes.fill_between(x, lows, highs, color=tint, alpha=0.18, linewidth=0)
            axes.plot(x, means, color=tint, linestyle=dash)
        else:
            spans = [[means[0] - lows[0]], [highs[0] - means[0]]]
            axes.errorbar(x, means, yerr=spans, color=tint, marker="o", markersize=5, capsize=3)
        furthest, highest = max([furthest, *x]), max([highest, *highs])
    axes.set_xlim(0, furthest)
    axes.set_ylim(0, top or 1.08 * highest or 1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(axis="x", pad=7)
    axes.set_xlabel("distortion: average change of a pixel", loc="right", labelpad=3)
    heading: Any = {"loc": "left", "x": -(_LEFT - 4) / box[2], "fontsize": _TEXT + 1, "pad": 10}
    axes.set_title(_titled(title, data) if title else "", **heading)
    _label(axes, data, lines, colour, scale)
    _stamp(figure, data)


def _label(axes: Axes, data: Data, lines: Sequence[Mapping[str, Any]], colour: Colour, scale: float) -> None:
    """Name each line beside its end, pushed apart where two would collide, with a leader in its dash."""
    if not lines:
        return
    box = axes.get_window_extent()
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = [to_axes.transform((line["points"][-1]["distortion"], scale * line["points"][-1]["mean"])) for line in lines]
    order = sorted(range(len(lines)), key=lambda i: float(ends[i][1]))
    parts = [textwrap.wrap(_name(lines[i]), _LETTERS) for i in order]
    heights = [(len(some) * _LEADING + 3) / box.height for some in parts]
    low, high = (max(height / 2 - _LEADING / 2 / box.height, 0.0) for height in (heights[0], heights[-1]))
    room = 1 - low - high
    offsets = [0.0, *(offset / room for offset in accumulate((a + b) / 2 for a, b in pairwise(heights)))]
    places = spread([(float(ends[i][1]) - low) / room for i in order], offsets)
    for i, some, at in zip(order, parts, (low + place * room for place in places), strict=True):
        x, y = ends[i]
        leader: Any = {"color": colour(_place(data, lines[i])), "linewidth": 1.25, "linestyle": DASHES[_dash(lines[i])]}
        axes.plot(
            [x, 1 + 6 / box.width, 1 + 18 / box.width], [y, at, at], transform=axes.transAxes, clip_on=False, **leader
        )
        for number, part in enumerate(some):
            middle = at + ((len(some) - 1) / 2 - number) * _LEADING / box.height
            axes.text(1 + _LEADER / box.width, middle, part, transform=axes.transAxes, va="center_baseline")


def confusion(figure: Figure, data: Data, colour: Colour) -> None:
    """What was said (across) to what was shown (down), in percent of each row: a line of tables for each who looked."""
    sets, who = _sets(data), data["confusion"]
    titles = {level["key"]: level["title"] for level in data["levels"]}
    width, height = _size(confusion, data)
    for row, entry in enumerate(who):
        for column, key in enumerate(sets):
            counts = entry["counts"][key]
            sums = [max(sum(line), 1) for line in counts]
            shares = [[value / total for value in line] for line, total in zip(counts, sums, strict=True)]
            box = (60 + 210 * column, height - 250 * (row + 1) - 10, 180, 180)
            axes = figure.add_axes(tuple(v / (width, height)[i % 2] for i, v in enumerate(box)))  # type: ignore[arg-type]
            axes.imshow(shares, vmin=0, vmax=1, cmap="Greys", aspect="auto")
            axes.grid(visible=False)
            axes.set_title(f"{entry['title']}\n{titles[key]}", loc="left", fontsize=_TEXT)
            if len(counts) <= 12:
                axes.set_yticks(range(len(counts)), [name[:8] for name in data["classes"]], fontsize=8)
                words = [*(name[:8] for name in data["classes"]), "–"]
                axes.set_xticks(range(len(words)), words, fontsize=8, rotation=0 if max(map(len, words)) < 3 else 90)
                for i, line in enumerate(shares):
                    for j, share in enumerate(line):
                        if share >= 0.005:
                            ink = "white" if share > 0.5 else "black"
                            axes.text(j, i, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=ink)
    title = _titled("What was said (across; – is “don't know”) to what was shown (down), %", data)
    figure.text(0.01, 1 - 14 / height, title, fontsize=_TEXT + 1, va="center")
    _stamp(figure, data)


def _stamp(figure: Figure, data: Data) -> None:
    if data["simulated"]:
        style: Any = {"ha": "center", "va": "center", "rotation": 20, "color": "#b3261e", "alpha": 0.25}
        figure.text(0.42, 0.5, SIMULATED, fontsize=54, fontweight="bold", zorder=10, **style)


def _titled(title: str, data: Data) -> str:
    return f"{SIMULATED}: {title}" if data["simulated"] else title


def _name(line: Mapping[str, Any]) -> str:
    """`People: Gaussian noise`; `20 × LeNet: Gradient sign noise (made against others)`."""
    units = max((point["units"] for point in line["points"]), default=1)
    who = f"{units} × {line['title']}" if line["who"] == "networks" and units > 1 else line["title"]
    role = f" ({ROLES[line['role']]})" if line["role"] else ""
    return f"{who}: {line['set_title']}{role}"


def _place(data: Data, line: Mapping[str, Any]) -> int:
    """Its colour: by set."""
    return _sets(data).index(line["set"])


def _dash(line: Mapping[str, Any]) -> int:
    return 0 if line["who"] == "people" else 2 if line["role"] == "transfer" else 1
