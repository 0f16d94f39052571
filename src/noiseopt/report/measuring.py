"""How the numbers of a replication were measured, as Markdown: protocols, seeds, counts, settings, commands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from noiseopt.concepts import Record
from noiseopt.report.export import markdown_table
from noiseopt.report.layout import mapping, row_label
from noiseopt.report.models import row_labels
from noiseopt.report.papers import Paper
from noiseopt.report.settings import settings
from noiseopt.report.sources import Numbers, Source, seeds_of
from noiseopt.report.table import PROTOCOLS


def section(paper: Paper, sources: Mapping[str, Source], measured: Mapping[str, Numbers]) -> Iterator[str]:
    """Everything but the numbers."""
    lines = [*_data(sources), *_protocols(paper, sources), *_seeds(sources, measured)]
    yield "".join(f"- {line}\n" for line in lines)
    yield paper.intervals
    shown = [name for part in paper.sections if part.kind in ("table", "figures") for name in part.recipes]
    table = _settings([sources[name] for name in shown if name in sources])
    if table:
        yield "The perturbations, with the settings that the Records state:\n"
        yield table
    commands = {name: source.about.get("command") for name, source in sources.items()}
    if any(commands.values()):
        yield "Trained and measured by:\n"
        listed = "\n".join(str(command) for command in dict.fromkeys(filter(None, commands.values())))
        yield f"```\n{listed}\n```\n"
    troubles = [f"- {name}: {note}\n" for name, source in sources.items() for note in _amiss(source)]
    if troubles:
        yield "Unfinished or amiss:\n"
        yield "".join(troubles)


def _amiss(source: Source) -> list[str]:
    if not mapping(source.about.get("recipe")).get("columns"):  # a recipe of curves alone has no Records to miss
        return [note for note in source.notes if not note.startswith("records.jsonl is missing")]
    return list(source.notes)


def _data(sources: Mapping[str, Source]) -> Iterator[str]:
    images: dict[str, None] = {}
    made: dict[str, list[str]] = {}
    for name, source in sources.items():
        data = mapping(source.about.get("data"))
        counts = [f"{part} {n:,}" for part, n in mapping(data.get("counts")).items() if isinstance(n, int)]
        if data.get("name"):
            hashed = f"; SHA-256 `{data['hash']}`" if data.get("hash") else ""
            images[f"{data['name']}: {', '.join(counts)}{hashed}"] = None
        versions = [f"{what} {version}" for what, version in mapping(source.about.get("versions")).items()]
        where = source.about.get("device")
        made.setdefault(", ".join(versions) + (f"; on {where}" if where else ""), []).append(f"`{name}`")
    yield from (f"Images: {text}." for text in images)
    yield from (f"{', '.join(names)}: {text}." for text, names in made.items() if text)


def _protocols(paper: Paper, sources: Mapping[str, Source]) -> Iterator[str]:
    records = [record for source in sources.values() for record in source.records if record.metric == "accuracy"]
    for protocol in PROTOCOLS:
        chosen = [record for record in records if record.protocol == protocol]
        if not chosen:
            yield f"Protocol {protocol}: not measured yet."
            continue
        draws = sorted({record.draws for record in chosen if record.noise})
        noisy = f"; with noise on, a prediction averages {_listed(draws)} draw{'s' * (draws != [1])}" if draws else ""
        images = _listed(sorted({record.count for record in chosen}))
        yield f"Protocol {protocol}: {paper.protocols[protocol]}; {images} test images{noisy}."


def _listed(numbers: Sequence[int]) -> str:
    return " or ".join(f"{number:,}" for number in numbers)


def _seeds(sources: Mapping[str, Source], measured: Mapping[str, Numbers]) -> Iterator[str]:
    for name, source in sources.items():
        wanted = seeds_of(source)
        rows = [row for row in row_labels(source.about) if row in source.layout.rows] or list(source.layout.rows)
        if not rows or not mapping(source.about.get("recipe")).get("columns", source.records):
            continue
        curves = [(row_label(r), r.model_seed or 0) for r in source.records if source.layout.is_curve(r)]
        pairs = {(cell.model, seed) for cell, by in measured[name].items() for seed in by} | set(curves)
        seeds = {row: {seed for model, seed in pairs if model == row} for row in rows}
        behind = [f"{row}: {len(found)}" for row, found in seeds.items() if len(found) < len(wanted)]
        models = f"{len(rows)} models, each" if len(rows) != 1 else "1 model"
        text = f"`{name}`: {models} trained from {len(wanted)} seed{'s' * (len(wanted) != 1)} "
        text += f"({', '.join(map(str, wanted))}); {len(source.records):,} Records"
        yield f"{text}. Seeds measured so far: {'; '.join(behind)}." if behind else f"{text}."


def _settings(sources: Iterable[Source]) -> str:
    found: dict[tuple[str, str, str], None] = {}
    for source in sources:
        kept: list[Record] = [record for record in source.records if record.perturbation != "clean"]
        for line in settings(kept, source.layout):
            found[line["name"], line["protocol"], line["text"]] = None
    return (
        markdown_table(["Perturbation", "Protocol", "Settings"], [list(key) for key in found], left=3) if found else ""
    )
