"""What a recipe comes to: a list of cells, each one trained model or one measured number.

A cell says what it needs, and its hash says what it is: two cells of the same hash give the same result, so a cell
whose result exists is not run again. Which process runs a cell, and when, is not decided here.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from noiseopt.concepts import Record
from noiseopt.data import Dataset, Split
from noiseopt.experiments.perturbations import Clean, OfCorruption, OfTransfer
from noiseopt.experiments.recipe import Recipe
from noiseopt.experiments.schema import FROM_DATA, SURROGATE, Column, Network, Row, slug
from noiseopt.experiments.store import address, digest
from noiseopt.models import MODELS, build
from noiseopt.noise import inject


@dataclass(frozen=True)
class Training:
    """Cell: one network trained from one seed. `hash` is of all that its weights come from."""

    network: Network
    label: str
    seed: int
    epochs: int
    hash: str

    @property
    def folder(self) -> str:
        """Of its checkpoint, below the run's."""
        return f"models/{slug(self.label)}-s{self.seed}"

    @property
    def title(self) -> str:
        return f"{self.label}, seed {self.seed}"


@dataclass(frozen=True)
class Measurement:
    """Cell: one row under one perturbation, the noise on or off. `hash` is that of its Record's `recipe`."""

    row: Training
    surrogate: Training | None
    column: Column
    perturbation: Any
    protocol: str
    noise: bool
    hash: str
    data_hash: str
    code: str

    @property
    def needs(self) -> tuple[Training, ...]:
        return (self.row,) if self.surrogate is None else (self.row, self.surrogate)

    @property
    def address(self) -> str:
        """Where its Record is in the store."""
        return address(recipe=self.hash, data_hash=self.data_hash, model_seed=self.row.seed, code=self.code)

    @property
    def title(self) -> str:
        state = f", noise {'on' if self.noise else 'off'}" if is_noisy(self.row.network) else ""
        protocol = f" ({self.column.protocol})" if self.column.protocol else ""
        return f"{self.perturbation.title}{protocol} on {self.row.label}{state}, seed {self.row.seed}"

    @property
    def group(self) -> str:
        """The column, in words."""
        heading = " ".join(filter(None, [self.column.group.lower(), self.column.title or self.column.key]))
        return heading + (f" ({self.column.protocol})" if self.column.protocol else "")

    def complete(self, record: Record) -> Record:
        """The Record of this cell: what was measured, with what only the experiment knows."""
        known = {
            "model": self.row.label,
            "model_seed": self.row.seed,
            "column": self.column.key,
            "protocol": self.protocol,
            "recipe": self.hash,
            "data_hash": self.data_hash,
            "code": self.code,
        }
        return record.model_copy(update=known)


@dataclass(frozen=True)
class Plan:
    """All cells of a recipe, in an order in which every cell comes after those it needs."""

    trainings: tuple[Training, ...]
    measurements: tuple[Measurement, ...]


def code_version() -> str:
    """The versions a measured number depends on."""
    return f"noiseopt {version('noiseopt')}, torch {torch.__version__}"


def plan(recipe: Recipe, data: Split, measured: Dataset) -> Plan:
    """The cells of `recipe` on these images; `measured` are those that the numbers are about."""
    rows = [_training(recipe, data, row, row.label, seed) for row in recipe.rows for seed in recipe.seeds]
    surrogate = None
    if recipe.surrogate is not None:
        surrogate = _training(recipe, data, recipe.surrogate, SURROGATE, recipe.surrogate.seed)
    measurements = []
    # Rows inside perturbations: what is the same for all of them is then made once.
    for column in recipe.columns:
        for perturbation in column.perturbations:
            for trained in rows:
                states = recipe.evaluation.noise if is_noisy(trained.network) else [False]
                for noise in states:
                    measurements.append(_measurement(recipe, measured, trained, surrogate, column, perturbation, noise))
    return Plan((*([surrogate] if surrogate else []), *rows), tuple(measurements))


def is_noisy(network: Network) -> bool:
    """Does the network have noise (learned or fixed)?"""
    return isinstance(network, Row) and network.noise is not None


def _training(recipe: Recipe, data: Split, network: Network, label: str, seed: int) -> Training:
    settings = recipe.training_of(network)
    parts = {
        "train": data.train.hash,
        "validation": data.validation.hash,
        "test": data.test.hash if recipe.curves.test else None,
        "model": network.model,
        "options": network.options,
        "noise": network.noise.model_dump() if isinstance(network, Row) and network.noise else None,
        "training": settings.model_dump(),
        "curves": recipe.curves.model_dump(),
        "seed": seed,
    }
    return Training(network, label, seed, settings.epochs, digest(parts))


def _measurement(
    recipe: Recipe,
    measured: Dataset,
    trained: Training,
    surrogate: Training | None,
    column: Column,
    perturbation: Any,
    noise: bool,
) -> Measurement:
    transfers = isinstance(perturbation, OfTransfer)
    assert surrogate is not None or not transfers, "checked when the recipe was read"
    evaluation = recipe.evaluation
    # Clean images and corruptions are the same under every protocol, and stand in the table of each.
    protocol = "" if isinstance(perturbation, Clean | OfCorruption) else column.protocol or recipe.protocol
    parts = {
        "row": trained.label,
        "model": trained.hash,
        "surrogate": surrogate.hash if surrogate and transfers else None,
        "perturbation": perturbation.fingerprint(),
        "column": column.key,
        "protocol": protocol,
        "noise": noise,
        "draws": evaluation.draws if noise else 1,
        "seed": evaluation.seed,
    }
    return Measurement(
        row=trained,
        surrogate=surrogate if transfers else None,
        column=column,
        perturbation=perturbation,
        protocol=protocol,
        noise=noise,
        hash=digest(parts),
        data_hash=measured.hash,
        code=code_version(),
    )


def build_network(network: Network, images: Dataset, *, seed: int) -> nn.Module:
    """The network as it is before training: for these images and classes, with its noise.

    Raises:
        UserError: an option is out of range, or the noise finds no layer.
    """
    options = dict(network.options)
    shape = tuple(images.images.shape[1:])
    if network.model in MODELS:
        known = inspect.signature(MODELS[network.model]).parameters
        settled = dict(zip(FROM_DATA, (shape[0], list(shape[1:]), len(images.classes)), strict=True))
        options = {name: value for name, value in settled.items() if name in known} | options
    model = build(network.model, seed=seed, **options)
    if not isinstance(network, Row) or network.noise is None:
        return model
    return inject(model, example_input=torch.zeros(2, *shape), seed=seed, **network.noise.model_dump())
