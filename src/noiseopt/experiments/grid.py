"""The scheduler: which cell is run next, and what is done with its result. Only here are Records written."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from noiseopt.concepts import Record
from noiseopt.errors import UserError
from noiseopt.experiments.cells import Training
from noiseopt.experiments.events import Died, Ended, Failed, Listener, Note
from noiseopt.experiments.executors import Crew
from noiseopt.experiments.messages import Broken, Done, Message, Over, Progressed, Task
from noiseopt.experiments.store import Store
from noiseopt.experiments.work import Cell, key
from noiseopt.train import Epoch


@dataclass
class Outcome:
    """What came of a run: how many cells ran, and the errors of those that failed, by title."""

    folder: Path
    trained: int = 0
    measured: int = 0
    failures: dict[str, Exception] = field(default_factory=dict)


class Grid:
    """The cells that have no result yet."""

    def __init__(self, cells: Iterable[Cell], *, store: Store, outcome: Outcome, tell: Listener) -> None:
        """`cells`: in an order in which every cell comes after those it needs; what is needed and is not among them
        is there already.
        """
        self._open = {key(cell): cell for cell in cells}
        self._waiting = dict(self._open)
        self._store, self._outcome, self._tell = store, outcome, tell
        self._deaths: Counter[str] = Counter()
        self._noted: set[str] = set()
        self._batch = {name: name if isinstance(cell, Training) else cell.batch for name, cell in self._open.items()}
        self._batches: dict[str, list[str]] = defaultdict(list)
        for name, batch in self._batch.items():
            self._batches[batch].append(name)

    def __len__(self) -> int:
        return len(self._open)

    def run(self, crew: Crew) -> None:
        """Run them all; a cell that fails leaves out those that need it, and the others go on."""
        if crew.size > 1:  # the longest chains first, so that no worker is left with them at the end
            self._waiting = _longest_first(self._waiting)
        while self._open:
            while crew.running < crew.size and (task := self._next()) is not None:
                crew.start(task)
            crew.attend(lambda task, message: self._hear(task, message, tries=crew.tries))

    def _next(self) -> Task | None:
        """The first cell that can be run now, with those of its batch: one worker makes for all what they share.

        A batch of which a part must still wait comes last: that part will have to make it again.
        """
        part: list[str] = []
        for batch in dict.fromkeys(self._batch[name] for name in self._waiting):
            waiting = [name for name in self._batches[batch] if name in self._waiting]
            ready = [name for name in waiting if self._is_ready(name)]
            if len(ready) == len(waiting):
                return self._taken(ready)
            part = part or ready
        return self._taken(part) if part else None

    def _taken(self, names: list[str]) -> Task:
        for name in names:
            del self._waiting[name]
        return Task(tuple(names))

    def _is_ready(self, name: str) -> bool:
        return not any(need.hash in self._open for need in self._open[name].needs)

    def _hear(self, task: Task, message: Message, *, tries: int) -> None:
        match message:
            case Done() if message.cell in self._open:
                self._keep(self._open.pop(message.cell), message)
            case Broken() if message.cell in self._open:
                self._fail(message.cell, message.exception())
            case Over():
                self._retry([name for name in task.cells if name in self._open], message.reason, tries)
            case Done() | Broken() | Progressed():
                pass  # told again by a task that was run again
            case Note(text=text):
                if text not in self._noted:  # by another worker, or of another column
                    self._noted.add(text)
                    self._tell(message)
            case _:
                self._tell(message)

    def _keep(self, cell: Cell, done: Done) -> None:
        if isinstance(done.result, Record):
            self._store.add(done.result)
            self._outcome.measured += 1
            result = f"{done.result.value:.3f}"
        elif done.result is None:
            self._outcome.trained += 1
            result = "as it comes"
        elif isinstance(done.result, Epoch):
            self._outcome.trained += 1
            result = f"loss {done.result.train_loss:.3f}, validation accuracy {done.result.validation_accuracy:.3f}"
        else:
            raise TypeError(f"a grid keeps no {type(done.result).__name__}")
        self._tell(Ended(_kind(cell), cell.title, result, done.seconds, _group(cell), effort(cell)))

    def _fail(self, name: str, error: Exception) -> None:
        cell = self._open.pop(name)
        self._outcome.failures[cell.title] = error
        self._tell(Failed(_kind(cell), cell.title, str(error), _group(cell), effort(cell)))
        self._leave_out(name)

    def _leave_out(self, lacking: str) -> None:
        """What needs a network that could not be trained cannot be run either."""
        for name, cell in list(self._waiting.items()):
            if name in self._open and lacking in {need.hash for need in cell.needs}:
                del self._waiting[name], self._open[name]
                reason = "its network could not be trained"
                self._tell(Failed(_kind(cell), cell.title, reason, _group(cell), effort(cell)))
                self._leave_out(name)

    def _retry(self, lost: list[str], reason: str, tries: int) -> None:
        """The first of the cells that ended with their worker is the one that was running."""
        if not lost:
            return
        cell = self._open[lost[0]]
        self._deaths[lost[0]] += 1
        self._tell(Died(_kind(cell), cell.title, reason))
        if self._deaths[lost[0]] >= tries:
            rule = f"a worker must live until its cell is done; {tries} have not"
            self._fail(lost.pop(0), UserError(rule, got=reason, fix="free memory, or use fewer --workers; then go on"))
        self._waiting = {name: self._open[name] for name in lost} | self._waiting


def _kind(cell: Cell) -> str:
    return "train" if isinstance(cell, Training) else "measure"


def _group(cell: Cell) -> str:
    return "" if isinstance(cell, Training) else cell.group


def _longest_first(cells: dict[str, Cell]) -> dict[str, Cell]:
    """Trainings by what they and those that wait for them take, then measurements by what they take."""
    chain = {name: effort(cell) for name, cell in cells.items()}
    for name, cell in reversed(cells.items()):
        for need in cell.needs if isinstance(cell, Training) else ():
            if need.hash in chain:
                chain[need.hash] = max(chain[need.hash], effort(cells[need.hash]) + chain[name])
    order = sorted(cells, key=lambda name: (isinstance(cells[name], Training), chain[name]), reverse=True)
    return {name: cells[name] for name in order}


def effort(cell: Cell) -> int:
    """About how long a cell takes, against others of its kind: epochs, or passes of an image through the network."""
    if isinstance(cell, Training):
        return cell.epochs
    return cell.passes
