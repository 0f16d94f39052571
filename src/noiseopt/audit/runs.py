"""Audits and certificates of the models of a run, written into its folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from noiseopt.audit.crew import Inspection, Inspector, inspect, test_images
from noiseopt.audit.running import Progress
from noiseopt.audit.settings import Auditing
from noiseopt.audit.verdict import Verdict
from noiseopt.certify import Certificates, Certifying, certify
from noiseopt.checkpoint import write_atomically
from noiseopt.concepts import Record
from noiseopt.data import Dataset
from noiseopt.errors import UserError
from noiseopt.experiments.cells import Trained
from noiseopt.experiments.executors import InProcess, Processes
from noiseopt.experiments.folder import RunFolder
from noiseopt.experiments.models import ModelFolder, check_trained
from noiseopt.experiments.planning import code_version
from noiseopt.experiments.recipe import Recipe
from noiseopt.experiments.store import Store, digest, part_of
from noiseopt.experiments.work import Setting, Worker, local_device
from noiseopt.given import hash_of_model

FOLDER, AUDIT, CERTIFICATES = "audit", "audit.json", "certificates.json"


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
        self.path, self._command, self._first = folder / FOLDER, command, images
        setting = Setting(
            recipe=json.dumps(recipe.as_dict()),
            runs_dir=str(folder.parent.absolute()),
            data_dir=None if data_dir is None else str(data_dir.absolute()),
            device=local_device(device),
        )
        self._worker = Worker(setting)
        self.images: Dataset = test_images(self._worker, images)

    @property
    def usual_eps(self) -> float:
        """25/255 for grey images, 8/255 for colour: what MNIST and CIFAR-10 are commonly attacked with."""
        return (25 if self.images.images.shape[1] == 1 else 8) / 255

    @property
    def seed(self) -> int:
        """Of the recipe's evaluation."""
        return self._worker.recipe.evaluation.seed

    def networks(self, rows: Sequence[str], seeds: Collection[int] | None) -> list[Trained]:
        """Those of these rows (none: all that the recipe shows) and of these seeds (None: the first).

        Raises UserError where there is no such row or seed, or a model is not trained.
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
        looked_at = rows or [row.label for row in self._worker.recipe.rows if row.shown]
        cells = [cell for cell in found if cell.seed in wanted and cell.label in looked_at]
        for cell in cells:
            for need in cell.trainings:
                done = ModelFolder(self._worker.setting.runs_dir, need).epochs_done
                check_trained(need, done, run=RunFolder(self.path.parent))
        return cells

    def audit(
        self,
        networks: Sequence[Trained],
        settings: Auditing,
        *,
        noise: bool,
        executor: InProcess | Processes,
        batch_size: int,
        progress: Callable[[Trained, Progress | None], None],
    ) -> list[Verdict]:
        """Audit models, as many at once as `executor` has workers; the verdicts in the order of `networks`.

        `noise`: with the noise that they have; else with it taken out, and that stands beside the other audit.

        Each one's Records and its part of audit.json are on the disk as soon as its audit is over, and `progress` is
        given None then.
        """

        def keep(network: Trained, verdict: Verdict) -> None:
            entry = {**verdict.as_dict(), "cell": network.hash, "command": self._command}
            self._keep(verdict.records, AUDIT, entry, of=_at)

        common = vars(self._worker.setting)
        inspection = Inspection(
            **common,
            images=self._first,
            auditing=settings,
            noise=noise,
            folder=str(self.path),
            batch_size=batch_size,
        )
        inspector = Inspector(inspection, self._worker)
        with RunFolder(self.path).open(), executor.open(inspector) as crew:
            return inspect(networks, crew, keep=keep, progress=progress)

    def certify(
        self, network: Trained, settings: Certifying, *, batch_size: int, progress: Callable[[int, int], None]
    ) -> tuple[Certificates, list[Record]]:
        """Certify one model; its Records are on the disk when this returns."""
        model = self._worker.models[network]
        with RunFolder(self.path).open():
            options: dict[str, Any] = {"folder": self.path, "batch_size": batch_size, "progress": progress}
            found = certify(model, self.images, settings, **options)
            whole = digest([hash_of_model(model), self.images.hash, asdict(settings)])
            records = []
            for record in found.records():
                told = record.model_dump(include={"metric", "perturbation", "parameters"})
                known = {
                    "model": network.label,
                    "model_seed": network.seed,
                    "column": "certified",
                    "protocol": "audit",
                    "recipe": part_of(whole, model=network.label, **told),
                    "code": code_version(),
                }
                records.append(record.model_copy(update=known))
            entry = {
                "model": network.label,
                "model_seed": network.seed,
                "cell": network.hash,
                "hash": whole,
                "command": self._command,
                "images": len(self.images),
                "sigma": found.sigma,
                "in_front": settings.sigma is not None,
                "draws": settings.draws,
                "alpha": settings.alpha,
                "abstained": int((found.predicted == -1).sum()),
                "certified": [
                    {"radius": r.parameters["radius"], "value": r.value, "low": r.low, "high": r.high} for r in records
                ],
            }
            self._keep(records, CERTIFICATES, entry, of=_certified)
        return found, records

    def _keep(
        self, records: Sequence[Record], name: str, entry: dict[str, Any], *, of: Callable[[dict[str, Any]], object]
    ) -> None:
        """`entry` takes the place of the one of which `of` says the same."""
        store = Store(self.path / "records.jsonl")
        for record in records:
            store.add(record)
        path = self.path / name
        others = [e for e in entries(path) if of(e) != of(entry)]
        text = json.dumps({"format": 1, "models": [*others, entry]}, indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(path, f"{text}\n".encode())


def entries(path: Path) -> list[dict[str, Any]]:
    """The models that such a file tells of; [] where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [dict(entry) for entry in found["models"]]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _certified(entry: dict[str, Any]) -> object:
    """What was certified: with noise in front that `--sigma` put there, or by the model's own."""
    return entry["model"], entry["model_seed"], entry["sigma"], entry.get("in_front", False)


def _at(entry: dict[str, Any]) -> object:
    """What was audited, at which radius: audits at several radii, or without the noise, stand beside one another."""
    return entry["model"], entry["model_seed"], entry["settings"]["eps"], entry.get("noise_off", False)
