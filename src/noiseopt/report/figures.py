"""Curves and noise levels as SVG strings: small panels, one idea each, that stay readable on a phone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from noiseopt.report.collect import Curve, Sigma
from noiseopt.report.svg import INK, MUTED, RULE, canvas, series, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {
    "train_loss": "Training loss",
    "validation_loss": "Validation loss",
    "validation_accuracy": "Validation accuracy",
}
_WIDTH, _HEIGHT, _TEXT = 360, 250, 11
_HEAT = "cividis"  # readable with every kind of colour vision, and in grey


def curve_panel(curves: Sequence[Curve], metric: str, *, rows: Sequence[str]) -> str:
    """One metric by epoch, a line for each model, labelled at its end; `""` where none was recorded."""
    curves = [curve for curve in curves if any(map(math.isfinite, curve.values[metric]))]
    if not curves:
        return ""
    labels = list(dict.fromkeys(curve.row for curve in curves))
    order = {row: index for index, row in enumerate([*rows, *(row for row in labels if row not in rows)])}
    right = 22 + max(_text_width(_short(label)) for label in labels)
    with canvas(_WIDTH, _HEIGHT) as figure:
        axes = figure.add_axes((38 / _WIDTH, 34 / _HEIGHT, (_WIDTH - 38 - right) / _WIDTH, (_HEIGHT - 44) / _HEIGHT))
        for curve in curves:
            dash = "-" if order[curve.row] % 2 == 0 else (0, (4, 1.5))
            mark = "o" if len(curve.epochs) == 1 else ""
            axes.plot(
                curve.epochs,
                curve.values[metric],
                linestyle=dash,
                marker=mark,
                color=series(order[curve.row]),
            )
        _scale(axes, curves, metric)
        ends = {label: _end([curve for curve in curves if curve.row == label], metric) for label in labels}
        _label_ends(axes, {label: (*point, series(order[label])) for label, point in ends.items()})
        spoken = "; ".join(f"{label} {y:.3g} after epoch {x:g}" for label, (x, y) in ends.items())
        return to_svg(figure, name=f"curve-{metric}", label=f"{TITLES[metric]} by epoch. At the end: {spoken}.")


def _text_width(text: str) -> float:
    """In Matplotlib's own font, which is wider than any that the page asks for: labels get room to spare."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=_TEXT), False)
    return float(width)


def _short(label: str) -> str:
    return label if len(label) <= 18 else label[:17] + "…"


def _end(curves: Sequence[Curve], metric: str) -> tuple[float, float]:
    """Where a model's label belongs: the last epoch, at the mean over its seeds."""
    points = [[(x, y) for x, y in zip(c.epochs, c.values[metric], strict=True) if math.isfinite(y)][-1] for c in curves]
    return max(x for x, _ in points), sum(y for _, y in points) / len(points)


def _scale(axes: Axes, curves: Sequence[Curve], metric: str) -> None:
    from matplotlib.ticker import MaxNLocator

    values = [y for curve in curves for y in curve.values[metric] if math.isfinite(y)]
    if metric != "validation_accuracy" and min(values) > 0 and max(values) / min(values) > 20:
        from matplotlib.ticker import FuncFormatter, LogLocator

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    first, last = min(c.epochs[0] for c in curves), max(c.epochs[-1] for c in curves)
    axes.set_xlim(first, last if last > first else first + 1)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("epoch", loc="right", labelpad=1)


def _label_ends(axes: Axes, ends: dict[str, tuple[float, float, str]]) -> None:
    """Name each line beside its end, with labels pushed apart and a thin leader to each."""
    height = axes.get_window_extent().height
    to_axes = axes.transData + axes.transAxes.inverted()
    places = sorted(
        ((*to_axes.transform((x, y)), label, colour) for label, (x, y, colour) in ends.items()),
        key=lambda place: place[1],
    )
    gap = (_TEXT + 2.5) / height
    spread = _spread([place[1] for place in places], gap)
    across = axes.get_window_extent().width
    for (x, y, label, colour), at in zip(places, spread, strict=True):
        axes.plot(
            [x, 1 + 5 / across, 1 + 13 / across],
            [y, at, at],
            color=colour,
            linewidth=1,
            transform=axes.transAxes,
            clip_on=False,
        )
        axes.text(1 + 17 / across, at, _short(label), transform=axes.transAxes, va="center_baseline")


