"""Saliency maps of a few test images by every row, as in figure 4 of Xiao et al.: for the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from noiseopt.checkpoint import write_atomically
from noiseopt.data import Dataset
from noiseopt.evaluate import predict
from noiseopt.experiments.cells import Defended, Plan, Training
from noiseopt.experiments.models import TrainedModels
from noiseopt.experiments.planning import code_version
from noiseopt.experiments.recipe import Recipe
from noiseopt.experiments.store import digest
from noiseopt.saliency import boxed, saliency

_BATCH = 250


def write_maps(folder: Path, recipe: Recipe, cells: Plan, models: TrainedModels, measured: Dataset) -> str:
    """Write `saliency.safetensors` and `saliency.json` into `folder`, unless they are there; says what they show.

    The images are those that the most rows classify correctly, with the noise on and off alike; the first of equals
    goes first. Per row and state of the noise there is a map of each, and whether the answer was right: a report shows
    maps of right answers only.

    Tensors, for I images: `images` `Float[I, C, H, W]` in [0, 1], `labels` `Int64[I]`, `boxes` `Int16[I, 4]` (-1 where
    unknown), and for each row `maps/<on or off>/<label>` `Float[I, H, W]`, `said/<on or off>/<label>` `Int64[I]`.
    """
    settings = recipe.saliency
    assert settings is not None, "nobody asks for maps that the recipe does not ask for"
    rows = _rows(recipe, cells)
    states = [
        (label, on) for label, cell in rows.items() for on in (recipe.evaluation.noise if cell.noisy else [False])
    ]
    made = {label: cell.hash for label, cell in rows.items()}
    how = [settings.model_dump(), recipe.evaluation.model_dump(), recipe.protocol]
    parts = [*how, made, measured.hash, code_version()]
    count = settings.count(on_cpu=measured.images.device.type == "cpu")
    candidates = boxed(measured, count)
    if not len(candidates):
        candidates = measured.span(0, min(count, len(measured)))
    made_of = digest([*parts, len(candidates)])
    if (said := _there(folder, made_of)) is not None:
        return said
    evaluation = recipe.evaluation
    draws = evaluation.of(recipe.protocol).draws
    answers: dict[tuple[str, bool], Tensor] = {}
    for label, on in states:
        answers[label, on] = torch.cat(
            [
                predict(models[rows[label]], images, draws=draws, noise=on, seed=evaluation.seed, samples=ids).argmax(1)
                for images, _, ids in candidates.batches(_BATCH)
            ]
        )
    index = _chosen(answers, candidates.labels, settings.shown)
    shown = candidates.subset(index)
    images, labels, ids = shown.batch(torch.arange(len(shown)))
    boxes = shown.boxes if shown.boxes is not None else torch.full((len(shown), 4), -1, dtype=torch.int16)
    tensors: dict[str, Tensor] = {"images": images, "labels": labels, "boxes": boxes}
    for label, on in states:
        name = f"{'on' if on else 'off'}/{label}"
        tensors[f"said/{name}"] = answers[label, on][index]
        tensors[f"maps/{name}"] = saliency(
            models[rows[label]],
            images,
            labels,
            noise=on,
            draws=settings.draws,
            seed=evaluation.seed,
            sigma=settings.sigma,
            samples=settings.samples,
            ids=ids,
        )
    right = sum(int((answers[state][index] == labels).sum()) for state in states)
    text = f"{len(shown)} of {len(candidates):,} images, {right} of {len(states) * len(shown)} maps of right answers"
    about = {
        "rows": list(rows),
        "classes": list(measured.classes),
        "sigma": settings.sigma,
        "samples": settings.samples,
        "draws": settings.draws,
        "candidates": len(candidates),
        "seed": recipe.seeds[0],
        "says": text,
        "made_of": made_of,
    }
    cpu = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    write_atomically(folder / "saliency.safetensors", save(cpu))
    write_atomically(folder / "saliency.json", (json.dumps(about, ensure_ascii=False) + "\n").encode())
    return text


def _rows(recipe: Recipe, cells: Plan) -> dict[str, Training | Defended]:
    """Label → what is shown, of the first seed; from the trainings where nothing is measured."""
    first, shown = recipe.seeds[0], [row.label for row in recipe.rows if row.shown]
    subjects = {cell.row.label: cell.row for cell in cells.measurements if cell.row.seed == first}
    trained = {cell.label: cell for cell in cells.trainings if cell.seed == first}
    found = {label: subjects.get(label) or trained.get(label) for label in shown}
    return {label: cell for label, cell in found.items() if cell is not None}


def _chosen(answers: Mapping[tuple[str, bool], Tensor], labels: Tensor, count: int) -> Tensor:
    """Places of the images with the most right answers, the first first; none without any. `Int64[I]`."""
    right = torch.stack([said == labels for said in answers.values()]).sum(dim=0)
    best = right.argsort(descending=True, stable=True)[:count]
    return best[right[best] > 0].sort().values


def _there(folder: Path, made_of: str) -> str | None:
    """What the maps in `folder` show, where they are these."""
    if not (folder / "saliency.safetensors").exists():
        return None
    try:
        found = json.loads((folder / "saliency.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or found.get("made_of") != made_of:
        return None
    return str(found.get("says") or "there already")
