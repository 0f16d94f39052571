"""Audits and certificates of the models of a run, written into its folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from noiseopt.audit.running import Progress, audit
from noiseopt.audit.settings import Auditing
from noiseopt.audit.verdict import Verdict
from noiseopt.certify import Certificates, Certifying, certify
from noiseopt.checkpoint import write_atomically
from noiseopt.concepts import Record
from noiseopt.data import Dataset
from noiseopt.errors import UserError
from noiseopt.experiments.folder import RunFolder
from noiseopt.experiments.models import ModelFolder
from noiseopt.experiments.planning import code_version
from noiseopt.experiments.recipe import Recipe
from noiseopt.experiments.store import Store, digest
from noiseopt.experiments.work import Setting, Worker, local_device
from noiseopt.given import hash_of_model

FOLDER, AUDIT, CERTIFICATES = "audit", "audit.json", "certificates.json"


@dataclass(frozen=True)
class Subject:
    """A trained model of a run."""

    label: str
    seed: int
    cell: str
    """The hash of what it is: of another recipe it is another."""
    model: nn.Module


class Audited:
    """A run whose models are looked at: `<run>/audit` holds what comes of it."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        *,
        data_dir: Path | None,
        device: str | None,
        images: int | None,
        command: str = "",
    ) -> None:
        """`images`: so many test images, the first, which a split has put in random order; None: all.
        `command`: what the user typed, to stand beside the numbers.

        Raises UserError where the data cannot be had, or this machine has no such device.
        """
        self.path, self._command = folder / FOLDER, command
        setting = Setting(
            recipe=json.dumps(recipe.as_dict()),
            runs_dir=str(folder.parent.absolute()),
            data_dir=None if data_dir is None else str(data_dir.absolute()),
            device=local_device(device),
        )
        self._worker = Worker(setting)
        test = self._worker.data.test
        chosen = test if images is None or images >= len(test) else test.span(0, images)
        self.images: Dataset = chosen.to(self._worker.device)

    @property
    def usual_eps(self) -> float:
        """25/255 for grey images, 8/255 for colour: what MNIST and CIFAR-10 are commonly attacked with."""
        return (25 if self.images.images.shape[1] == 1 else 8) / 255

    @property
    def seed(self) -> int:
        """Of the recipe's evaluation."""
        return self._worker.recipe.evaluation.seed

    def subjects(self, rows: Sequence[str], seeds: Collection[int] | None) -> Iterator[Subject]:
        """The models of these rows (none: all) and of these seeds (None: the first), one after another.

        Raises UserError, before the first, where there is no such row or seed, or a model is not trained.
        """
        found = self._worker.cells.networks
        labels = list(dict.fromkeys(cell.label for cell in found))
        for row in rows:
            if row not in labels:
                raise UserError("a row must be one of the run's", got=row, fix=f"choose among {', '.join(labels)}")
        there = sorted({cell.seed for cell in found})
        for seed in seeds or ():
            if seed not in there:
                raise UserError(
                    f"the run has the seeds {', '.join(map(str, there))}", got=seed, fix="choose among them"
                )
        wanted = set(seeds) if seeds else set(there[:1])
        cells = [cell for cell in found if cell.seed in wanted and (not rows or cell.label in rows)]
        for cell in cells:
            for need in cell.trainings:
                done = ModelFolder(self._worker.setting.runs_dir, need).epochs_done
                if done < need.epochs:
                    rule, got = f"{need.title} must be trained first", f"{done} of {need.epochs} epochs"
                    raise UserError(rule, got=got, fix="run `noiseopt train` with its recipe")
        return (Subject(cell.label, cell.seed, cell.hash, self._worker.models[cell]) for cell in cells)

    def audit(
        self, subject: Subject, settings: Auditing, *, batch_size: int, progress: Callable[[Progress], None]
    ) -> Verdict:
        """Audit one model; its Records and its part of audit.json are on the disk when this returns."""
        with RunFolder(self.path).open():
            verdict = audit(
                subject.model,
                self.images,
                settings,
                folder=self.path,
                label=subject.label,
                model_seed=subject.seed,
                batch_size=batch_size,
                progress=progress,
            )
            entry = {**verdict.as_dict(), "cell": subject.cell, "command": self._command}
            self._keep(verdict.records, AUDIT, entry, of=("model", "model_seed"))
        return verdict

    def certify(
        self, subject: Subject, settings: Certifying, *, batch_size: int, progress: Callable[[int, int], None]
    ) -> tuple[Certificates, list[Record]]:
        """Certify one model; its Records are on the disk when this returns."""
        with RunFolder(self.path).open():
            options: dict[str, Any] = {"folder": self.path, "batch_size": batch_size, "progress": progress}
            found = certify(subject.model, self.images, settings, **options)
            of_model = hash_of_model(subject.model)
            records = []
            for record in found.records():
                known = {
                    "model": subject.label,
                    "model_seed": subject.seed,
                    "column": "certified",
                    "protocol": "audit",
                    "recipe": digest([of_model, record.model_dump()]),
                    "code": code_version(),
                }
                records.append(record.model_copy(update=known))
            entry = {
                "model": subject.label,
                "model_seed": subject.seed,
                "cell": subject.cell,
                "command": self._command,
                "images": len(self.images),
                "sigma": found.sigma,
                "draws": settings.draws,
                "alpha": settings.alpha,
                "abstained": int((found.predicted == -1).sum()),
                "certified": [
                    {"radius": r.parameters["radius"], "value": r.value, "low": r.low, "high": r.high} for r in records
                ],
            }
            self._keep(records, CERTIFICATES, entry, of=("model", "model_seed", "sigma"))
        return found, records

    def _keep(self, records: Sequence[Record], name: str, entry: dict[str, Any], *, of: tuple[str, ...]) -> None:
        """`entry` takes the place of the one that is equal to it in `of`."""
        store = Store(self.path / "records.jsonl")
        for record in records:
            store.add(record)
        path = self.path / name
        others = [e for e in entries(path) if any(e.get(key) != entry[key] for key in of)]
        text = json.dumps({"format": 1, "models": [*others, entry]}, indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(path, f"{text}\n".encode())


def entries(path: Path) -> list[dict[str, Any]]:
    """The models that such a file tells of; [] where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [dict(entry) for entry in found["models"]]
    except (OSError, ValueError, TypeError, KeyError):
        return []
