"""What a recipe comes to: a list of cells, each one trained model or one measured number.

A cell says what it needs, and its hash says what it is: two cells of the same hash give the same result, so a cell
whose result exists is not run again. `planning` makes them; which process runs a cell, and when, is not decided here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from noiseopt.concepts import Record
from noiseopt.data import Dataset, Split
from noiseopt.experiments.rows import Composite, Network, Row
from noiseopt.experiments.schema import Column, Saliency
from noiseopt.experiments.store import address, digest
from noiseopt.saliency import boxed


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
    def title(self) -> str:
        return f"{self.label}, seed {self.seed}"

    @property
    def trainings(self) -> tuple[Training, ...]:
        return tuple(training for part in self.parts for training in part.trainings)

    @property
    def noisy(self) -> bool:
        return self.row.defence.adds_noise or any(part.noisy for part in self.parts)


Trained = Training | Defended
"""What a row is, from one seed: a network that was trained, or what is made of such."""


@dataclass(frozen=True, kw_only=True)
class Measured(ABC):
    """Cell: one number about one row, the noise on or off. `hash` is that of its Record's `recipe`."""

    row: Training | Defended
    noise: bool
    draws: int
    images: int
    hash: str
    data_hash: str
    code: str

    @property
    def needs(self) -> tuple[Training, ...]:
        """What must be trained before."""
        return self.row.trainings

    @property
    def address(self) -> str:
        """Where its Record is in the store."""
        return address(recipe=self.hash, data_hash=self.data_hash, model_seed=self.row.seed, code=self.code)

    @property
    def batch(self) -> str:
        """Equal for cells that are best run by one worker, one after another: it makes once what they share."""
        return self.address

    @property
    def state(self) -> str:
        """The noise, in words; nothing about a row that has none."""
        return f", noise {'on' if self.noise else 'off'}" if self.row.noisy else ""

    @property
    @abstractmethod
    def title(self) -> str: ...

    @property
    @abstractmethod
    def group(self) -> str:
        """What it has in common with the other rows' numbers, in words."""

    @property
    @abstractmethod
    def passes(self) -> int:
        """About how often an image passes through a network; a step of an attack is about three."""

    @property
    @abstractmethod
    def place(self) -> dict[str, str]:
        """Column and protocol, as the Record has them."""

    def complete(self, record: Record) -> Record:
        """The Record of this cell: what was measured, with what only the experiment knows."""
        known = {
            "model": self.row.label,
            "model_seed": self.row.seed,
            **self.place,
            "recipe": self.hash,
            "data_hash": self.data_hash,
            "code": self.code,
        }
        return record.model_copy(update=known)


@dataclass(frozen=True, kw_only=True)
class Measurement(Measured):
    """Cell: the accuracy of one row under one perturbation."""

    surrogate: Training | None
    column: Column
    perturbation: Any
    protocol: str

    def measured(self, data: Split) -> Dataset:
        """The images that the number is about: a random sample, since a split's parts are in random order."""
        return data.test if self.images >= len(data.test) else data.test.span(0, self.images)

    @property
    def needs(self) -> tuple[Training, ...]:
        return (*self.row.trainings, *([] if self.surrogate is None else [self.surrogate]))

    @property
    def batch(self) -> str:
        if self.perturbation.shared:
            return digest([self.perturbation.fingerprint(), self.surrogate and self.surrogate.hash, self.images])
        if (curve := self.perturbation.curve) is not None:
            return digest([curve, self.row.hash, self.noise, self.images])
        return self.address

    @property
    def title(self) -> str:
        column, perturbation = self.column.title or self.column.key, self.perturbation.title
        what = perturbation if perturbation == column else f"{column}: {perturbation}"
        return f"{what} ({self.protocol}) on {self.row.label}{self.state}, seed {self.row.seed}"

    @property
    def group(self) -> str:
        heading = " ".join(filter(None, [self.column.group.lower(), self.column.title or self.column.key]))
        return f"{heading} ({self.protocol})"

    @property
    def passes(self) -> int:
        made: Any = self.perturbation.fingerprint()
        settings = made.get("transfer", made) if isinstance(made, dict) else {}
        crafting = settings.get("steps", int("attack" in settings)) * settings.get("draws", 1)
        return int(self.images * (self.draws + 3 * crafting))

    @property
    def place(self) -> dict[str, str]:
        return {"column": self.column.key, "protocol": self.protocol}


@dataclass(frozen=True, kw_only=True)
class Share(Measured):
    """Cell: the share of one row's saliency maps that lies inside the objects' boxes."""

    settings: Saliency

    def measured(self, data: Split) -> Dataset:
        """The first test images whose box is known."""
        return boxed(data.test, self.images)

    @property
    def title(self) -> str:
        return f"saliency inside the box of {self.row.label}{self.state}, seed {self.row.seed}"

    @property
    def group(self) -> str:
        return "saliency inside the box"

    @property
    def passes(self) -> int:
        return 3 * self.images * self.settings.samples * self.draws

    @property
    def place(self) -> dict[str, str]:
        return {"column": "saliency_in_box", "protocol": "paper"}


@dataclass(frozen=True)
class Plan:
    """All cells of a recipe, in an order in which every cell comes after those it needs."""

    trainings: tuple[Training, ...]
    measurements: tuple[Measured, ...]

    @property
    def networks(self) -> list[Trained]:
        """Of every row and seed."""
        trained = [cell for cell in self.trainings if isinstance(cell.network, Row)]
        every = [*(cell.row for cell in self.measurements), *trained]
        return list({(cell.label, cell.seed): cell for cell in every}.values())
