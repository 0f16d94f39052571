"""Runs a recipe in a folder: plans its cells, leaves out those that have their result, has the others run."""

from __future__ import annotations

import json
import platform
import time
from collections import Counter
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy
import torch

from noiseopt.data import Dataset
from noiseopt.errors import UserError
from noiseopt.experiments import events
from noiseopt.experiments.cells import Measured, Plan, Training
from noiseopt.experiments.events import Began, Ended, Failed, Listener, Note, Planned
from noiseopt.experiments.executors import Executor, InProcess
from noiseopt.experiments.folder import MODELS, SET_ASIDE, RunFolder
from noiseopt.experiments.gallery import write_gallery
from noiseopt.experiments.grid import Grid, Outcome, effort
from noiseopt.experiments.maps import write_maps
from noiseopt.experiments.models import ModelFolder, TrainedModels, check_trained
from noiseopt.experiments.planning import build_network
from noiseopt.experiments.recipe import Recipe
from noiseopt.experiments.rows import Row
from noiseopt.experiments.store import Store
from noiseopt.experiments.work import Setting, Worker, usable_device
from noiseopt.refusals import check_fits

__all__ = ["Outcome", "Runner"]

Show = Callable[[Path, Recipe, Plan, TrainedModels, Dataset], str]
"""Writes pictures of test images into a run's folder; says what they show."""


def check_seeds(recipe: Recipe, seeds: Collection[int] | None) -> None:
    """Raises UserError where one of `seeds` is not the recipe's."""
    for seed in seeds or ():
        if seed not in recipe.seeds:
            listed = ", ".join(map(str, recipe.seeds))
            raise UserError(f"{recipe.name} has the seeds {listed}", got=seed, fix="choose among them")


