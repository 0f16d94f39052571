"""What is said between those who give cells to workers and the workers: tasks, and what comes of them."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass

from noiseopt.errors import UserError
from noiseopt.experiments.events import Event


@dataclass(frozen=True)
class Task:
    """Cells, by their keys, that one worker runs one after another: one training, or measurements."""

    cells: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """A cell has its result."""

    cell: str
    result: object
    """An Epoch (None: there was none to train) or a Record; of an audit, its Verdict."""
    seconds: float


@dataclass(frozen=True)
class Progressed:
    """A cell is on its way; `at`: where, in words of its own kind."""

    cell: str
    at: object


@dataclass(frozen=True)
class Broken:
    """A cell raised an error; as text, since not every exception can be sent to another process."""

    cell: str
    error: str
    users: bool
    trace: str

    @classmethod
    def by(cls, error: Exception, cell: str) -> Broken:
        """The cell that raised `error`."""
        users = isinstance(error, UserError)
        text = str(error) if users else "".join(traceback.format_exception_only(error)).strip()
        return cls(cell, text, users, "".join(traceback.format_exception(error)))

    def exception(self) -> Exception:
        """What the worker's exception said, to be raised here."""
        rule, _, fix = self.error.rpartition("; fix: ")
        made = UserError(rule, fix=fix) if self.users else CellError(self.error)
        made.add_note(self.trace)
        return made


@dataclass(frozen=True)
class Over:
    """A task has ended; cells of it of which nothing was told were lost, for this reason."""

    reason: str = "its worker ended early"


Message = Event | Done | Progressed | Broken | Over
Tell = Callable[[Message], None]


class CellError(Exception):
    """A cell raised something that is no UserError: a bug, ours or of the user's own model."""
