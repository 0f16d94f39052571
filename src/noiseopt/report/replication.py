"""The replication of a paper as one Markdown page with pictures, made from published results and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from noiseopt.report import distorted, measuring, training
from noiseopt.report.bydistortion import span_numbers
from noiseopt.report.claims import Evidence, passages
from noiseopt.report.export import markdown_table, write_page
from noiseopt.report.layout import COLUMNS, paper_tables
from noiseopt.report.maps import INSIDE, shares_of
from noiseopt.report.models import Epochs, read_epochs
from noiseopt.report.papers import Paper, Section, paper_of
from noiseopt.report.scales import Words
from noiseopt.report.sources import Numbers, Source, number_of, numbers, plain_rows, read, severities_of, tabled
from noiseopt.report.statistics import estimate
from noiseopt.report.table import PROTOCOLS
from noiseopt.report.verdicts import Judged, details, judged, name_of, overview, summary


@dataclass(frozen=True)
class Results:
    """What a document is made of, by recipe. `pictures` are added as they are drawn: file name → PNG."""

    paper: Paper
    sources: Mapping[str, Source]
    measured: Mapping[str, Numbers]
    curves: Mapping[str, Sequence[Epochs]]
    words: Words
    pictures: dict[str, bytes] = field(default_factory=dict)


def write_replication(folder: str | Path, output: str | Path, *, command: str) -> Path:
    """Write the page of the results in `folder` (one folder a recipe, such as table3/) to `output`.

    Which paper it is about is known from the recipes. Pictures go to figures/ beside it. `command` stands at its head.
    What was not measured yet is said so; the same results give the same bytes.

    Raises:
        UserError: there is no result of these recipes in `folder`, or of several papers; or the page cannot be written.
    """
    found = {source.name: source for source in (read(p.parent) for p in sorted(Path(folder).glob("*/run.json")))}
    paper = paper_of(found, folder=str(folder))
    page, pictures = render(paper, {name: found[name] for name in paper.recipes if name in found}, command=command)
    return write_page(Path(output), page, pictures)


def render(paper: Paper, sources: Mapping[str, Source], *, command: str) -> tuple[str, dict[str, bytes]]:
    """The page, and its pictures by file name."""
    names = {c.key: c.title for s in sources.values() for c in (*s.layout.columns, *s.layout.curves)}
    results = Results(
        paper,
        sources,
        {name: numbers(tabled(s), severities=severities_of(s.about)) for name, s in sources.items()},
        {name: read_epochs(source.folder, source.about) for name, source in sources.items()},
        Words(paper.scale, paper.noise_off, {key: title for key, title in names.items() if key not in COLUMNS}),
    )
    claims = judged(_evidence(results), paper.claims)
    parts = [
        f"Made by `{command}` from the Records published there. Do not edit: run it again.\n",
        f"# {paper.heading}\n",
        f"{paper.about}\n",
        f"{summary(claims)}\n",
        "## How it was measured\n",
        *measuring.section(paper, sources, results.measured),
    ]
    for section in paper.sections:
        parts.append(f"## {section.title}\n")
        parts += _section(section, results, claims)
    return "\n".join(parts).rstrip() + "\n", results.pictures


def _evidence(results: Results) -> Evidence:
    tested = [section for section in results.paper.sections if section.tested]
    there = [name for s in tested if s.kind in ("table", "figures") for name in _first(s, results)]
    found = {cell: by_seed for name in there for cell, by_seed in results.measured[name].items()}
    tests = [t for passage in passages(results.paper.claims) for sentence in passage.sentences for t in sentence.tests]
    keys = [key for test in tests for protocol in PROTOCOLS for _, _, key in test.cells(protocol)]
    for name in there:
        found |= span_numbers(results.sources[name].records, results.sources[name].layout, keys)
    for name in [name for s in tested if s.kind == "saliency" for name in _first(s, results)]:
        found |= numbers(results.sources[name].records, metric=INSIDE)
        there.append(name)
    plain = frozenset(row for name in there for row in plain_rows(results.sources[name]))
    return Evidence(found, plain, _of_training(results))


def _first(section: Section, results: Results) -> list[str]:
    """The recipe whose results a section shows; none where there are none."""
    return [name for name in section.recipes if name in results.sources][:1]


def _of_training(results: Results) -> Sequence[Epochs]:
    recipes = [name for section in results.paper.sections if section.kind == "training" for name in section.recipes]
    return next((curves for name in recipes if (curves := results.curves.get(name))), [])


def _section(section: Section, results: Results, claims: Judged) -> Iterator[str]:
    recipe = next(iter(_first(section, results)), "")
    source, found = results.sources.get(recipe), results.measured.get(recipe, {})
    if section.kind == "claims":
        yield from (results.paper.rules, overview(claims, results.words), "## Claim by claim\n")
        yield from details(claims, results.words)
    elif section.kind == "table":
        yield from _table(section.table, source, found, results.words)
    elif section.kind == "training":
        yield from training.section(_of_training(results), results.pictures)
    elif section.kind == "why":
        yield from training.why(source, found, results.curves.get(recipe, []), results.pictures)
    elif section.kind == "saliency":
        yield from _saliency(source, results.words)
    elif section.kind == "images":
        yield from distorted.images(source, results.pictures)
    else:
        yield from distorted.figures(source, results.pictures)


def _saliency(source: Source | None, words: Words) -> Iterator[str]:
    """Shares inside the box, with the interval over seeds as everywhere."""
    shares = shares_of(source.records, source.layout.rows) if source is not None else []
    if source is None or not shares:
        yield "Not measured yet.\n"
        return
    rows = [
        [s.row, "on" if s.noise else "off", words.number(estimate(s.seeds)), f"{s.low:.3f} to {s.high:.3f}"]
        for s in shares
    ]
    yield markdown_table(["Model", "Noise", "Share inside the box", "95 % interval over images"], rows, left=2)
    images = max(share.images for share in shares)
    yield (
        f"The mean over {images:,} test images, the same for every model, of the share of a saliency map that lies "
        f"inside the object's bounding box. A map that prefers no pixel would have {shares[0].uniform:.3f}.\n"
    )


def _table(number: str, source: Source | None, found: Numbers, words: Words) -> Iterator[str]:
    if source is None or not found:
        yield "Not measured yet.\n"
        return
    plain = plain_rows(source)
    for protocol in PROTOCOLS:
        for noise in (True, False) if words.noise_off else (True,):
            yield f"### Protocol {protocol}" + (f", noise {'on' if noise else 'off'}" if words.noise_off else "") + "\n"
            yield from _grid(number, source, found, plain, words, protocol=protocol, noise=noise)


def _keys(number: str, source: Source, found: Numbers, protocol: str) -> list[str]:
    """The columns: those that the paper printed, then what else was measured under the protocol."""
    rows: Mapping[str, Mapping[str, float]] = paper_tables()[number]["rows"]
    printed = dict.fromkeys(key for row in rows.values() for key in row)
    measured = {cell.column for cell in found if cell.protocol == protocol}
    return [*printed, *(c.key for c in source.layout.columns if c.key in measured and c.key not in printed)]


def _grid(
    number: str, source: Source, found: Numbers, plain: set[str], words: Words, *, protocol: str, noise: bool
) -> Iterator[str]:
    """Ours, mean ± half the interval; with the noise on, as the paper has it, the printed numbers below each row."""
    printed: Mapping[str, Any] = paper_tables()[number]["rows"]
    columns = _keys(number, source, found, protocol)
    rows, missing, alone = [], 0, 0
    for row in printed:
        if not noise and row in plain:  # it stands above: it has no noise to switch off
            continue
        cells = [number_of(found, row, key, protocol=protocol, noise=noise, plain=plain) for key in columns]
        counts = sorted({len(cell) for cell in cells if cell})
        missing += sum(not cell for cell in cells)
        alone += counts[:1] == [1]
        seeds = "–".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "0"
        state = f"ours, {seeds} seed{'s' if seeds != '1' else ''}" if counts else "not measured yet"
        rows.append([row, state, *(words.number(estimate(cell.values())) for cell in cells)])
        if noise:
            rows.append(
                ["", "paper", *(words.printed(printed[row][key]) if key in printed[row] else "" for key in columns)]
            )
    if not any(any(row[2:]) for row in rows if row[1] != "paper"):
        yield "Not measured yet.\n"
        return
    yield markdown_table(["Model", "", *(name_of(key, words) for key in columns)], rows, left=2)
    if alone:
        yield "A number without ± is from a single seed: there is no interval.\n"
    if missing:
        yield f"Blank: {missing} of {len(columns) * (len(rows) // (2 if noise else 1))} numbers are not measured yet.\n"
