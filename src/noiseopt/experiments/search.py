"""Fixed σ for each layer, found by trying: the yardstick that a gradient method has to beat at equal cost.

An outer loop around whole trainings: Optuna proposes a σ for every layer, the network is trained with it, and after
every epoch the accuracy of validation images under an attack says whether it is worth going on. All of it lies in one
folder, and the same call goes on from there.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from noiseopt.checkpoint import write_atomically
from noiseopt.errors import Diverged, UserError
from noiseopt.evaluate import evaluate
from noiseopt.experiments.folder import RunFolder
from noiseopt.experiments.noises import Noise
from noiseopt.experiments.perturbations import OfAttack
from noiseopt.experiments.planning import build_network, own_seed, training_arguments
from noiseopt.experiments.problems import nearest
from noiseopt.experiments.recipe import Recipe
from noiseopt.experiments.rows import Row
from noiseopt.experiments.schema import Column, slug
from noiseopt.experiments.store import digest
from noiseopt.experiments.work import Setting, Worker, local_device
from noiseopt.noise import inject, sigmas
from noiseopt.train import Epoch, train

_LEVELS = 16  # between 0 and the highest
Say = Callable[[str], None]


@dataclass(frozen=True)
class Found:
    """What a search has come to."""

    folder: Path
    row: str
    """The best row, as YAML for a recipe."""
    accuracy: float
    """Of the validation images, under the attack."""
    trials: int
    epochs: int
    """Trained for all trials together: what the search has cost."""


def search(
    recipe: Recipe,
    *,
    trials: int,
    runs_dir: str | Path = "runs",
    data_dir: str | Path | None = None,
    device: str | None = None,
    row: str | None = None,
    column: str | None = None,
    images: int = 500,
    highest: float = 4.0,
    say: Say = lambda line: None,
) -> Found:
    """Search σ for each layer of one row of `recipe`, in `<runs_dir>/<recipe.name>-search/<row>`.

    What is there already counts: the search goes on until `trials` have been made, those that were given up early
    among them. The seed is the recipe's first.

    Args:
        trials: how many allocations are tried, at least 1.
        row: label of a row with noise; None: the first. Its `where` says which layers; its σ is not looked at.
        column: key of the column whose first attack is defended against; None: the first that has one.
        images: so many validation images are attacked after every epoch.
        highest: σ is sought between 0 and this, in sixteenths of it.
        say: told a line for every trial.

    Raises:
        UserError: Optuna is not installed, the recipe has no such row or column, or the folder holds another search.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UserError("Optuna is not installed", fix="pip install 'noiseopt[search]'")
    if trials < 1 or images < 1 or not 0 < highest < float("inf"):
        got, fix = f"{trials}, {images}, {highest}", "trials=50, images=500, highest=4.0"
        raise UserError("trials and images must be at least 1, and highest above 0", got=got, fix=fix)
    chosen, attacked = _row(recipe, row), _column(recipe, column)
    if not recipe.training_of(chosen).epochs:
        raise UserError(
            f"{chosen.label} must be trained, or no noise is better than another", got="epochs: 0", fix="epochs: 10"
        )
    setting = Setting(
        recipe=json.dumps(recipe.as_dict()),
        runs_dir=str(runs_dir),
        data_dir=None if data_dir is None else str(data_dir),
        device=local_device(device),
    )
    folder = RunFolder(Path(runs_dir) / f"{recipe.name}-search" / slug(chosen.label))
    with folder.open():
        worker = Worker(setting)
        return _Search(worker, chosen, attacked, folder.path, images=images, highest=highest, say=say).run(trials)


