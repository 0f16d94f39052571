"""Where every method of a leaderboard stands: clean and audited accuracy over seeds, and what training it costs."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from noiseopt.report.audit import FOLDER, current, entries_of, is_noise_off
from noiseopt.report.kinds import adversary_of, kind_of, length_of
from noiseopt.report.layout import mapping
from noiseopt.report.levels import Levels, final_levels
from noiseopt.report.sources import Source, number_of, numbers, plain_rows
from noiseopt.report.statistics import Estimate, estimate, paired

COST = "cost.json"
_NAMED = 5  # of the audits that do not count


@dataclass(frozen=True)
class Standing:
    """One row: `clean` and `audited` accuracy, of the same images by the same votes; `cost` is time / plain.

    `adversary`: on whose examples it was trained, in words, such as "FGSM, 25/255"; "" for images as they are.
    `length`: of its training, such as "40,000 steps", where it has one of its own; "" for that of the recipe.
    `numbers`: the recipe's columns under the strict protocol, by column and whether the noise was on.
    `clean_off`, `audited_off`: with its noise taken out; `worth`: audited on less off, paired over the seeds of both.
    `close`: share of the images that survived by a close vote.
    `levels`: of the noise at the end of the training.
    `masking`: check → on how many of the audited seeds it points to masking.
    """

    label: str
    kind: str
    adversary: str
    length: str
    clean: Estimate
    audited: Estimate
    numbers: Mapping[tuple[str, bool], Estimate] = field(default_factory=dict)
    clean_off: Estimate = field(default_factory=lambda: estimate([]))
    audited_off: Estimate = field(default_factory=lambda: estimate([]))
    worth: Estimate = field(default_factory=lambda: estimate([]))
    close: float = 0.0
    levels: Levels | None = None
    masking: Mapping[str, int] = field(default_factory=dict)
    cost: float | None = None

    @property
    def placed(self) -> bool:
        """Was it audited, so that it can be compared?"""
        return self.audited.known

    def measured(self, column: str, *, noise: bool) -> Estimate:
        """The number of a column of the recipe, with the noise on or off; without noise there is only the first."""
        return self.numbers.get((column, noise)) or estimate([])


@dataclass(frozen=True)
class Standings:
    """All rows in the recipe's order; `settings`, `images` and `commands` of the audits, `seeds` that were audited."""

    rows: tuple[Standing, ...]
    settings: Mapping[str, Any]
    images: int
    seeds: tuple[int, ...]
    commands: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def group(self, *, adversarial: bool) -> list[Standing]:
        """The rows trained on adversarial examples, or those that were not."""
        return [row for row in self.rows if bool(row.adversary) is adversarial]


def standings(source: Source) -> Standings:
    """The rows of a published leaderboard; what was not measured or audited yet has no number.

    Audits count together only where they were made alike, and of the networks that the run now has; a note says which
    were left out.
    """
    notes = list(source.notes)
    recipe = {str(row.get("label")): row for row in map(mapping, mapping(source.about.get("recipe")).get("rows") or [])}
    audits, settings, images = _audits(source, recipe, notes)
    usual = length_of(mapping(mapping(source.about.get("recipe")).get("training")))
    found, plain = numbers(source.records), plain_rows(source)
    cost, levels = _cost(source.folder / COST, notes), final_levels(source)
    rows = []
    for label, row in recipe.items():
        if not row.get("shown", True):
            continue
        measured = {
            (column.key, on): estimate(
                number_of(found, label, column.key, protocol="strict", noise=on, plain=plain).values()
            )
            for column in source.layout.columns
            for on in ((True,) if label in plain else (True, False))
        }
        own, without = audits[label, False], audits[label, True]
        rows.append(
            Standing(
                label=label,
                kind=kind_of(row),
                adversary=adversary_of(row, recipe),
                length="" if (own_length := length_of(mapping(row.get("training")))) == usual else own_length,
                clean=estimate(float(entry["clean"]["value"]) for entry in own.values()),
                audited=estimate(_audited(own).values()),
                numbers=measured,
                clean_off=estimate(float(entry["clean"]["value"]) for entry in without.values()),
                audited_off=estimate(_audited(without).values()),
                worth=paired(
                    *({seed: float(e["audited"]["value"]) for seed, e in on.items()} for on in (own, without))
                ).size,
                close=_close(own.values()),
                levels=levels.get(label),
                masking=_masking(own.values()),
                cost=cost.get(label),
            )
        )
    counted = [entry for by_seed in audits.values() for entry in by_seed.values()]
    seeds = sorted({int(entry["model_seed"] or 0) for entry in counted})
    commands = dict.fromkeys(str(entry["command"]) for entry in counted if entry.get("command"))
    return Standings(tuple(rows), settings, images, tuple(seeds), tuple(commands), tuple(notes))


def _audits(
    source: Source, recipe: Mapping[str, Any], notes: list[str]
) -> tuple[dict[tuple[str, bool], dict[int, dict[str, Any]]], Mapping[str, Any], int]:
    """(row, was its noise taken out?) → seed → its audit, of those that were made as most with their noise were; their
    settings, and how many images they had.
    """
    found = entries_of(source.folder / FOLDER / "audit.json", notes)
    found = [entry for entry in found if str(entry["model"]) in recipe]
    now = current(found, source.about, notes, what="audits")
    alike = Counter(_made(entry) for entry in now if not is_noise_off(entry)).most_common(1)
    audits: dict[tuple[str, bool], dict[int, dict[str, Any]]] = defaultdict(dict)
    chosen: dict[str, Any] = {}
    others: list[str] = []
    for entry in now:
        if alike and _made(entry) == alike[0][0]:
            at = str(entry["model"]), is_noise_off(entry)
            audits[at][int(entry["model_seed"] or 0)] = chosen = entry
        else:
            others.append(f"{entry['model']}, seed {entry['model_seed']}")
    if others:
        more = f"; and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        notes.append(f"Audits made otherwise than most do not count here: {'; '.join(others[:_NAMED])}{more}")
    return audits, mapping(chosen.get("settings")), int(chosen.get("images", 0))


def _made(entry: Mapping[str, Any]) -> str:
    """How an audit was made, as text; each network's has draws of its own."""
    return json.dumps([{**mapping(entry["settings"]), "seed": None}, entry["images"]], sort_keys=True)


def _audited(entries: Mapping[int, Mapping[str, Any]]) -> dict[int, float]:
    return {seed: float(entry["audited"]["value"]) for seed, entry in entries.items()}


def _close(entries: Iterable[Mapping[str, Any]]) -> float:
    shares = [int(entry["audited"]["undecided"]) / int(entry["images"]) for entry in entries]
    return sum(shares) / len(shares) if shares else 0.0


def _masking(entries: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    found = sorted(
        str(check["name"]) for entry in entries for check in entry["checks"] if check["found"] and check["masking"]
    )
    return {name: len(list(same)) for name, same in groupby(found)}


def _cost(path: Path, notes: list[str]) -> dict[str, float]:
    """Row → time of its training step over a plain one's, as `benchmarks.training_cost` has written it."""
    if not path.exists():
        return {}
    try:
        rows: Sequence[Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
        return {str(row["row"]): float(row["time / plain"]) for row in rows}
    except (OSError, ValueError, TypeError, KeyError) as error:
        notes.append(f"{path.name} cannot be read: {error!r}")
        return {}
