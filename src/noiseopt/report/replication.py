"""The replication as one Markdown page with pictures, made from published results and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from noiseopt.checkpoint import write_atomically
from noiseopt.errors import UserError
from noiseopt.report import measuring, training
from noiseopt.report.claims import Evidence
from noiseopt.report.export import markdown_table, shown
from noiseopt.report.layout import COLUMNS, paper_tables
from noiseopt.report.models import Epochs, read_epochs
from noiseopt.report.sources import Numbers, Source, number_of, numbers, plain_rows, read, severities_of
from noiseopt.report.statistics import estimate
from noiseopt.report.table import PROTOCOLS
from noiseopt.report.verdicts import RULES, details, judged, name_of, overview, summary

TABLES = {"3": "table3", "4": "table4"}
"""The paper's tables → the recipes that replicate them."""


def write_replication(folder: str | Path, output: str | Path, *, command: str) -> Path:
    """Write the page of the results in `folder` (one folder a recipe: table3, table4, figure3, why) to `output`.

    Pictures go to figures/ beside it. `command` stands at its head. What was not measured yet is said so; the same
    results give the same bytes.

    Raises:
        UserError: there is no result of these recipes in `folder`, or the page cannot be written.
    """
    path = Path(output)
    found = {source.name: source for source in (read(p.parent) for p in sorted(Path(folder).glob("*/run.json")))}
    known = {name: found[name] for name in (*TABLES.values(), "figure3", "why") if name in found}
    if not known:
        raise UserError(
            "a folder of published results holds table3/, table4/, figure3/ or why/",
            got=f"{folder}, with {', '.join(sorted(found)) or 'no results'}",
            fix="fill it with `noiseopt publish runs/table3 DIR`",
        )
    curves = {name: read_epochs(source.folder, source.about) for name, source in known.items()}
    page, pictures = render(known, curves, command=command)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if pictures:
            (path.parent / "figures").mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} must be writable", got=str(error), fix="give another -o FILE") from None
    for name, png in pictures.items():
        write_atomically(path.parent / "figures" / name, png)
    write_atomically(path, page.encode())
    return path


def render(
    sources: Mapping[str, Source], curves: Mapping[str, Sequence[Epochs]], *, command: str
) -> tuple[str, dict[str, bytes]]:
    """The page, and its pictures by file name."""
    measured = {name: numbers(s.records, severities=severities_of(s.about)) for name, s in sources.items()}
    of_figure = curves.get("figure3") or curves.get("table3") or []
    evidence = Evidence(
        {cell: by_seed for name in TABLES.values() for cell, by_seed in measured.get(name, {}).items()},
        frozenset(row for name in TABLES.values() if name in sources for row in plain_rows(sources[name])),
        of_figure,
    )
    claims = judged(evidence)
    pictures: dict[str, bytes] = {}
    parts = [
        f"Made by `{command}` from the Records published there. Do not edit: run it again.\n",
        "# Replication of section 4.2: MNIST\n",
        "What Xiao, Zhang and Peng, *Noise Optimization for Artificial Neural Networks*, report on MNIST (Tables 3 and "
        "4, Figure 3), measured again, under the paper's protocol and under a stricter one. How σ could be trained "
        "otherwise stands at the end.\n",
        f"{summary(claims)}\n",
        "## How it was measured\n",
        *measuring.section(sources, measured),
    ]
    for number, recipe in TABLES.items():
        parts.append(f"## Table {number}: {paper_tables()[number]['caption']}\n")
        parts += _table(number, sources.get(recipe), measured.get(recipe, {}))
    parts += ["## The paper's claims\n", RULES, overview(claims), "## Claim by claim\n", *details(claims)]
    parts += ["## Figure 3: training curves\n", *training.section(of_figure, pictures)]
    parts += ["## Why: other ways to train σ\n"]
    parts += training.why(sources.get("why"), measured.get("why", {}), curves.get("why", []), pictures)
    return "\n".join(parts).rstrip() + "\n", pictures


def _table(number: str, source: Source | None, found: Numbers) -> Iterator[str]:
    if source is None or not found:
        yield "Not measured yet.\n"
        return
    plain = plain_rows(source)
    for protocol in PROTOCOLS:
        for noise in (True, False):
            yield f"### Protocol {protocol}, noise {'on' if noise else 'off'}\n"
            yield from _grid(number, found, plain, protocol=protocol, noise=noise)


def _grid(number: str, found: Numbers, plain: set[str], *, protocol: str, noise: bool) -> Iterator[str]:
    """Ours, mean ± half the interval; with the noise on, as the paper has it, the printed numbers below each row."""
    printed: Mapping[str, Any] = paper_tables()[number]["rows"]
    columns = [*COLUMNS.values()]
    rows, missing, alone = [], 0, 0
    for row in printed:
        if not noise and row in plain:  # it stands above: it has no noise to switch off
            continue
        cells = [number_of(found, row, c.key, protocol=protocol, noise=noise, plain=plain) for c in columns]
        counts = sorted({len(cell) for cell in cells if cell})
        missing += sum(not cell for cell in cells)
        alone += counts[:1] == [1]
        seeds = "–".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "0"
        state = f"ours, {seeds} seed{'s' if seeds != '1' else ''}" if counts else "not measured yet"
        rows.append([row, state, *(shown(estimate(cell.values())) for cell in cells)])
        if noise:
            rows.append(
                ["", "paper", *(f"{printed[row][c.key]:.3f}" if c.key in printed[row] else "" for c in columns)]
            )
    if not any(any(row[2:]) for row in rows if row[1] != "paper"):
        yield "Not measured yet.\n"
        return
    yield markdown_table(["Model", "", *(name_of(column.key) for column in columns)], rows, left=2)
    if alone:
        yield "A number without ± is from a single seed: there is no interval.\n"
    if missing:
        yield f"Blank: {missing} of {len(columns) * (len(rows) // (2 if noise else 1))} numbers are not measured yet.\n"
