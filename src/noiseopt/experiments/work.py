"""What runs cells: one worker in one process. It is told a few cells by name, and tells what comes of each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import nn

from noiseopt.allocation import keep_freed_memory
from noiseopt.concepts import Record
from noiseopt.data import Dataset, Split, load
from noiseopt.errors import UserError
from noiseopt.evaluate import evaluate
from noiseopt.experiments.cells import Measured, Measurement, Share, Training
from noiseopt.experiments.events import Began, EpochDone, Note
from noiseopt.experiments.messages import Broken, Done, Task, Tell
from noiseopt.experiments.models import ModelFolder, TrainedModels
from noiseopt.experiments.planning import build_network, check_original, chosen, divided, plan, training_arguments
from noiseopt.experiments.pools import with_pools
from noiseopt.experiments.recipe import from_run
from noiseopt.experiments.rows import Row
from noiseopt.experiments.shared import Workbench
from noiseopt.experiments.warned import noise_warnings
from noiseopt.noise import continue_from
from noiseopt.saliency import share_inside
from noiseopt.train import Epoch, train

# A multiple of the 128 images that the paper's L-BFGS attack takes at a time.
BATCH_SIZE = 512
Cell = Training | Measured


@dataclass(frozen=True)
class Setting:
    """What a run's workers have in common, as plain values: small enough to be sent anywhere."""

    recipe: str
    """As JSON; see `Recipe.as_dict`."""
    runs_dir: str
    data_dir: str | None
    device: str

    def hire(self) -> Works:
        """A worker for this, wherever it is called."""
        return Worker(self)


class Works(Protocol):
    """What executors need of a worker: what to make another of, and how it is told to work."""

    @property
    def setting(self) -> Setting:
        """Makes another one, in any process."""

    def run(self, task: Task, tell: Tell) -> None:
        """Do the task's cells, and tell what comes of each; raises nothing."""


def key(cell: Cell) -> str:
    """The name of a cell, equal in every process that plans the same recipe on the same data."""
    return cell.hash if isinstance(cell, Training) else cell.address


class Worker:
    """Has the data, the plan and the trained models at hand, and runs cells."""

    def __init__(self, setting: Setting, *, pool: Dataset | None = None, device: torch.device | None = None) -> None:
        """`pool`: the data set, where it need not be read. `device`: where it is not the setting's own.

        Raises:
            UserError: the data cannot be had, or this machine has no such device.
        """
        keep_freed_memory()
        self.setting = setting
        self.device = device or usable_device(setting.device)
        self.recipe = from_run(json.loads(setting.recipe), place="the recipe")
        source = self.recipe.data
        if pool is None:
            pool = load(source.name or Path(str(source.path)), data_dir=setting.data_dir, size=source.size)
            check_original(pool, source)
        self.pool = chosen(pool, source)
        self.data = divided(self.pool, source)
        self.cells = plan(self.recipe, self.data, device=torch.device(setting.device))
        self.models = TrainedModels(setting.runs_dir, self.data.train, self.device)
        cells: list[Cell] = [*self.cells.trainings, *self.cells.measurements]
        self._by_key = {key(cell): cell for cell in cells}
        self._bench = Workbench()

    @property
    def precision(self) -> Literal["no", "bf16"]:
        """Of training, as `train` calls it."""
        return "bf16" if self.recipe.precision == "bf16" else "no"

    def run(self, task: Task, tell: Tell) -> None:
        """Run the cells of `task`; whatever is wrong with one of them, the others can still be run."""
        one_by_one(task, tell, lambda name: self._run(name, tell))

    def _run(self, name: str, tell: Tell) -> Epoch | Record | None:
        if name not in self._by_key:
            rule = "all workers must have the same versions of noiseopt and torch, and the same data"
            raise UserError(rule, fix="install the same on all machines")
        cell = self._by_key[name]
        tell(Began("train" if isinstance(cell, Training) else "measure", cell.title))
        match cell:
            case Training():
                return self._train(cell, tell)
            case Measurement():
                return self._measure(cell, tell)
            case Share():
                return self._share(cell)
        raise TypeError(f"no worker knows how to run a {type(cell).__name__}")

    def _train(self, cell: Training, tell: Tell) -> Epoch | None:
        """Its last epoch; None: a network that stays as it comes has none."""

        def progress(epoch: int, epochs: int, line: Epoch) -> None:
            tell(EpochDone(cell.title, epoch, epochs, line.train_loss, line.validation_accuracy))

        folder = ModelFolder(self.setting.runs_dir, cell)
        with folder.locked(lambda: tell(Note(f"{cell.title}: another noiseopt trains it; waiting for that"))):
            model, data = self._beginning(cell)
            history = train(
                model,
                data,
                self.recipe.training_of(cell.network),
                seed=cell.own_seed,
                noise_validation=self.recipe.curves.noise,
                test_curve=self.recipe.curves.test,
                run_dir=folder.path,
                about={"cell": cell.hash},
                **training_arguments(cell.network),
                device=self.device,
                precision=self.precision,
                progress=progress,
            )
        return history.epochs[-1] if history.epochs else None

    def _beginning(self, cell: Training) -> tuple[nn.Module, Split]:
        """The network before its training, and the images that it is trained on."""
        model = build_network(cell.network, self.data.train, seed=cell.own_seed)
        if cell.after is not None:
            continue_from(model, self.models[cell.after])
        pool = cell.network.pool if isinstance(cell.network, Row) else None
        if pool is None:
            return model, self.data
        networks = [self.models[earlier] for earlier in cell.needs]
        return model, with_pools(self.data, networks, pool.build(surrogate=None, seed=cell.own_seed))

    def _measure(self, cell: Measurement, tell: Tell) -> Record:
        surrogate = None if cell.surrogate is None else self.models[cell.surrogate]
        seed = self.recipe.evaluation.seed
        model, measured = self.models[cell.row], cell.measured(self.data).to(self.device)
        with noise_warnings(lambda text: tell(Note(f"{cell.row.title}: {text}"))):
            record = evaluate(
                model,
                measured,
                self._bench.perturbation(cell, model, measured, surrogate, seed=seed),
                draws=cell.draws,
                noise=cell.noise,
                batch_size=BATCH_SIZE,
                seed=seed,
            )
        return cell.complete(record)

    def _share(self, cell: Share) -> Record:
        record = share_inside(
            self.models[cell.row],
            cell.measured(self.data).to(self.device),
            noise=cell.noise,
            draws=cell.draws,
            seed=self.recipe.evaluation.seed,
            sigma=cell.settings.sigma,
            samples=cell.settings.samples,
        )
        return cell.complete(record)


def one_by_one(task: Task, tell: Tell, run: Callable[[str], object]) -> None:
    """Tell what `run` gives or raises for each of the cells."""
    for name in task.cells:
        clock = time.perf_counter()
        try:
            result = run(name)
        except Exception as error:
            tell(Broken.by(error, name))
        else:
            tell(Done(name, result, time.perf_counter() - clock))


def perform(hire: Callable[[], Works], task: Task, tell: Tell) -> None:
    """Run `task` with the worker that `hire` gives; where it gives none, that is what is wrong with every cell."""
    try:
        worker = hire()
    except Exception as error:
        for name in task.cells:
            tell(Broken.by(error, name))
    else:
        worker.run(task, tell)


def local_device(name: str | None) -> str:
    """The name of the device of this machine that is meant by `name`; errors as of `usable_device`."""
    found = usable_device(name)
    return name or str(found)


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
