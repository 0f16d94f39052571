"""Pictures for documents, as PNG: mean lines over seeds with their range as a band, each line named at its end."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from noiseopt.report.figures import TITLES, _spread
from noiseopt.report.models import Epochs
from noiseopt.report.svg import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#cf5400", "#00805a", "#ad3f8b", "#9a6d00", "#4a4f57")
"""The report's own, in light: apart for every kind of colour vision."""
_INK, _MUTED, _RULE = "#1d2126", "#5c636b", "#d9dce0"
_TITLES = {**TITLES, "test_accuracy": "Test accuracy"}
_TEXT = 11
DASHES: Any = ("-", (0, (4, 1.5)), (0, (1, 1.2)))  # once all colours are used
STYLE: Any = {
    "text.color": _INK, "axes.edgecolor": _RULE, "grid.color": _RULE, "xtick.color": _RULE, "ytick.color": _RULE,
    "axes.labelcolor": _MUTED, "xtick.labelcolor": _MUTED, "ytick.labelcolor": _MUTED, "font.family": "DejaVu Sans",
}  # fmt: skip

Lines = dict[str, list[tuple[int, float, float, float]]]
"""Name → (epoch, mean over seeds, lowest, highest) of every epoch."""


def lines_of(models: Sequence[Epochs], names: Mapping[str, str], value: Sequence[str]) -> Lines:
    """The lines of one panel. `names`: row → what it is called; `value`: where a line of the curves has the number.

    Seeds with fewer epochs than the longest of their row are still being trained, and left out: a mean must not jump
    where one ends.
    """
    found: Lines = {}
    for row, name in names.items():
        curves = [curve for curve in models if curve.label == row]
        longest = max((len(curve.lines) for curve in curves), default=0)
        by_epoch: dict[int, list[float]] = {}
        for curve in curves:
            for line in curve.lines if len(curve.lines) == longest else ():
                number: Any = line
                for key in value:
                    number = number.get(key) if isinstance(number, dict) else None
                if isinstance(number, int | float) and math.isfinite(number):
                    by_epoch.setdefault(line["epoch"], []).append(float(number))
        if by_epoch:
            found[name] = [(e, math.fsum(v) / len(v), min(v), max(v)) for e, v in sorted(by_epoch.items())]
    return found


def curves_picture(models: Sequence[Epochs], names: Mapping[str, str]) -> bytes:
    """Figure 3 of the paper: training loss, validation loss and test accuracy by epoch; b"" where there is no curve.

    Without test accuracy it shows validation accuracy, and says so.
    """
    panels = {metric: lines_of(models, names, [metric]) for metric in ("train_loss", "validation_loss")}
    accuracy = lines_of(models, names, ["test_accuracy"])
    panels |= {"test_accuracy": accuracy} if accuracy else {
        "validation_accuracy": lines_of(models, names, ["validation_accuracy"])
    }  # fmt: skip
    return _picture({_TITLES[metric]: lines for metric, lines in panels.items() if lines}, across=3, size=(330, 250))


def sigma_picture(models: Sequence[Epochs], names: Mapping[str, str]) -> bytes:
    """The mean σ of every layer by epoch, a panel a layer; b"" where no model has noise."""
    panels = {layer: lines_of(models, names, ["sigma", layer, "mean"]) for layer in sigma_layers(models)}
    height = max([240, *(90 + (_TEXT + 3) * len(lines) for lines in panels.values())])  # room for every label
    titled = {f"Mean σ, {layer}": lines for layer, lines in panels.items() if lines}
    return _picture(titled, across=1, size=(720, height))


def sigma_layers(models: Sequence[Epochs]) -> list[str]:
    """The noisy layers of these models, in the models' order."""
    known = (line["sigma"] for curve in models for line in curve.lines if isinstance(line.get("sigma"), dict))
    return list(dict.fromkeys(layer for sigma in known for layer in sigma))


def _picture(panels: Mapping[str, Lines], *, across: int, size: tuple[int, int]) -> bytes:
    import matplotlib

    if not panels:
        return b""
    width, height = size
    columns, rows = min(across, len(panels)), math.ceil(len(panels) / across)
    order = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    right = 28 + max(text_width(name) for name in order)
    with canvas(columns * width, rows * height) as figure, matplotlib.rc_context(STYLE):
        for place, (title, lines) in enumerate(panels.items()):
            x, y = (place % columns) * width, (rows - 1 - place // columns) * height
            box = (x + 44, y + 40, width - 44 - right, height - 40 - 34)
            total = (columns * width, rows * height)
            axes = figure.add_axes(tuple(v / total[i % 2] for i, v in enumerate(box)))  # type: ignore[arg-type]
            _panel(axes, title, lines, order)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=144, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def _panel(axes: Axes, title: str, lines: Lines, order: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    ends = {}
    for name, points in lines.items():
        epochs, means, lows, highs = zip(*points, strict=True)
        place = order.index(name)
        colour = COLOURS[place % len(COLOURS)]
        dash = DASHES[place // len(COLOURS) % len(DASHES)]
        axes.fill_between(epochs, lows, highs, color=colour, alpha=0.18, linewidth=0)
        axes.plot(epochs, means, color=colour, linestyle=dash, marker="o" if len(epochs) == 1 else "")
        ends[name] = (epochs[-1], means[-1], colour)
    first = min(points[0][0] for points in lines.values())
    last = max(points[-1][0] for points in lines.values())
    axes.set_xlim(first, last if last > first else first + 1)
    if "loss" in title or "σ" in title:
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("epoch", loc="right", labelpad=1)
    axes.set_title(title, loc="left", fontsize=_TEXT + 1, pad=10)
    name_in_margin(axes, ends)


def name_in_margin(axes: Axes, ends: Mapping[str, tuple[float, float, str]]) -> None:
    """Name each line beside its end (name → x, y, colour), pushed apart where two would collide, with a thin leader."""
    box = axes.get_window_extent()
    to_axes = axes.transData + axes.transAxes.inverted()
    places = sorted(
        ((*to_axes.transform((x, y)), name, colour) for name, (x, y, colour) in ends.items()), key=lambda p: p[1]
    )
    for (x, y, name, colour), at in zip(places, _spread([p[1] for p in places], (_TEXT + 3) / box.height), strict=True):
        axes.plot([x, 1 + 8 / box.width, 1 + 15 / box.width], [y, at, at], color=colour, linewidth=1,
                  transform=axes.transAxes, clip_on=False)  # fmt: skip
        axes.text(1 + 19 / box.width, at, name, transform=axes.transAxes, va="center_baseline", color=colour)


def text_width(text: str) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=_TEXT), False)
    return float(width)
