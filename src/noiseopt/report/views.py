"""What the page's template shows: tables and example images as plain dicts of ready text."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from noiseopt.report.collect import Gallery
from noiseopt.report.grid import grid_of, short
from noiseopt.report.layout import Column, Layout, paper_tables, paper_value
from noiseopt.report.papers import called, prints_errors
from noiseopt.report.settings import name_of
from noiseopt.report.table import Cell, Line, Table


@dataclass(frozen=True)
class CellView:
    """The ready text of a cell; `hint`: why it holds no number, `seeds`: the range over training seeds."""

    text: str
    interval: str = ""
    seeds: str = ""
    hint: str = ""
    best: bool = False


def table_view(table: Table, layout: Layout, *, beside_paper: bool) -> dict[str, Any]:
    """One table of the page, with what the paper printed under each row if it stands `beside_paper`."""
    rows = []
    for row, lines in table.rows.items():
        shown = [_line(line, table, layout) for line in lines]
        printed = [paper_value(layout, row, column.key) for column in layout.columns]
        if beside_paper and any(value is not None for value in printed):
            cells = [CellView("" if value is None else f"{value:.3f}") for value in printed]
            shown.append({"kind": "paper", "state": "paper", "detail": "", "cells": cells})
        rows.append({"label": row, "lines": shown})
    wanted = {column.key for column in layout.columns}
    return {
        "protocol": table.protocol,
        "paper": called(layout.paper) if beside_paper and layout.paper in paper_tables() else "",
        "groups": [(name, len(list(found))) for name, found in groupby(layout.columns, key=_group)],
        # The columns that a group begins with stand a little apart.
        "starts": [i for i, c in enumerate(layout.columns) if i == 0 or c.group != layout.columns[i - 1].group],
        "columns": [column.title for column in layout.columns],
        "rows": rows,
        "complete": all(wanted <= set(line.cells) for lines in table.rows.values() for line in lines),
    }


def _group(column: Column) -> str:
    return column.group


def _line(line: Line, table: Table, layout: Layout) -> dict[str, Any]:
    cells = [_cell(line.cells.get(column.key), table.best(column.key)) for column in layout.columns]
    return {"kind": "ours", "state": "on" if line.noise else "off", "detail": line.detail, "cells": cells}


def _cell(cell: Cell | None, best: float) -> CellView:
    if cell is None:
        return CellView("–", hint="not measured")
    if not cell.known:
        return CellView("n/a", hint="not a number")
    interval = "" if math.isnan(cell.low + cell.high) else f"{_short(cell.low)}–{_short(cell.high)}"
    several = len(cell.seeds) > 1
    seeds = f"seeds {_short(min(cell.seed_values))}–{_short(max(cell.seed_values))}" if several else ""
    return CellView(f"{cell.value:.3f}", interval, seeds, best=cell.value == best)


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def notes_on(tables: Sequence[Table], layout: Layout) -> list[str]:
    """How to read the tables: only what applies to these."""
    cells = [cell for table in tables for cell in table.cells() if cell.known]
    if not cells:
        return []
    counts = sorted({cell.count for cell in cells})
    images = " to ".join(dict.fromkeys(f"{count:,}" for count in (counts[0], counts[-1])))
    notes = [
        f"Each number is the share of {images} test images classified correctly; "
        "below it, its 95% interval (Wilson). "
        "Bold marks the highest number of a column; where intervals overlap, that order may be chance."
    ]
    if any(len(cell.severities) > 1 for cell in cells):
        most = max(len(cell.severities) for cell in cells)
        notes.append(
            f"A corruption's number is the mean over its {most} severities. Its interval pools all answers "
            "but counts each image once, because the same images are measured at every severity."
        )
        if any(1 <= len(cell.severities) < most for cell in cells):
            notes.append("Some corruptions were not measured at every severity yet; their means will still move.")
    seeds = max(len(cell.seeds) for cell in cells)
    if seeds > 1:
        notes.append(
            f"Numbers are means over up to {seeds} training seeds, with their range below. The intervals are "
            "for the choice of test images; they do not hold the differences between seeds."
        )
    noisy = [cell for table in tables for lines in table.rows.values() for line in lines if line.noise
             for cell in line.cells.values()]  # fmt: skip
    if noisy:
        draws = sorted({cell.draws for cell in noisy})
        notes.append(
            "“On”: the model's noise was on, for the attack and for its answer, which averages "
            f"{' or '.join(map(str, draws))} noise draw{'s' if draws != [1] else ''}. "
            "“Off”: it was off for both."
        )
    protocols = {table.protocol for table in tables}
    if protocols >= {"paper", "strict"}:
        notes.append(
            "Protocol “paper” makes the attacks as the paper's published code does; protocol “strict” makes "
            "them at full strength. Their settings stand under “How this was made”."
        )
    if layout.paper in paper_tables():
        note = (
            f"“Paper”: the numbers printed in the paper's table {called(layout.paper)}, which states neither "
            "intervals nor seeds, nor whether the noise was on."
        )
        other = "" if protocols & {"", "paper"} else " Its attacks were not the ones measured here."
        errors = " It prints errors; here stands 1 less the error." if prints_errors(layout.paper) else ""
        notes.append(note + errors + other)
    missing = [row for row in layout.rows if not any(row in table.rows for table in tables)]
    if missing:
        notes.append(f"Not measured yet: {', '.join(missing)}.")
    return notes


def examples(gallery: Gallery, layout: Layout) -> dict[str, Any]:
    """The gallery: for every image its perturbed versions, and each model's answer to each."""
    rows = [*(row for row in layout.rows if row in gallery.predictions)]
    rows += [row for row in gallery.predictions if row not in rows]
    pictures = []
    for place, label in enumerate(gallery.labels.tolist()):
        answers = [
            {
                "row": row,
                "cells": [
                    _answer(gallery, row, version, place, label) for version in range(len(gallery.perturbations))
                ],
            }
            for row in rows
        ]
        uris = [data_uri(gallery.images[version, place]) for version in range(len(gallery.perturbations))]
        pictures.append({"label": _class(gallery, label), "uris": uris, "answers": answers})
    return {
        "crafted_on": gallery.crafted_on,
        "names": [short(name_of(name, layout, among=gallery.perturbations)) for name in gallery.perturbations],
        "pictures": pictures,
        "grid": _grid(gallery),
    }


