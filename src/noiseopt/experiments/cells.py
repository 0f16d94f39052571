"""What a recipe comes to: a list of cells, each one trained model or one measured number.

A cell says what it needs, and its hash says what it is: two cells of the same hash give the same result, so a cell
whose result exists is not run again. `planning` makes them; which process runs a cell, and when, is not decided here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from noiseopt.concepts import Record
from noiseopt.data import Dataset, Split
from noiseopt.experiments.rows import Composite, Network, Row
from noiseopt.experiments.schema import Column
from noiseopt.experiments.store import address, digest


@dataclass(frozen=True)
class Training:
    """Cell: one network trained from one seed. `hash` is of all that its weights come from."""

    network: Network
    label: str
    seed: int
    """Of the recipe; the network's own may be another (`own_seed`)."""
    epochs: int
    hash: str
    own_seed: int
    after: Training | None = None
    """Where its weights begin; None: at random."""

    @property
    def needs(self) -> tuple[Training, ...]:
        """What must be trained before: all that it goes on from, the first first."""
        return () if self.after is None else (*self.after.needs, self.after)

    @property
    def trainings(self) -> tuple[Training, ...]:
        """What must be trained before it is measured."""
        return (self,)

    @property
    def noisy(self) -> bool:
        """Does the network have noise (learned or fixed)?"""
        return isinstance(self.network, Row) and self.network.noise is not None

    @property
    def folder(self) -> str:
        """Of its checkpoint, below the folder of all runs: recipes that train the same network share it."""
        return f"models/{self.hash[:24]}"

    @property
    def title(self) -> str:
        return f"{self.label}, seed {self.seed}"


@dataclass(frozen=True)
class Defended:
    """No cell: what a defence makes of trained networks, at once."""

    row: Composite
    parts: tuple[Training | Defended, ...]
    seed: int

    @property
    def label(self) -> str:
        return self.row.label

    @property
    def hash(self) -> str:
        return digest([self.row.defence.model_dump(), [part.hash for part in self.parts]])

    @property
    def trainings(self) -> tuple[Training, ...]:
        return tuple(training for part in self.parts for training in part.trainings)

    @property
    def noisy(self) -> bool:
        return self.row.defence.adds_noise or any(part.noisy for part in self.parts)


@dataclass(frozen=True)
class Measurement:
    """Cell: one row under one perturbation, the noise on or off. `hash` is that of its Record's `recipe`."""

    row: Training | Defended
    surrogate: Training | None
    column: Column
    perturbation: Any
    protocol: str
    noise: bool
    draws: int
    images: int
    hash: str
    data_hash: str
    code: str

    def measured(self, data: Split) -> Dataset:
        """The images that the number is about: a random sample, since a split's parts are in random order."""
        return data.test if self.images >= len(data.test) else data.test.span(0, self.images)

    @property
    def needs(self) -> tuple[Training, ...]:
        return (*self.row.trainings, *([] if self.surrogate is None else [self.surrogate]))

    @property
    def batch(self) -> str:
        """Equal for measurements that are best made by one worker, one after another: it makes once what they share."""
        if self.perturbation.shared:
            return digest([self.perturbation.fingerprint(), self.surrogate and self.surrogate.hash, self.images])
        if (curve := self.perturbation.curve) is not None:
            return digest([curve, self.row.hash, self.noise, self.images])
        return self.address

    @property
    def address(self) -> str:
        """Where its Record is in the store."""
        return address(recipe=self.hash, data_hash=self.data_hash, model_seed=self.row.seed, code=self.code)

    @property
    def title(self) -> str:
        state = f", noise {'on' if self.noise else 'off'}" if self.row.noisy else ""
        column, perturbation = self.column.title or self.column.key, self.perturbation.title
        what = perturbation if perturbation == column else f"{column}: {perturbation}"
        return f"{what} ({self.protocol}) on {self.row.label}{state}, seed {self.row.seed}"

    @property
    def group(self) -> str:
        """The column, in words."""
        heading = " ".join(filter(None, [self.column.group.lower(), self.column.title or self.column.key]))
        return f"{heading} ({self.protocol})"

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
