"""Runs the attacks of an audit one after another, and comes to the verdict."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from noiseopt.audit import library, probes, steps
from noiseopt.audit.checks import Evidence, checks_of
from noiseopt.audit.ledger import Ledger
from noiseopt.audit.settings import Auditing
from noiseopt.audit.steps import Kind, Step
from noiseopt.audit.verdict import Line, Verdict
from noiseopt.audit.voting import is_clear, vote
from noiseopt.concepts import Record, wilson_interval
from noiseopt.data import Dataset
from noiseopt.evaluate import Data, describe
from noiseopt.experiments.planning import code_version
from noiseopt.experiments.store import digest, part_of
from noiseopt.given import given, hash_of_images, hash_of_model
from noiseopt.journal import Journal
from noiseopt.noise import has_noise, remove
from noiseopt.noise import noise as switched
from noiseopt.noise.modes import evaluating


@dataclass(frozen=True)
class Progress:
    """Where an audit is: `done` of `total` images of this attack, `left` of all have survived so far."""

    title: str
    done: int
    total: int
    left: int
    images: int


def audit(
    model: nn.Module,
    data: Data,
    settings: Auditing,
    *,
    noise: bool = True,
    folder: str | Path | None = None,
    label: str = "",
    model_seed: int | None = None,
    batch_size: int = 100,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Verdict:
    """Attack a model in every way that is known here, and look whether the attacks could see.

    Cheap attacks come first, and a later one is only made on the images that are left; the first `settings.subset`
    images see the attacks that the checks compare in any case. An image is robust only if it survives all. Images are
    decided by the votes of `settings.votes` draws of the noise. Every outcome depends on the image and the seed alone,
    not on the batch (but for AutoAttack's).

    Args:
        model: images in [0, 1] → logits; used in eval mode, left in the mode that it had, on the device that it is on.
        data: a `Dataset`, or (images `Float[N, C, H, W]` in [0, 1] or `UInt8`, labels `Int64[N]`).
        settings: how hard to try.
        noise: False: with its noise taken out, as it can be used too. What then is left, the weights are worth alone.
        folder: where to keep what is known, so that an audit that was stopped goes on; None: nowhere.
        label, model_seed: of the model, for the Records.
        batch_size: images at a time: memory and speed, and how much a kill loses.
        progress: called after every batch.

    Raises:
        UserError: no images, images or labels that do not fit the model, predictions that are not finite, a folder that
            cannot be written, or `settings.autoattack` without the library.
    """
    with evaluating(model), switched(model, on=True):
        noise_off = not noise and has_noise(model)
        audited = remove(model) if noise_off else model
        job = _Job(audited, data, settings, folder, label, model_seed, batch_size, progress)
        return replace(job.run(), noise_off=noise_off)


class _Job:
    def __init__(
        self,
        model: nn.Module,
        data: Data,
        settings: Auditing,
        folder: str | Path | None,
        label: str,
        model_seed: int | None,
        batch_size: int,
        progress: Callable[[Progress], None],
    ) -> None:
        self._model, self._settings, self._batch_size, self._tell = model, settings, batch_size, progress
        self._images, self._labels, self._ids = given(model, data)
        self._noisy, self._label = has_noise(model), label
        data_hash = data.hash if isinstance(data, Dataset) else hash_of_images(self._images, self._labels)
        self._hash = digest([settings.as_dict(), hash_of_model(model), data_hash, code_version()])
        journal = None if folder is None else Journal(Path(folder) / f"{self._hash[:24]}.jsonl")
        self._ledger = Ledger(len(self._images), journal)
        self._known = {
            "noise": self._noisy,
            "draws": settings.votes if self._noisy else 1,
            "seed": settings.seed,
            "model": label,
            "model_seed": model_seed,
            "column": "audit",
            "protocol": "audit",
            "data": data.name if isinstance(data, Dataset) else "",
            "data_hash": data_hash,
            "code": code_version(),
        }
        self._records: list[Record] = []

    def run(self) -> Verdict:
        kind = self._kind()
        made = steps.steps_of(self._settings, kind)
        count = len(self._images)
        alive = torch.ones(count, dtype=torch.bool)
        subset = torch.arange(count) < self._settings.subset
        lines = []
        for step in made:
            if step.key == steps.CLEAN:
                wanted = alive
            else:
                right = ~self._ledger.fell(steps.CLEAN)
                wanted = alive if step.counts else alive & subset
                if step.probe:
                    wanted = wanted | (subset & right)
            self._attack(step, wanted, int(alive.sum()))
            if step.counts:
                alive = alive & ~self._ledger.fell(step.key)
            lines.append(self._line(step, wanted, alive, subset))
        evidence = self._evidence(kind, made, subset)
        undecided = sum(not self._is_clear(row, made) for row in alive.nonzero()[:, 0].tolist())
        parameters = self._settings.as_dict()
        accuracy = self._record("audited accuracy", int(alive.sum()), count, "audit", parameters)
        return Verdict(
            settings=self._settings,
            hash=self._hash,
            noisy=self._noisy,
            clean=self._records[0],
            accuracy=accuracy,
            undecided=undecided,
            subset=evidence.images,
            lines=tuple(lines),
            checks=tuple(checks_of(evidence)),
            records=tuple(self._records),
        )

    def _kind(self) -> Kind:
        images, labels = self._images[:2], self._labels[:2]
        with torch.no_grad():
            classes = self._model(images).shape[-1]
        if self._settings.autoattack:
            library.check_installed(classes)
        gradient = probes.has_gradient(self._model, images, labels, noise=True)
        off = probes.has_gradient(self._model, images, labels, noise=False)
        return Kind(noisy=self._noisy, classes=classes, gradient=gradient, gradient_off=off)

    def _attack(self, step: Step, wanted: Tensor, left: int) -> None:
        missing = (wanted & ~self._ledger.asked(step.key)).nonzero()[:, 0]
        total = int(wanted.sum())
        self._tell(Progress(step.title, total - len(missing), total, left, len(wanted)))
        done = total - len(missing)
        for rows in missing.split(self._batch_size) if len(missing) else ():
            clock = time.perf_counter()
            at = rows.to(self._images.device)
            images, labels, ids = self._images[at], self._labels[at], self._ids[at]
            with switched(self._model, on=step.noise):
                attacked = step.attack(self._model, images, labels, samples=ids).detach()
            votes = vote(
                self._model, attacked, labels, draws=self._settings.votes, seed=self._settings.seed, samples=ids
            )
            twin = None if step.noise else self._twin(attacked, labels)
            self._ledger.add(step.key, rows, votes, twin, round(time.perf_counter() - clock, 3))
            done += len(rows)
            self._tell(Progress(step.title, done, total, left, len(wanted)))

    @torch.no_grad()
    def _twin(self, images: Tensor, labels: Tensor) -> Tensor:
        with switched(self._model, on=False):
            return self._model(images).argmax(dim=-1) == labels

    def _line(self, step: Step, wanted: Tensor, alive: Tensor, subset: Tensor) -> Line:
        fell = self._ledger.fell(step.key)
        name, parameters = describe(step.attack)
        parameters = {**parameters, "attack_noise": step.noise and self._noisy}
        left = on_subset = None
        if step.counts:
            left = int(alive.sum())
            self._record("accuracy so far", left, len(alive), name, parameters)
        if step.probe:
            asked = self._ledger.asked(step.key) & subset
            on_subset = int((asked & ~fell).sum())
            self._record("accuracy on the subset", on_subset, int(subset.sum()), name, parameters)
        twin = None
        if not step.noise:
            twin = int(((self._ledger.twin(step.key) == 1) & wanted).sum())
        seconds = round(self._ledger.seconds.get(step.key, 0.0), 3)
        tried, fallen = int(wanted.sum()), int((fell & wanted).sum())
        return Line(step.key, step.title, tried, fallen, left, on_subset, twin, seconds)

    def _record(self, metric: str, good: int, count: int, perturbation: str, parameters: dict[str, Any]) -> Record:
        low, high = wilson_interval(good, count)
        told: dict[str, Any] = {"metric": metric, "perturbation": perturbation, "parameters": parameters}
        known: dict[str, Any] = {**told, **self._known, "recipe": part_of(self._hash, model=self._label, **told)}
        record = Record(value=good / count, count=count, low=low, high=high, **known)
        self._records.append(record)
        return record

    def _evidence(self, kind: Kind, made: list[Step], subset: Tensor) -> Evidence:
        rows = (subset & ~self._ledger.fell(steps.CLEAN)).nonzero()[:, 0].to(self._images.device)
        images, labels, ids = self._images[rows], self._labels[rows], self._ids[rows]
        hidden = probes.has_hidden_randomness(self._model, self._images)
        found = None
        if kind.gradient and not hidden:
            draws, seed = self._settings.usual, self._settings.seed
            found = probes.slopes(
                self._model, images, labels, ids, draws=draws, seed=seed, batch_size=self._batch_size
            )  # fmt: skip
        return Evidence(
            settings=self._settings,
            kind=kind,
            hidden_randomness=hidden,
            shared_draws=not hidden and probes.shares_draws(self._model, self._images),
            slopes=found,
            ledger=self._ledger,
            subset=subset,
            made={step.key: step for step in made},
        )

    def _is_clear(self, row: int, made: list[Step]) -> bool:
        asked = [step.key for step in made if step.counts and bool(self._ledger.asked(step.key)[row])]
        return all(is_clear(*self._ledger.votes(key, row)) for key in asked)
