"""The report: one HTML file that needs no network, no scripts and no other file."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from noiseopt.errors import UserError
from noiseopt.report.audit import audit_view
from noiseopt.report.bydistortion import Drawing, all_panels, drawings
from noiseopt.report.collect import CURVES, Run, Sigma, collect
from noiseopt.report.findings import headline
from noiseopt.report.layout import mapping
from noiseopt.report.maps import maps_view, shares_of, shares_view
from noiseopt.report.settings import settings
from noiseopt.report.study import study_section
from noiseopt.report.table import own_layout, tables_of
from noiseopt.report.views import examples, notes_on, table_view

_HERE = Path(__file__).parent


def write_report(run_dir: str | Path, *, output: str | Path | None = None) -> Path:
    """Write the report of `run_dir` as one self-contained HTML file and return its path.

    `output`: the file to write; by default `report.html` in `run_dir`. A report that is there already is
    replaced in one step. Raises UserError where `run_dir` is no run directory or the file cannot be written.
    """
    run = collect(run_dir)
    path = Path(output) if output is not None else run.folder / "report.html"
    text = render(run)
    # Whoever reads the old report while this runs sees the old one whole.
    part = path.with_name(f".{path.name}.part")
    try:
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise UserError(
            "the report must be written to a file",
            got=str(error),
            fix="give another output=, such as report.html",
        ) from None
    return path


def render(run: Run) -> str:
    """The whole page as text."""
    tables = tables_of(run.records, run.layout)
    # The paper's numbers belong beside its own protocol, where that was measured.
    compared = next((table for table in tables if table.protocol == "paper"), tables[0] if tables else None)
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["share"] = "{:.0%}".format
    return environment.get_template("report.html.jinja").render(
        css=Markup("".join((_HERE / name).read_text(encoding="utf-8") for name in ("report.css", "audit.css"))),
        title=run.layout.title or str(run.about.get("recipe_name") or run.folder.resolve().name),
        headline=headline(run.about, run.layout, tables, all_panels(run.records, run.layout)),
        audit=audit_view(run.folder, run.layout.rows, run.notes, about=run.about),
        notes=run.notes,
        tables=[
            table_view(table, own_layout(table, tables, run.layout), beside_paper=table is compared) for table in tables
        ],
        table_notes=notes_on(tables, run.layout),
        figures=[_figure(drawing, place) for place, drawing in enumerate(drawings(run.records, run.layout))],
        curves=_curves(run),
        sigmas=[_sigma(sigma, place) for place, sigma in enumerate(_first_seeds(run.sigmas)) if not _fixed(sigma)],
        fixed=[_held(sigma) for sigma in _first_seeds(run.sigmas) if _fixed(sigma)],
        seeds_left_out=len(run.sigmas) - len(_first_seeds(run.sigmas)),
        examples=examples(run.gallery, run.layout) if run.gallery else None,
        maps=maps_view(run.maps) if run.maps else None,
        shares=shares_view(shares_of(run.records, run.layout.rows)),
        study=study_section(run.folder),
        settings=settings(run.records, run.layout),
        facts=_facts(run.about),
        command=str(run.about.get("command") or ""),
        made=_when(run.about.get("started")),
    )


def _curves(run: Run) -> list[dict[str, Any]]:
    if not run.curves:
        return []
    from noiseopt.report.figures import TITLES, curve_panel

    panels = [(TITLES[metric], curve_panel(run.curves, metric, rows=run.layout.rows)) for metric in CURVES]
    return [{"title": title, "svg": Markup(svg)} for title, svg in panels if svg]


def _figure(drawing: Drawing, place: int) -> dict[str, Any]:
    from noiseopt.report.plots import caption, how, panel_svg, rows_of

    order = rows_of(drawing)
    panels = [
        {"title": caption(panel), "svg": Markup(panel_svg(panel, order=order, name=f"figure-{place}-{number}"))}
        for number, panel in enumerate(drawing.panels)
    ]
    return {"title": drawing.title, "how": how(drawing), "panels": panels}


def _first_seeds(sigmas: tuple[Sigma, ...]) -> list[Sigma]:
    """One model of each row: seeds differ less than layers, and a page has an end."""
    first: dict[str, Sigma] = {}
    for sigma in sigmas:
        first.setdefault(sigma.row, sigma)
    return list(first.values())


def _fixed(sigma: Sigma) -> bool:
    """Did training leave every noise level as it was?"""
    return all(
        before.shape == after.shape and np.allclose(before, after, atol=1e-7) for before, after in sigma.layers.values()
    )


def _held(sigma: Sigma) -> str:
    values = np.concatenate([after.ravel() for _, after in sigma.layers.values()])
    low, high = float(values.min()), float(values.max())
    return f"{sigma.row} (σ = {low:.3g})" if low == high else f"{sigma.row} (σ from {low:.3g} to {high:.3g})"


def _sigma(sigma: Sigma, place: int) -> dict[str, Any]:
    from noiseopt.report.figures import sigma_maps, sigma_panel

    panels = []
    for number, (layer, (_, after)) in enumerate(sigma.layers.items()):
        shape = " × ".join(map(str, after.shape)) or "1"
        name = f"sigma-{place}-{number}"
        maps = sigma_maps(sigma, layer, name=f"{name}-maps") if after.ndim == 3 and min(after.shape[1:]) > 1 else ""
        panels.append(
            {
                "title": layer,
                "shape": shape,
                "svg": Markup(sigma_panel(sigma, layer, name=name)),
                "maps": Markup(maps),
            }
        )
    return {"row": sigma.row, "seed": sigma.seed, "panels": panels}


def _facts(about: dict[str, Any]) -> list[tuple[str, str]]:
    data = mapping(about.get("data"))
    counts = [f"{n:,} {part}" for part, n in mapping(data.get("counts")).items() if isinstance(n, int)]
    versions = [f"{name} {version}" for name, version in mapping(about.get("versions")).items()]
    seconds = about.get("seconds")
    facts = {
        "Recipe": about.get("recipe_name"),
        "Seed": about.get("seed"),
        "Data": data.get("name"),
        "Images": ", ".join(counts),
        "Data SHA-256": data.get("hash"),
        "Versions": ", ".join(versions),
        "Device": about.get("device"),
        "Started": _when(about.get("started")),
        "Took": duration(seconds) if isinstance(seconds, int | float) else "not finished",
    }
    return [(name, str(value)) for name, value in facts.items() if value not in (None, "")]


def duration(seconds: float) -> str:
    """`3 h 5 min`, `12 min 4 s` or `8.3 s`.

    >>> duration(724), duration(8.31)
    ('12 min 4 s', '8.3 s')
    """
    if not 60 <= seconds < float("inf"):
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _when(started: object) -> str:
    """An ISO time as people write it; whatever else it is, as it is."""
    try:
        moment = datetime.fromisoformat(str(started))
    except ValueError:
        return "" if started is None else str(started)
    return f"{moment:%d %B %Y, %H:%M}".lstrip("0") + (f" {moment:%Z}" if moment.tzinfo else "")
