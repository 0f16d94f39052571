"""The models of a run: where their folders are, and their curves, in a run's folder or among published results."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noiseopt.report.layout import mapping


@dataclass(frozen=True)
class Place:
    """Where something of one model lies: its folder, or its file of curves."""

    label: str
    seed: int
    path: Path


@dataclass(frozen=True)
class Epochs:
    """The curves of one model: a line (epoch, train_loss, ..., sigma) for each epoch, in order."""

    label: str
    seed: int
    lines: tuple[dict[str, Any], ...]


def model_folders(run_folder: Path, about: Mapping[str, Any]) -> list[Place]:
    """The folders of a run's models that exist, by label and seed.

    A run.json names them under `models`, relative to the run's folder; an older one does not, and they are
    `models/<slug>-s<seed>`.
    """
    listed = about.get("models")
    if isinstance(listed, list):
        found = [
            Place(str(model["label"]), int(model["seed"]), run_folder / str(model["folder"]))
            for model in listed
            if isinstance(model, dict) and {"label", "seed", "folder"} <= model.keys()
        ]
        return [place for place in found if place.path.is_dir()]
    folder = run_folder / "models"
    named = [(path, _named(path.name, about)) for path in sorted(folder.glob("*-s*")) if path.is_dir()]
    return [Place(*name, path) for path, name in named if name]


def curve_files(folder: Path, about: Mapping[str, Any]) -> list[Place]:
    """The files of curves: published ones (`curves/<slug>-s<seed>.jsonl`), else those of the run's models."""
    if (folder / "curves").is_dir():
        named = [(path, _named(path.stem, about)) for path in sorted((folder / "curves").glob("*-s*.jsonl"))]
        return [Place(*name, path) for path, name in named if name]
    places = [Place(p.label, p.seed, p.path / "curves.jsonl") for p in model_folders(folder, about)]
    return [place for place in places if place.path.is_file()]


def read_epochs(folder: Path, about: Mapping[str, Any]) -> list[Epochs]:
    """The curves of every model; lines that cannot be read are left out, an epoch written twice counts once."""
    models = []
    for place in curve_files(folder, about):
        by_epoch: dict[int, dict[str, Any]] = {}
        for text in place.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and isinstance(line.get("epoch"), int):
                by_epoch[line["epoch"]] = line
        if by_epoch:
            models.append(Epochs(place.label, place.seed, tuple(by_epoch[epoch] for epoch in sorted(by_epoch))))
    return models


def file_name(place: Place) -> str:
    """What a model's published curves are called: `mlp-plus-sigmoid-s0.jsonl`."""
    return f"{_slug(place.label)}-s{place.seed}.jsonl"


def row_labels(about: Mapping[str, Any]) -> list[str]:
    """The labels of the recipe's rows, in its order."""
    recipe = mapping(about.get("recipe"))
    for rows in (recipe.get("rows"), mapping(recipe.get("table")).get("rows")):
        if isinstance(rows, list):
            listed = [mapping(row).get("label", row) for row in rows]
            return [label for label in listed if isinstance(label, str)]
    return []


def _named(name: str, about: Mapping[str, Any]) -> tuple[str, int] | None:
    found = re.fullmatch(r"(.+)-s(\d+)", name)
    if found is None:
        return None
    labels = {_slug(label): label for label in row_labels(about)}
    return labels.get(found[1], found[1]), int(found[2])


def file_stem(title: str) -> str:
    """What a file named after a title or a label is called, without its ending."""
    return _slug(title)


def _slug(label: str) -> str:
    from noiseopt.experiments.schema import slug  # torch comes with it: only where it is needed

    return slug(label)