class _Search:
    def __init__(
        self, worker: Worker, row: Row, column: Column, folder: Path, *, images: int, highest: float, say: Say
    ) -> None:
        self._worker, self._row, self._folder, self._say = worker, row, folder, say
        self._highest = highest
        self._seed = own_seed(row, worker.recipe.seeds[0])
        self._training = worker.recipe.training_of(row)
        self._measured = worker.data.validation.span(0, images).to(worker.device)
        attack = next(p for p in column.perturbations if isinstance(p, OfAttack))
        self._attack = attack.build(surrogate=None, seed=0)
        self._draws = worker.recipe.evaluation.of(worker.recipe.protocols_of(column)[0]).draws
        shape = worker.data.train.images.shape[1:]
        assert isinstance(row.noise, Noise)
        plain = build_network(row.model_copy(update={"noise": None}), worker.data.train, seed=self._seed)
        self._layers = list(sigmas(inject(plain, example_input=torch.zeros(2, *shape), where=row.noise.where, sigma=1)))
        self._identity = digest(
            [
                row.model_dump(mode="json", exclude={"label"}),
                self._training.model_dump(mode="json"),
                attack.fingerprint(),
                [self._draws, self._seed, highest, len(self._measured), worker.data.train.hash, self._measured.hash],
                *([worker.precision] if worker.precision != "no" else []),
            ]
        )

    def run(self, trials: int) -> Found:
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalStorage

        epochs = self._training.epochs_on(len(self._worker.data.train))
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # below: a traceback after every Ctrl-C
        backend = JournalFileBackend(str(self._folder / "search.journal"))
        study = optuna.create_study(
            storage=JournalStorage(backend),
            study_name="sigma",
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, epochs // 5)),
        )
        known = study.user_attrs.get("identity")
        if known not in (None, self._identity):
            fix = "choose another --runs-dir, or remove that folder"
            raise UserError(f"{self._folder} holds a search with other settings", fix=fix)
        if known is None:
            for level in (0.0, self._highest / 4):  # no noise, and as much everywhere: what must be beaten
                study.enqueue_trial(dict.fromkeys(self._layers, level), skip_if_exists=True)
            study.set_user_attr("identity", self._identity)  # last: killed before, it begins once more
        states = optuna.trial.TrialState
        for trial in study.trials:
            if trial.state == states.RUNNING:  # lost with the process that ran it
                study.tell(trial.number, state=states.FAIL)
                study.enqueue_trial(trial.params)
        # Seeded by how far it is: else a search that goes on would propose once more what it began with.
        study.sampler = optuna.samplers.TPESampler(seed=(self._seed + len(study.trials)) % 2**32)
        while (done := len(_made(study.trials))) < trials:
            study.optimize(self._try, n_trials=1, callbacks=[lambda s, t: self._tell(t, done + 1, trials)])
        return self._found(study)

    def _try(self, trial: Any) -> float:
        import optuna

        step = self._highest / _LEVELS
        levels = {name: trial.suggest_float(name, 0.0, self._highest, step=step) for name in self._layers}
        network = self._with(levels)
        model = build_network(network, self._worker.data.train, seed=self._seed)
        accuracies: list[float] = []

        def measure(epoch: int, epochs: int, line: Epoch) -> None:
            record = evaluate(model, self._measured, self._attack, draws=self._draws, seed=self._seed)
            accuracies.append(record.value)
            trial.report(record.value, epoch)
            trial.set_user_attr("epochs", epoch)
            if epoch < epochs and trial.should_prune():
                raise optuna.TrialPruned

        arguments = training_arguments(network)
        data, device = self._worker.data, self._worker.device
        try:
            options: dict[str, Any] = {"device": device, "precision": self._worker.precision, "progress": measure}
            train(model, data, self._training, seed=self._seed, **arguments, **options)
        except Diverged:  # so much noise is no answer, and no reason to stop
            raise optuna.TrialPruned from None
        except KeyboardInterrupt:  # Optuna calls the trial failed; it is made again when the search goes on
            trial.study.enqueue_trial(trial.params)
            raise
        return accuracies[-1]

    def _with(self, levels: Mapping[str, float]) -> Row:
        row = self._row.model_dump()
        noise = {**row["noise"], "sigma": dict(levels), "objective": {}} if any(levels.values()) else None
        return Row.model_validate({**row, "noise": noise})

    def _tell(self, trial: Any, number: int, of: int) -> None:
        levels = ", ".join(f"{name} {level:g}" for name, level in trial.params.items())
        came = f"{trial.value:.3f}" if trial.state.name == "COMPLETE" else "given up"
        self._say(f"[{number}/{of}] {levels}: {came} after epoch {trial.user_attrs.get('epochs', 0)}")

    def _found(self, study: Any) -> Found:
        made = _made(study.trials)
        epochs = sum(trial.user_attrs.get("epochs", 0) for trial in study.trials)
        if not any(trial.state.name == "COMPLETE" for trial in made):
            raise UserError("every trial was given up or diverged", fix="lower --highest, or the recipe's lr")
        best = study.best_trial
        given = self._row.model_dump(mode="json", exclude_unset=True)
        noise = {**given["noise"], "sigma": {name: level for name, level in best.params.items() if level > 0}}
        noise.pop("objective", None)
        label = f"{given.pop('label')} (found)"
        given = {"label": label, **given, "noise": noise if noise["sigma"] else None}
        row = yaml.safe_dump([given], sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
        cost = f"the best of {len(made)} trials, {epochs} epochs in all"
        note = f"# Accuracy of {len(self._measured)} validation images under the attack: {best.value:.3f}; {cost}.\n"
        write_atomically(self._folder / "best.yaml", (note + row).encode())
        return Found(self._folder, row, float(best.value), len(made), epochs)


def _made(trials: list[Any]) -> list[Any]:
    return [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]


def _row(recipe: Recipe, label: str | None) -> Row:
    rows = {row.label: row for row in recipe.rows if isinstance(row, Row) and isinstance(row.noise, Noise)}
    if not rows:
        raise UserError("a search needs a row with noise", fix="give a row noise: {sigma: 1.0}")
    if label is not None and label not in rows:
        raise UserError(f"{recipe.name} must have this row, with noise", got=label, fix=nearest(label, rows))
    chosen = next(iter(rows.values())) if label is None else rows[label]
    if chosen.after:
        rule, got = "a search trains its row from random weights", f"{chosen.label}, which goes on after {chosen.after}"
        raise UserError(rule, got=got, fix="choose a row without after")
    return chosen


def _column(recipe: Recipe, key: str | None) -> Column:
    columns = {c.key: c for c in reversed(recipe.columns) if any(isinstance(p, OfAttack) for p in c.perturbations)}
    if not columns:
        fix = "add a column with {attack: pgd, ...}"
        raise UserError("a search needs a column with an attack", got=recipe.name, fix=fix)
    if key is not None and key not in columns:
        raise UserError(f"{recipe.name} must have this column, with an attack", got=key, fix=nearest(key, columns))
    return list(columns.values())[-1] if key is None else columns[key]
