"""The same digits under noise of several kinds at equal distortions (Figure 1 of Uličný et al.), from a gallery."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from noiseopt.report.collect import Gallery
from noiseopt.report.pictures import STYLE
from noiseopt.report.svg import canvas

_TITLE = re.compile(r"(?P<kind>.+), distortion (?P<level>[\d.e-]+)(?P<protocol> \(\w+\))?")


@dataclass(frozen=True)
class Kind:
    """One kind of noise: its distortions, rising, and for each the images, `Float[I, C, H, W]`."""

    name: str
    levels: tuple[float, ...]
    images: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Grid:
    """The images as they are, `Float[I, C, H, W]` in [0, 1], and under every kind of noise."""

    clean: np.ndarray
    kinds: tuple[Kind, ...]


def grid_of(gallery: Gallery) -> Grid | None:
    """What a gallery shows at known distortions; None where it shows nothing of the kind.

    A kind that is there under the paper's protocol and under the strict one is shown once: the strict one differs in
    what the gradient averages over, which cannot be seen.
    """
    found: dict[str, list[tuple[float, np.ndarray]]] = {}
    for title, images in zip(gallery.perturbations, gallery.images, strict=True):
        if match := _TITLE.fullmatch(title):
            found.setdefault(match["kind"] + (match["protocol"] or ""), []).append((float(match["level"]), images))
    plain = {kind: several for kind, several in found.items() if kind.partition(" (")[0] == kind or
             kind.partition(" (")[0] not in found}  # fmt: skip
    if not plain or "clean" not in gallery.perturbations:
        return None
    kinds = []
    for name, several in plain.items():
        levels, images = zip(*sorted(several, key=lambda one: one[0]), strict=True)
        kinds.append(Kind(name[:1].upper() + name[1:], levels, images))
    return Grid(gallery.images[gallery.perturbations.index("clean")], tuple(kinds))


def short(title: str) -> str:
    """A perturbation's title with its distortion rounded."""
    match = _TITLE.fullmatch(title)
    if match is None:
        return title
    return f"{match['kind']}, distortion {float(match['level']):.3g}{match['protocol'] or ''}"


def grid_png(grid: Grid, *, images: int = 5) -> bytes:
    """The first `images` of them: a line for each, its noisy versions beside it, the distortions above."""
    import matplotlib

    # Two dots of the page for a pixel of MNIST.
    side, gap, apart, top = 56, 3, 16, 40
    images = min(images, len(grid.clean))
    places: list[tuple[int, str, np.ndarray]] = [(0, "0", grid.clean)]
    heads: list[tuple[int, str]] = [(0, "Original")]
    x = side + apart
    for kind in grid.kinds:
        heads.append((x, kind.name))
        for level, pictures in zip(kind.levels, kind.images, strict=True):
            places.append((x, f"{level:.3g}", pictures))
            x += side + gap
        x += apart - gap
    total: Any = (x - apart, top + images * (side + gap) - gap)
    with canvas(*total) as figure, matplotlib.rc_context(STYLE):
        for x, head in heads:
            figure.text(x / total[0], 1 - 13 / total[1], head, fontweight="bold", va="baseline", color="#1d2126")
        for x, above, pictures in places:
            figure.text(x / total[0], 1 - 30 / total[1], above, va="baseline", color="#5c636b")
            for number in range(images):
                y = total[1] - top - number * (side + gap) - side
                axes = figure.add_axes((x / total[0], y / total[1], side / total[0], side / total[1]))
                picture = np.clip(pictures[number].transpose(1, 2, 0), 0, 1)
                axes.imshow(
                    picture[:, :, 0] if picture.shape[2] == 1 else picture,
                    cmap="gray", vmin=0, vmax=1, interpolation="none", aspect="auto",
                )  # fmt: skip
                axes.set_axis_off()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=144, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
