"""Runs of the tiny recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from noiseopt.concepts import Record
from noiseopt.experiments.events import Event
from noiseopt.experiments.recipe import Recipe
from noiseopt.experiments.run import Outcome, Runner
from noiseopt.experiments.store import Store

MODELS = {("MLP", 0), ("MLP+", 0), ("MLPN", 0), ("surrogate", 1000)}


def models(folder: Path) -> dict[tuple[str, int], Path]:
    """(label, seed) → folder, as run.json says."""
    about = json.loads((folder / "tiny" / "run.json").read_text())
    return {(m["label"], m["seed"]): (folder / "tiny" / m["folder"]).resolve() for m in about["models"]}


def run(recipe: Recipe, folder: Path, **options: Any) -> tuple[Outcome, list[Event]]:
    events: list[Event] = []
    stages = {name: options.pop(name) for name in ("training", "measuring", "seeds") if name in options}
    runner = Runner(recipe, runs_dir=folder, device="cpu", listener=events.append, **options)
    return runner.run(**stages), events


def records(folder: Path) -> list[Record]:
    return Store(folder / "tiny" / "records.jsonl").records