class Runner:
    """One recipe in one folder, `<runs_dir>/<recipe.name>`. An interrupted run goes on where it was."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        runs_dir: str | Path = "runs",
        data_dir: str | Path | None = None,
        device: str | None = None,
        executor: Executor | None = None,
        command: str = "",
        listener: Listener = events.ignore,
    ) -> None:
        """`data_dir`: see `noiseopt.data.load`. `device`: "cpu", "cuda", ...; None: the GPU, where there is one.
        `executor`: where the cells run; None: in this process. `command`: what the user typed, for run.json.

        Raises:
            UserError: there is no such device, or the recipe's name is taken.
        """
        if recipe.name == MODELS:
            raise UserError("a recipe may not be named as the folder of all models", got=MODELS, fix="rename it")
        self.recipe = recipe
        self.folder = RunFolder(Path(runs_dir) / recipe.name)
        self._executor = executor or InProcess()
        self._setting = Setting(
            recipe=json.dumps(recipe.as_dict()),
            runs_dir=str(Path(runs_dir).absolute()),
            data_dir=None if data_dir is None else str(Path(data_dir).absolute()),
            device=self._executor.device(device),
        )
        self._command = command
        self._tell = listener

    def run(self, *, training: bool = True, measuring: bool = True, seeds: Collection[int] | None = None) -> Outcome:
        """Run the cells that have no result yet; with `seeds`, only those of these of the recipe's seeds.

        A cell that fails leaves out those that need it; the others are run, and the errors are in the Outcome.

        Raises:
            UserError: the data cannot be had, a network cannot be built, the folder cannot be used, a seed is not in
                the recipe; or, with `training=False`, a row has not been trained.
        """
        check_seeds(self.recipe, seeds)
        with self.folder.open():
            worker = self._worker()
            outcome = Outcome(self.folder.path)
            grid = self._grid(worker, outcome, training=training, measuring=measuring, seeds=seeds)
            with self.folder.described(self._about(worker), outcome.failures):
                if grid:
                    with self._executor.open(worker) as crew:
                        grid.run(crew)
                if measuring and not outcome.failures:
                    self._show_examples(worker, outcome)
            return outcome

    def _worker(self) -> Worker:
        """What plans here, and makes the gallery; of a cluster's GPUs this machine may have none."""
        try:
            device = usable_device(self._setting.device)
        except UserError:
            device = usable_device(None)
        return Worker(self._setting, device=device)

    def _grid(
        self, worker: Worker, outcome: Outcome, *, training: bool, measuring: bool, seeds: Collection[int] | None
    ) -> Grid:
        """The cells that are left. What the folder holds of an earlier version of the recipe is put aside."""
        chosen = set(self.recipe.seeds if seeds is None else seeds)
        trainings = {c.hash: c for c in worker.cells.trainings if not isinstance(c.network, Row) or c.seed in chosen}
        measurements = {c.address: c for c in worker.cells.measurements if c.row.seed in chosen}
        folders = {name: ModelFolder(self._setting.runs_dir, cell) for name, cell in trainings.items()}
        done = {name: folder.epochs_done for name, folder in folders.items()}
        warned: dict[str, None] = {}  # of every row once, whatever its seeds

        def warn(text: str) -> None:
            warned[f"{cell.label}: {text}"] = None

        for cell in trainings.values():
            # What is wrong with a network is better said now than after the others were trained.
            try:
                network = build_network(cell.network, worker.data.train, seed=cell.own_seed, warn=warn)
                check_fits(network, worker.data.train, self.recipe.training_of(cell.network))
            except UserError as error:
                raise error.about(cell.label) from None
            if not training:
                check_trained(cell, done[cell.hash], run=self.folder)
        for text in warned:
            self._tell(Note(text))
        store = Store(self.folder.path / "records.jsonl")
        if store.repaired:
            self._tell(Note(store.repaired))
        aside = self.folder.path / SET_ASIDE
        if moved := store.set_aside({cell.address for cell in worker.cells.measurements}, aside):
            self._tell(Note(f"{moved} numbers of another recipe, seed or version were moved to {aside}"))
        to_train = [cell for name, cell in trainings.items() if not folders[name].complete]
        to_measure = [c for name, c in measurements.items() if name not in store]
        self._tell(
            Planned(
                name=self.recipe.name,
                about=self._summary(worker),
                trainings=len(trainings),
                trained=len(trainings) - len(to_train),
                measurements=len(measurements),
                measured=len(measurements) - len(to_measure),
                epochs=sum(cell.epochs - (done[cell.hash] or 0) for cell in to_train),
                groups=Counter(cell.group for cell in to_measure),
                effort=sum(map(effort, to_measure)),
            )
        )
        cells: list[Training | Measured] = [*(to_train if training else []), *(to_measure if measuring else [])]
        return Grid(cells, store=store, outcome=outcome, tell=self._tell)

    def _summary(self, worker: Worker) -> str:
        counts = f"{len(worker.data.train):,} images to train on, {len(worker.data.test):,} to measure on"
        return f"{worker.pool.name}, {counts}; {self._setting.device}"

    def _about(self, worker: Worker) -> dict[str, Any]:
        data = {"train": worker.data.train, "validation": worker.data.validation, "test": worker.data.test}
        return {
            "command": self._command,
            "recipe_name": self.recipe.name,
            "recipe": self.recipe.as_dict(),
            "seed": self.recipe.seeds[0],
            "versions": {
                "noiseopt": version("noiseopt"),
                "python": platform.python_version(),
                "torch": torch.__version__,
                "numpy": numpy.__version__,
            },
            "data": {
                "name": worker.pool.name,
                "hash": worker.pool.hash,
                "counts": {name: len(part) for name, part in data.items()},
            },
            "models": [{"label": c.label, "seed": c.seed, "folder": f"../{c.folder}"} for c in worker.cells.trainings],
            "networks": [{"label": c.label, "seed": c.seed, "hash": c.hash} for c in worker.cells.networks],
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": self._setting.device,
        }

    def _show_examples(self, worker: Worker, outcome: Outcome) -> None:
        """The gallery and the saliency maps, once the networks that they show are trained: those of the first seed."""
        if not worker.cells.measurements and self.recipe.saliency is None:
            return
        first = [c for c in worker.cells.trainings if not isinstance(c.network, Row) or c.seed == self.recipe.seeds[0]]
        if not all(ModelFolder(self._setting.runs_dir, cell).epochs_done == cell.epochs for cell in first):
            return
        images = worker.data.test.to(worker.device)
        if self.recipe.columns:
            self._show("example images", outcome, write_gallery, worker, images)
        if self.recipe.saliency is not None:
            self._show("saliency maps", outcome, write_maps, worker, images)

    def _show(self, title: str, outcome: Outcome, write: Show, worker: Worker, images: Dataset) -> None:
        self._tell(Began("gallery", title))
        clock = time.perf_counter()
        try:
            said = write(self.folder.path, self.recipe, worker.cells, worker.models, images)
        except Exception as error:  # the numbers are there, whatever is wrong with the pictures
            outcome.failures[title] = error
            self._tell(Failed("gallery", title, str(error) if isinstance(error, UserError) else repr(error)))
        else:
            self._tell(Ended("gallery", title, said, time.perf_counter() - clock))
