"""A few test images under every perturbation, with what each row says about them: for the report."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from noiseopt.checkpoint import write_atomically
from noiseopt.data import Dataset
from noiseopt.evaluate import predict
from noiseopt.experiments.cells import Defended, Plan, Training
from noiseopt.experiments.models import TrainedModels
from noiseopt.experiments.perturbations import Clean, OfCorruption, OfPerturbation, Scene
from noiseopt.experiments.planning import code_version
from noiseopt.experiments.recipe import Recipe
from noiseopt.experiments.rows import Row
from noiseopt.experiments.schema import Column
from noiseopt.experiments.store import digest
from noiseopt.noise import noise

IMAGES = 8
_SEVERITY = 3
_DISTORTIONS = 4


def write_gallery(folder: Path, recipe: Recipe, cells: Plan, models: TrainedModels, measured: Dataset) -> str:
    """Write `gallery.safetensors` and `gallery.json` into `folder`, unless they are there; says what it shows.

    White-box attacks are crafted on one row, named in gallery.json: the last that learns its noise.
    """
    rows = _rows(recipe, cells)
    attacked = _attacked(recipe)
    shown = _perturbations(recipe)
    looks = {title: perturbation.fingerprint() for title, perturbation in shown.items()}
    made = {label: cell.hash for label, cell in rows.items()}
    surrogates = [cell.hash for cell in cells.trainings if not isinstance(cell.network, Row)]
    how = [recipe.evaluation.model_dump(), recipe.protocol, looks, code_version()]
    made_of = digest([made, surrogates, attacked, measured.hash, *how])
    result = f"{IMAGES} images, attacks crafted on {attacked}"
    if _made_of(folder) == made_of:
        return result
    examples = measured.subset(_different(measured))
    images, labels, ids = next(examples.batches(len(examples)))
    scene = Scene(models[rows[attacked]], images, labels, ids)
    surrogate = next((models[c] for c in cells.trainings if not isinstance(c.network, Row)), None)
    tensors: dict[str, Tensor] = {"labels": labels}
    on = True in recipe.evaluation.noise
    with noise(models[rows[attacked]], on=on):
        perturbed = torch.stack(
            [
                p.build(surrogate=surrogate, seed=recipe.evaluation.seed, scene=scene)(
                    models[rows[attacked]].eval(), images, labels, samples=ids
                )
                for p in shown.values()
            ]
        )
    tensors["images"] = perturbed
    for label, cell in rows.items():
        probabilities = torch.stack(
            [
                predict(
                    models[cell],
                    batch,
                    draws=recipe.evaluation.of(recipe.protocol).draws,
                    noise=on,
                    seed=recipe.evaluation.seed,
                    samples=ids,
                )
                for batch in perturbed
            ]
        )
        confidence, predictions = probabilities.max(-1)
        tensors |= {f"confidence/{label}": confidence, f"predictions/{label}": predictions}
    about = {
        "perturbations": list(shown),
        "classes": list(measured.classes),
        "rows": list(rows),
        "crafted_on": attacked,
        "made_of": made_of,
    }
    cpu = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    write_atomically(folder / "gallery.safetensors", save(cpu))
    write_atomically(folder / "gallery.json", (json.dumps(about, ensure_ascii=False) + "\n").encode())
    return result


def _rows(recipe: Recipe, cells: Plan) -> dict[str, Training | Defended]:
    first = recipe.seeds[0]
    return {cell.row.label: cell.row for cell in cells.measurements if cell.row.seed == first}


def _attacked(recipe: Recipe) -> str:
    shown = [row for row in recipe.rows if row.shown]
    noisy = [row for row in shown if row.noise is not None]
    learned = [row for row in noisy if row.noise is not None and row.noise.learned]
    return (learned or noisy or shown)[-1].label


def _perturbations(recipe: Recipe) -> dict[str, OfPerturbation]:
    """Title → perturbation: one of each column, a corruption at its middle severity, a few of a curve; each once, clean
    first."""
    shown: dict[str, OfPerturbation] = {"clean": Clean()}
    for column in recipe.columns:
        others = [p for p in recipe.protocols_of(column) if p != recipe.protocol]
        suffix = f" ({others[0]})" if others == recipe.protocols_of(column) else ""
        for chosen in _chosen(column):
            if chosen not in shown.values():
                shown[chosen.title + suffix] = chosen
    return shown


def _chosen(column: Column) -> list[OfPerturbation]:
    several = column.perturbations
    if column.curve:
        # Evenly along the curve, without its beginning: so curves over one range are shown at equal distortions.
        last = len(several) - 1
        places = [max(round(last * part / _DISTORTIONS), min(1, last)) for part in range(1, _DISTORTIONS + 1)]
        return [several[place] for place in dict.fromkeys(places)]
    return [next((p for p in several if isinstance(p, OfCorruption) and p.severity == _SEVERITY), several[0])]


def _different(data: Dataset) -> list[int]:
    """The first image of each class, until there are enough; then whichever come first."""
    first: dict[int, int] = {}
    for index, label in enumerate(data.labels.tolist()):
        first.setdefault(label, index)
    chosen = sorted(first.values())[:IMAGES]
    rest = [i for i in range(len(data)) if i not in chosen]
    return sorted([*chosen, *rest[: max(0, IMAGES - len(chosen))]])


def _made_of(folder: Path) -> str | None:
    if not (folder / "gallery.safetensors").exists():
        return None
    try:
        found = json.loads((folder / "gallery.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    made_of = found.get("made_of") if isinstance(found, dict) else None
    return made_of if isinstance(made_of, str) else None
