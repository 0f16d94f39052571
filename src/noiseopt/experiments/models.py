"""The trained models on disk, `<runs_dir>/models/<hash>`: shared by all recipes that train the same network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from noiseopt import checkpoint
from noiseopt.data import Dataset
from noiseopt.errors import UserError
from noiseopt.experiments.cells import Defended, Training
from noiseopt.experiments.folder import RunFolder
from noiseopt.experiments.planning import build_network

_KEPT = 8


def check_trained(cell: Training, done: int | None, *, run: RunFolder) -> None:
    """Raises UserError where it is not trained to its end; `done` epochs are. It says so where `run` has a model of
    this name that comes from something else.
    """
    if done == cell.epochs:
        return
    known = [m for m in run.about().get("models") or () if isinstance(m, dict)]
    same = [m for m in known if (m.get("label"), m.get("seed")) == (cell.label, cell.seed)]
    changed = not done and any(Path(str(m.get("folder"))).name != Path(cell.folder).name for m in same)
    got = "one from other settings, images or model code" if changed else f"{done or 0} of {cell.epochs} epochs"
    raise UserError(f"{cell.title} must be trained first", got=got, fix="run `noiseopt train` with its recipe")


class ModelFolder:
    """Where one cell's model is, and how far it has been trained."""

    def __init__(self, runs_dir: str | Path, cell: Training) -> None:
        self._cell = cell
        self.path = Path(runs_dir) / cell.folder
        self.checkpoint = self.path / "checkpoint.safetensors"

    @property
    def epochs_done(self) -> int | None:
        """Of this very cell; None where there is no checkpoint. Raises UserError where it is damaged."""
        if not self.checkpoint.exists():
            return None
        state: dict[str, Any] = checkpoint.load(self.checkpoint)[1]
        return len(state["curves"]) if state["identity"].get("about.cell") == self._cell.hash else None

    @property
    def complete(self) -> bool:
        """Is it trained, and are the copies written that are for people and for the report?"""
        curves = self.path / "curves.jsonl"
        if not curves.exists() or (self._cell.noisy and not (self.path / "sigma.safetensors").exists()):
            return False
        # They are written after the checkpoint, the curves last; a crash between leaves the curves a line short.
        return curves.read_bytes().count(b"\n") == self.epochs_done == self._cell.epochs

    @property
    def lock(self) -> FileLock:
        """Held by whoever trains this model. Raises UserError where the folder cannot be made."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from None
        return FileLock(self.path / ".lock")

    def _unusable(self, error: OSError) -> UserError:
        reason = error.strerror or str(error)
        return UserError(f"the folder {self.path} must be writable", got=reason, fix="choose another --runs-dir")

    @contextmanager
    def locked(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Keep other noiseopts from training this model; calls `waiting` where one does, and waits for it."""
        lock = self.lock
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire()
        except OSError as error:
            raise self._unusable(error) from None
        try:
            yield
        finally:
            lock.release()


class TrainedModels:
    """Cell → its trained model in eval mode, built anew and filled from its checkpoint, on `device`; the last few stay.

    So is what a defence makes of several.
    """

    def __init__(self, runs_dir: str | Path, images: Dataset, device: torch.device) -> None:
        """`images`: some of the data set, for shapes and classes."""
        self._runs_dir, self._images, self._device = runs_dir, images, device
        self._models: OrderedDict[str, nn.Module] = OrderedDict()

    def __getitem__(self, cell: Training | Defended) -> nn.Module:
        """Raises UserError where a checkpoint is missing, damaged or of another network."""
        if cell.hash not in self._models:
            if isinstance(cell, Defended):
                model = cell.row.defence.build(*(self[part] for part in cell.parts))
            else:
                model = build_network(cell.network, self._images, seed=cell.own_seed)
                checkpoint.load_model(ModelFolder(self._runs_dir, cell).checkpoint, model)
            # An attack runs its surrogate in the mode that it finds: in train mode batch normalisation would go on
            # learning, and what is crafted would depend on what was crafted before.
            self._models[cell.hash] = model.to(self._device).eval()
            if len(self._models) > _KEPT:
                self._models.popitem(last=False)
        self._models.move_to_end(cell.hash)
        return self._models[cell.hash]
