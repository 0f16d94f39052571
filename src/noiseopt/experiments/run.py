"""Runs the cells of a recipe, one after another, in this process; what has its result already is not run again."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy
import torch

from noiseopt.concepts import Record
from noiseopt.data import Dataset, Split, load, split
from noiseopt.errors import UserError
from noiseopt.evaluate import evaluate
from noiseopt.experiments import events
from noiseopt.experiments.cells import Measurement, Plan, Training, build_network, plan
from noiseopt.experiments.events import Began, Ended, EpochDone, Failed, Listener, Note, Planned
from noiseopt.experiments.folder import RunFolder
from noiseopt.experiments.gallery import write_gallery
from noiseopt.experiments.models import TrainedModels
from noiseopt.experiments.recipe import Recipe
from noiseopt.experiments.shared import Workbench
from noiseopt.experiments.store import Store
from noiseopt.train import Epoch, train

# A multiple of the 128 images that the paper's L-BFGS attack takes at a time.
BATCH_SIZE = 512
Result = TypeVar("Result")


@dataclass
class Outcome:
    """What came of a run: how many cells ran, and the errors of those that failed, by title."""

    folder: Path
    trained: int = 0
    measured: int = 0
    failures: dict[str, Exception] = field(default_factory=dict)


@dataclass(frozen=True)
class _Work:
    """What the cells of a run share."""

    pool: Dataset
    data: Split
    measured: Dataset
    cells: Plan
    store: Store
    models: TrainedModels


class Runner:
    """One recipe in one folder, `<runs_dir>/<recipe.name>`. An interrupted run goes on where it was."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        runs_dir: str | Path = "runs",
        data_dir: str | Path | None = None,
        device: str | None = None,
        command: str = "",
        listener: Listener = events.ignore,
    ) -> None:
        """`data_dir`: see `noiseopt.data.load`. `device`: "cpu", "cuda", ...; None: the GPU, where there is one.
        `command`: what the user typed, for run.json.

        Raises:
            UserError: there is no such device.
        """
        self.recipe = recipe
        self.folder = RunFolder(Path(runs_dir) / recipe.name)
        self._data_dir = data_dir
        self._device = usable_device(device)
        self._command = command
        self._tell = listener

    def run(self, *, training: bool = True, measuring: bool = True) -> Outcome:
        """Run the cells that have no result yet.

        A cell that fails leaves out those that need it; the others are run, and the errors are in the Outcome.

        Raises:
            UserError: the data cannot be had, a network cannot be built, the folder cannot be used; or, with
                `training=False`, a row has not been trained.
        """
        with self.folder.open():
            work = self._prepare(training=training)
            outcome = Outcome(self.folder.path)
            with self.folder.described(self._about(work), outcome.failures):
                if training:
                    self._train_all(work, outcome)
                if measuring:
                    self._measure_all(work, outcome)
            return outcome

    def _prepare(self, *, training: bool) -> _Work:
        source = self.recipe.data
        pool = load(source.name or Path(str(source.path)), data_dir=self._data_dir, size=source.size)
        data = split(pool, source.split, seed=source.split_seed)
        measured = data.test
        if (count := self.recipe.evaluation.images) is not None:
            # The parts of a split are in random order, so the first images are a random sample.
            measured = measured.span(0, min(count, len(measured)))
        cells = plan(self.recipe, data, measured)
        for cell in cells.trainings:
            # What is wrong with a network is better said now than after the others were trained.
            build_network(cell.network, data.train, seed=cell.seed)
            if not training:
                self._check_trained(cell)
        store = Store(self.folder.path / "records.jsonl")
        self._tidy(store, cells)
        left = [cell.epochs - self.folder.epochs_done(cell) for cell in cells.trainings]
        about = f"{pool.name}, {len(data.train):,} images to train on, {len(measured):,} to measure on; {self._device}"
        self._tell(
            Planned(
                name=self.recipe.name,
                about=about,
                trainings=len(left),
                trained=left.count(0),
                measurements=len(cells.measurements),
                measured=len(store),
                epochs=sum(left),
            )
        )
        models = TrainedModels(self.folder, data.train, self._device)
        return _Work(pool, data, measured.to(self._device), cells, store, models)

    def _check_trained(self, cell: Training) -> None:
        done = self.folder.epochs_done(cell)
        if done < cell.epochs:
            rule, fix = f"{cell.title} must be trained before it is measured", "run `noiseopt train` with this recipe"
            raise UserError(rule, got=f"{done} of {cell.epochs} epochs", fix=fix)

    def _tidy(self, store: Store, cells: Plan) -> None:
        """Put aside what the folder holds of an earlier version of the recipe."""
        if store.repaired:
            self._tell(Note(store.repaired))
        current = {cell.address for cell in cells.measurements}
        numbers = store.set_aside(current, self.folder.set_aside_folder)
        models = sum(self.folder.set_aside(cell) for cell in cells.trainings)
        if numbers or models:
            what = f"{numbers} numbers and {models} models"
            self._tell(Note(f"{what} of another recipe, seed or version were moved to {self.folder.set_aside_folder}"))

    def _about(self, work: _Work) -> dict[str, Any]:
        counts = {"train": work.data.train, "validation": work.data.validation, "test": work.data.test}
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
                "name": work.pool.name,
                "hash": work.pool.hash,
                "counts": {name: len(part) for name, part in counts.items()},
            },
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": str(self._device),
        }

    def _train_all(self, work: _Work, outcome: Outcome) -> None:
        for cell in work.cells.trainings:
            run = partial(self._train, cell, work.data)
            if self.folder.epochs_done(cell) < cell.epochs:
                outcome.trained += self._attempt(outcome, "train", cell.title, "", run) is not None
            else:
                run()  # returns at once; a crash after the last epoch may have left its curves unwritten

    def _train(self, cell: Training, data: Split) -> Epoch:
        def progress(epoch: int, epochs: int, line: Epoch) -> None:
            self._tell(EpochDone(cell.title, epoch, epochs, line.train_loss, line.validation_accuracy))

        history = train(
            build_network(cell.network, data.train, seed=cell.seed),
            data,
            self.recipe.training_of(cell.network),
            seed=cell.seed,
            noise_validation=self.recipe.curves.noise,
            test_curve=self.recipe.curves.test,
            run_dir=self.folder.path / cell.folder,
            about={"cell": cell.hash},
            device=self._device,
            progress=progress,
        )
        return history.epochs[-1]

    def _measure_all(self, work: _Work, outcome: Outcome) -> None:
        bench = Workbench()
        for cell in work.cells.measurements:
            if cell.address in work.store:
                continue
            if any(need.title in outcome.failures for need in cell.needs):
                self._tell(Failed("measure", cell.title, "its network could not be trained"))
                continue
            run = partial(self._measure, cell, work, bench)
            record = self._attempt(outcome, "measure", cell.title, cell.group, run)
            if record is not None:
                work.store.add(record)
                outcome.measured += 1
        if not outcome.failures:
            run_gallery = partial(write_gallery, self.folder.path, self.recipe, work.cells, work.models, work.measured)
            self._attempt(outcome, "gallery", "example images", "", run_gallery)

    def _measure(self, cell: Measurement, work: _Work, bench: Workbench) -> Record:
        surrogate = None if cell.surrogate is None else work.models[cell.surrogate]
        seed = self.recipe.evaluation.seed
        record = evaluate(
            work.models[cell.row],
            work.measured,
            bench.perturbation(cell, surrogate, seed=seed),
            draws=self.recipe.evaluation.draws,
            noise=cell.noise,
            batch_size=BATCH_SIZE,
            seed=seed,
        )
        return cell.complete(record)

    def _attempt(
        self, outcome: Outcome, kind: str, title: str, group: str, work: Callable[[], Result]
    ) -> Result | None:
        self._tell(Began(kind, title))
        clock = time.perf_counter()
        try:
            result = work()
        except Exception as error:  # whatever is wrong with one cell, the others can still be run
            outcome.failures[title] = error
            self._tell(Failed(kind, title, f"{error}" if isinstance(error, UserError) else repr(error)))
            return None
        self._tell(Ended(kind, title, _said(result), time.perf_counter() - clock, group))
        return result


def usable_device(name: str | None) -> torch.device:
    """The device of that name, tried out; None: the GPU, where there is one.

    Raises:
        UserError: this machine, or this build of torch, does not have it.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        probe = torch.zeros(1, device=name)
        probe.tolist()
        return probe.device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device must be one this machine has ({reason})", got=name, fix="use cpu") from None


def _said(result: object) -> str:
    if isinstance(result, Epoch):
        return f"loss {result.train_loss:.3f}, validation accuracy {result.validation_accuracy:.3f}"
    return f"{result.value:.3f}" if isinstance(result, Record) else str(result)
