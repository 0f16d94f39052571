"""Published results of the replication, made up: numbers by a rule, so that a test knows every verdict beforehand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from noiseopt.concepts import Record
from noiseopt.report.layout import COLUMNS, paper_tables

ATTACKS = ("fgsm", "lbfgs", "pgd")
CORRUPTIONS = ("gaussian_noise", "impulse_noise", "glass_blur", "contrast")
Value = Callable[[str, str, str, bool, int], float | None]
"""(row, column, protocol, noise, seed) → accuracy; None: not measured."""


def jitter(seed: int, *words: object) -> float:
    """A small number in ±0.003 that is another one for every seed and word."""
    text = " ".join(map(str, (*words, seed)))
    return 0.003 * math.sin(sum((place + 1) * ord(letter) for place, letter in enumerate(text)))


def as_printed(row: str, column: str, protocol: str, noise: bool, seed: int) -> float:
    """The paper's own number under both protocols, plus a jitter that differs by seed."""
    table = "4" if row.startswith("CNN") else "3"
    return float(paper_tables()[table]["rows"][row][column]) + jitter(seed, row, column, protocol)


def is_noisy(row: str) -> bool:
    return "+" in row or "MLPN" in row or row.endswith("AN")


def records_of(
    rows: Sequence[str], columns: Iterable[str], seeds: Iterable[int], value: Value, *, severities: int = 5
) -> list[Record]:
    """Records as a run writes them: five for a corruption, whose mean is `value`."""
    made = []
    for row in rows:
        for seed in seeds:
            for protocol in ("paper", "strict"):
                for noise in (True, False) if is_noisy(row) else (False,):
                    for column in columns:
                        number = value(row, column, protocol, noise, seed)
                        if number is None:
                            continue
                        for level in range(1, severities + 1) if column in CORRUPTIONS else [0]:
                            parameters: dict[str, Any] = {"severity": level} if level else {}
                            if column in ATTACKS:
                                parameters = {"eps": 0.1, "draws": 20 if protocol == "strict" else 1}
                            shift = 0.01 * (3 - level) if level else 0.0
                            made.append(
                                Record(
                                    value=number + shift, low=0.0, high=1.0, noise=noise, perturbation=column,
                                    count=1000 if protocol == "strict" else 10_000, parameters=parameters,
                                    draws=20 if noise and protocol == "strict" else 1, model=row, model_seed=seed,
                                    column=column, protocol=protocol, data="mnist", data_hash="d" * 64,
                                    recipe=f"{row} {column} {level} {protocol} {noise}", code="noiseopt 0.1.0",
                                )
                            )  # fmt: skip
    return made


def about_of(name: str, rows: Sequence[str], columns: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """run.json."""
    perturbations = {
        key: [{"corruption": key, "severity": level} for level in range(1, 6)] if key in CORRUPTIONS else [key]
        for key in columns
    }
    layout = [{"key": key, "title": COLUMNS[key].title, "group": COLUMNS[key].group} for key in columns]
    return {
        "command": f"noiseopt evaluate {name}",
        "recipe_name": name,
        "recipe": {
            "rows": [{"label": row, "noise": {"sigma": "learned"} if is_noisy(row) else None} for row in rows],
            "columns": [{"key": key, "perturbations": perturbations[key]} for key in columns],
            "seeds": list(seeds),
            "table": {"title": name, "paper": None, "rows": list(rows), "columns": layout},
        },
        "versions": {"noiseopt": "0.1.0", "torch": "2.13.0"},
        "data": {"name": "mnist", "hash": "d" * 64, "counts": {"train": 50000, "validation": 10000, "test": 10000}},
        "seconds": 12.5,
        "device": "cpu",
    }


def epochs_of(row: str, seed: int, *, epochs: int = 8, slow: float = 3.0, layers: Sequence[str] = ()) -> str:
    """curves.jsonl: falling losses, the slower the larger `slow`; σ of `layers`."""
    lines = []
    for epoch in range(1, epochs + 1):
        left = math.exp(-epoch / slow) * (1 + jitter(seed, row))
        sigma = {
            layer: {"mean": 0.8 - 0.05 * place + 0.5 * left / (place + 1), "min": 0.0, "max": 2.0, "rms": 1.0}
            for place, layer in enumerate(layers)
        }
        lines.append(
            {
                "epoch": epoch, "train_loss": 0.1 + 2 * left, "validation_loss": 0.15 + 2 * left, "sigma": sigma,
                "validation_accuracy": 0.97 - 0.5 * left, "test_accuracy": 0.965 - 0.5 * left,
                "validation_noise": True, "seconds": 1.0,
            }
        )  # fmt: skip
    return "".join(json.dumps(line) + "\n" for line in lines)


def write_published(
    folder: Path, about: dict[str, Any], records: Sequence[Record], curves: dict[tuple[str, int], str] | None = None
) -> Path:
    """`folder`/<recipe>/ as `noiseopt publish` leaves it."""
    from noiseopt.experiments.schema import slug

    target = folder / about["recipe_name"]
    (target / "curves").mkdir(parents=True)
    (target / "run.json").write_text(json.dumps(about))
    (target / "records.jsonl").write_text("".join(record.model_dump_json() + "\n" for record in records))
    for (row, seed), text in (curves or {}).items():
        (target / "curves" / f"{slug(row)}-s{seed}.jsonl").write_text(text)
    return target


MLPS, CNNS = list(paper_tables()["3"]["rows"]), list(paper_tables()["4"]["rows"])
WHY = ["MLP", "MLP+", "MLPN (loss)", "MLPN (published-sign)", "MLPN (budget)", "MLPN (budget, ascending)",
       "MLPN (entropy)", "MLPN (adversarial)", "MLPN, from 0.1", "MLPN, from 1", "MLPN, from 3", "MLPN, sigma lr 1e-4",
       "MLPN, sigma lr 1e-2", "MLPN, learned mean"]  # fmt: skip
SLOW = {"MLP": 3.0, "MLP+": 4.0, "MLPN": 2.0}


def write_all(folder: Path, *, value: Value = as_printed, seeds: int = 5) -> Path:
    """All four recipes, whole."""
    every, three = list(range(seeds)), list(range(min(seeds, 3)))
    columns = list(COLUMNS)
    write_published(folder, about_of("table3", MLPS, columns, every), records_of(MLPS, columns, every, value))
    write_published(folder, about_of("table4", CNNS, columns, three), records_of(CNNS, columns, three, value))
    curves = {(row, s): epochs_of(row, s, slow=SLOW[row.split(" ")[0]]) for row in MLPS for s in every}
    write_published(folder, about_of("figure3", MLPS, [], every), [], curves)

    def of_why(row: str, column: str, protocol: str, noise: bool, seed: int) -> float:
        level = {"clean": 0.84, "fgsm": 0.4, "pgd": 0.3}[column] - 0.1 * (protocol == "strict" and column != "clean")
        return level + 0.01 * WHY.index(row) + jitter(seed, row, column)

    layers = ("hidden1", "hidden2", "output")
    curves = {
        (row, s): epochs_of(row, s, slow=1.0 + i, layers=layers if is_noisy(row) else ())
        for i, row in enumerate(WHY)
        for s in three
    }
    shown = ["clean", "fgsm", "pgd"]
    write_published(folder, about_of("why", WHY, shown, three), records_of(WHY, shown, three, of_why), curves)
    return folder