def _spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Positions in increasing order, at least `gap` apart, each as near as can be to the one wanted."""
    return spread(wanted, [index * gap for index in range(len(wanted))])


def spread(wanted: Sequence[float], offsets: Sequence[float]) -> list[float]:
    """The same for labels of any height: `offsets` are their places where all of them touch, the first at 0."""
    # Pool neighbours that collide around their common centre (as in isotonic regression).
    blocks: list[list[float]] = []
    for place, offset in zip(wanted, offsets, strict=True):
        blocks.append([place - offset, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, n), (b, m) = blocks[-2], blocks.pop()
            blocks[-1] = [(a * n + b * m) / (n + m), n + m]
    free = [mean for mean, size in blocks for _ in range(int(size))]
    lowest, highest = 0.0, max(0.0, 1 - max(offsets, default=0.0))
    return [min(max(place, lowest), highest) + offset for place, offset in zip(free, offsets, strict=True)]


def sigma_panel(sigma: Sigma, layer: str, *, name: str) -> str:
    """Histogram of a layer's |σ| before (outline) and after training (filled)."""
    from matplotlib.ticker import MaxNLocator

    before, after = (np.abs(values[np.isfinite(values)]) for values in sigma.layers[layer])
    width, height = 270, 150
    across = width - 20
    with canvas(width, height) as figure:
        axes = figure.add_axes((10 / width, 28 / height, across / width, (height - 66) / height))
        edges = _edges(np.concatenate([before.ravel(), after.ravel()]))
        counts = [np.histogram(values, edges)[0] / max(values.size, 1) for values in (before, after)]
        axes.stairs(counts[1], edges, fill=True, color=series(0), alpha=0.75)
        axes.stairs(counts[0], edges, color=INK, linewidth=1.25)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(0, 1.08 * max(1e-9, *(float(c.max()) for c in counts)))
        axes.set_yticks([])
        axes.xaxis.set_major_locator(MaxNLocator(4))
        means = [float(values.mean()) if values.size else math.nan for values in (before, after)]
        for text, mean, at, colour in (("before", means[0], 20, INK), ("after", means[1], 6, series(0))):
            y = 1 + at / (height - 66)
            fill = {"facecolor": colour, "alpha": 0.75} if text == "after" else {"facecolor": "none"}
            swatch = ([6 / across], [y + 4 / (height - 66)])
            axes.scatter(*swatch, marker="s", s=60, edgecolor=colour, clip_on=False, transform=axes.transAxes, **fill)
            axes.text(16 / across, y, f"{text}: mean {_round(mean)}", transform=axes.transAxes)
        axes.text(1, 1 + 6 / (height - 66), "|σ|", transform=axes.transAxes, ha="right", color=MUTED)
        spoken = f"mean {means[0]:.3g} before and {means[1]:.3g} after training"
        label = f"Noise levels of {sigma.row}, {layer}: {spoken}."
        return to_svg(figure, name=name, label=label)


def _round(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def _edges(values: np.ndarray) -> np.ndarray:
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    low = 0.0 if low < 0.5 * high else low
    if high - low < 1e-6:
        low, high = low - 0.05, high + 0.05
    return np.linspace(low, high, 31)


def sigma_maps(sigma: Sigma, layer: str, *, name: str) -> str:
    """A feature map's σ after training: the mean over channels, and those of least, middle and most noise."""
    values = np.nan_to_num(np.abs(sigma.layers[layer][1]), posinf=0.0)
    order = np.argsort(values.mean(axis=(1, 2)))
    chosen = [("least", order[0]), ("middle", order[len(order) // 2]), ("most", order[-1])]
    maps = [("mean of channels", values.mean(axis=0))]
    maps += [(f"channel {index}: {word}", values[index]) for word, index in chosen[: len(order) - 1]]
    low, high = min(float(m.min()) for _, m in maps), max(float(m.max()) for _, m in maps)
    high = max(high, low + 1e-6)
    side, gap, width, height = 156, 16, 360, 2 * 180 + 34
    height = height if len(maps) > 2 else 180 + 34
    with canvas(width, height) as figure:
        for place, (title, picture) in enumerate(maps):
            left, top = 1 + (place % 2) * (side + gap + 12), 18 + (place // 2) * (side + 30)
            axes = figure.add_axes((left / width, 1 - (top + side) / height, side / width, side / height))
            image = axes.imshow(picture, cmap=_HEAT, vmin=low, vmax=high, interpolation="none", aspect="auto")
            axes.set_axis_off()
            axes.text(0, 1 + 5 / side, title, transform=axes.transAxes)
        bar = figure.add_axes((1 / width, 18 / height, (2 * side + gap + 12) / width, 8 / height))
        scale = figure.colorbar(image, cax=bar, orientation="horizontal", ticks=np.linspace(low, high, 3))
        # The outer labels stay inside the figure.
        labels = scale.ax.set_xticklabels([_round(tick) for tick in np.linspace(low, high, 3)])
        labels[0].set_horizontalalignment("left")
        labels[-1].set_horizontalalignment("right")
        scale.outline.set_edgecolor(RULE)  # type: ignore[operator]
        shape = " × ".join(map(str, values.shape))
        label = f"Heat maps of |σ| after training, {sigma.row}, {layer} ({shape}): from {low:.3g} to {high:.3g}."
        return to_svg(figure, name=name, label=label)
