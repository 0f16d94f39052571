"""The figures of a run by distortion, as Markdown and pictures for a document."""

from __future__ import annotations

from collections.abc import Iterator

from noiseopt.report.bydistortion import Drawing, Panel, drawings
from noiseopt.report.collect import read_gallery
from noiseopt.report.export import markdown_table
from noiseopt.report.grid import grid_of, grid_png
from noiseopt.report.models import file_stem
from noiseopt.report.plots import drawing_png, how
from noiseopt.report.sources import Source

STEPS = 5
"""The table under a figure has the errors at so many distortions and at 0."""


def figures(source: Source | None, pictures: dict[str, bytes]) -> Iterator[str]:
    """Every figure of the recipe with a table of its numbers."""
    found = drawings(source.records, source.layout) if source else []
    if source is None or not found:
        yield "Not measured yet.\n"
        return
    missing = [figure.title for figure in source.layout.figures if figure.title not in {d.title for d in found}]
    for drawing in found:
        file = f"{file_stem(source.name)}-{file_stem(drawing.title)}.png"
        pictures[file] = drawing_png(drawing)
        yield f"### {drawing.title}\n"
        yield f"{how(drawing)}\n"
        yield f"![Error by distortion: {drawing.title}](figures/{file})\n"
        for panel in drawing.panels:
            yield f"{panel.title}, error in % at distortions of:\n"
            yield _table(panel)
        absent = [
            row for row in _wanted(source, drawing) if row not in {_.row for p in drawing.panels for _ in p.lines}
        ]
        if absent:
            yield f"Not measured yet: {', '.join(absent)}.\n"
    if missing:
        yield f"Not measured yet: {'; '.join(missing)}.\n"


def _wanted(source: Source, drawing: Drawing) -> tuple[str, ...]:
    return next(figure.rows for figure in source.layout.figures if figure.title == drawing.title)


def _table(panel: Panel) -> str:
    # Those of the longest line: one that is still being measured may lack some, and has a blank there.
    longest = max(panel.lines, key=lambda line: len(line.points))
    levels = list(dict.fromkeys(longest.at(panel.furthest * k / STEPS).distortion for k in range(STEPS + 1)))
    rows = [
        [line.name, *(f"{100 * p.error:.1f}" if (p := line.at(x)).distortion == x else "" for x in levels)]
        for line in panel.lines
    ]
    return markdown_table(["", *(f"{level:.3g}" for level in levels)], rows)


def images(source: Source | None, pictures: dict[str, bytes]) -> Iterator[str]:
    """The grid of images at equal distortion, of the run's gallery."""
    gallery = read_gallery(source.folder, []) if source else None
    grid = grid_of(gallery) if gallery else None
    if source is None or gallery is None or grid is None:
        yield "Not drawn yet: there is no gallery of images among the results.\n"
        return
    file = f"{file_stem(source.name)}-images.png"
    pictures[file] = grid_png(grid)
    crafted = f"; sign noise was made against {gallery.crafted_on}" if gallery.crafted_on else ""
    yield (
        f"{' and '.join(kind.name for kind in grid.kinds)} on the same test images, at equal distortions (above each "
        f"column: Eq. 2, over the images of the run's gallery){crafted}.\n"
    )
    yield f"![Digits under noise at equal distortions](figures/{file})\n"