def _grid(gallery: Gallery) -> dict[str, Any] | None:
    """The images at equal distortion; None where the gallery has none at a known distortion."""
    grid = grid_of(gallery)
    if grid is None:
        return None
    lines = []
    for place, label in enumerate(gallery.labels.tolist()):
        name = _class(gallery, label)
        line = [{"uri": data_uri(grid.clean[place]), "name": f"{name}, original", "first": False}]
        line += [
            {"uri": data_uri(images[place]), "name": f"{name}, {kind.name.lower()}, {level:.3g}", "first": number == 0}
            for kind in grid.kinds
            for number, (level, images) in enumerate(zip(kind.levels, kind.images, strict=True))
        ]
        lines.append(line)
    kinds = [{"name": kind.name, "levels": [f"{level:.3g}" for level in kind.levels]} for kind in grid.kinds]
    return {"kinds": kinds, "lines": lines}


def _answer(gallery: Gallery, row: str, version: int, place: int, label: int) -> dict[str, Any]:
    said = int(gallery.predictions[row][version, place])
    sure = float(gallery.confidence[row][version, place])
    return {"name": _class(gallery, said), "right": said == label, "sure": None if math.isnan(sure) else sure}


def _class(gallery: Gallery, index: int) -> str:
    return gallery.classes[index] if 0 <= index < len(gallery.classes) else str(index)


def data_uri(image: np.ndarray) -> str:
    """`Float[C, H, W]` in [0, 1], one or three channels, as a PNG in a data URI."""
    from PIL import Image

    pixels = np.clip(np.nan_to_num(image) * 255, 0, 255).round().astype(np.uint8)
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
