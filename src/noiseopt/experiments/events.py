"""What a run tells while it runs. Whoever draws it subscribes; running knows nothing of terminals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Planned:
    """The work ahead: cells of both kinds, and how many of them have their result already."""

    name: str
    about: str
    trainings: int
    trained: int
    measurements: int
    measured: int
    epochs: int
    """Epochs of all trainings that are still to be run."""
    groups: Mapping[str, int] = field(default_factory=dict)
    """Column → how many of its measurements are still to be run."""
    effort: int = 0
    """Of all measurements that are still to be run; see `grid.effort`."""


@dataclass(frozen=True)
class Began:
    """A cell is running. `kind`: "train", "measure" or "gallery"."""

    kind: str
    title: str


@dataclass(frozen=True)
class EpochDone:
    """A training cell has finished an epoch."""

    title: str
    epoch: int
    epochs: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Ended:
    """A cell is done. `result`: one short phrase. `group`: the column, of a measurement. `effort`: see `grid`."""

    kind: str
    title: str
    result: str
    seconds: float
    group: str = ""
    effort: int = 1


@dataclass(frozen=True)
class Failed:
    """A cell failed, or was left out because one that it needs did; the others go on."""

    kind: str
    title: str
    reason: str
    group: str = ""
    effort: int = 1


@dataclass(frozen=True)
class Died:
    """The worker of a cell has ended before its time; another takes its place."""

    kind: str
    title: str
    reason: str


@dataclass(frozen=True)
class Note:
    """Something worth a line: a repaired file, results of another recipe that were set aside."""

    text: str


Event = Planned | Began | EpochDone | Ended | Failed | Died | Note
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener that does nothing."""
