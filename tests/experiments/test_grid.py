"""The scheduler alone: a crew that the test plays itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from noiseopt.concepts import Record
from noiseopt.errors import UserError
from noiseopt.experiments.cells import Measurement, Training
from noiseopt.experiments.events import Died, Ended, Event, Failed
from noiseopt.experiments.grid import Grid, Outcome, effort
from noiseopt.experiments.messages import Broken, Done, Message, Over, Task
from noiseopt.experiments.planning import plan
from noiseopt.experiments.recipe import Recipe
from noiseopt.experiments.store import Store
from noiseopt.experiments.work import Cell, key
from noiseopt.train import Epoch
from tests.experiments.crews import Player
from tests.experiments.test_cells import parts

Play = Callable[["Crew", Task], Iterator[Message]]


class Crew(Player):
    """Runs cells as a test's function says."""

    def __init__(self, cells: list[Cell], as_said: Play, *, size: int = 1) -> None:
        super().__init__(size=size)
        self.cells, self._as_said = {key(cell): cell for cell in cells}, as_said

    @property
    def started(self) -> list[list[Cell]]:
        return [[self.cells[name] for name in task.cells] for task in self.tasks]

    def play(self, task: Task) -> list[Message]:
        return list(self._as_said(self, task))

    def done(self, name: str) -> Done:
        cell = self.cells[name]
        if isinstance(cell, Training):
            line = {"validation_loss": 0.5, "validation_accuracy": 0.5, "validation_noise": False, "seconds": 1.0}
            return Done(name, Epoch(epoch=1, train_loss=0.5, sigma={}, **line), 1.0)
        record = Record(value=0.5, count=8, low=0.2, high=0.8, noise=cell.noise, draws=1)
        return Done(name, cell.complete(record), 1.0)


def well(crew: Crew, task: Task) -> Iterator[Message]:
    yield from map(crew.done, task.cells)
    yield Over()


@pytest.fixture
def cells(tiny: Recipe) -> list[Cell]:
    planned = plan(tiny, parts(), device=torch.device("cpu"))
    return [*planned.trainings, *planned.measurements]


def run(
    cells: list[Cell], play: Play, folder: Path, *, size: int = 1, left: list[Cell] | None = None
) -> tuple[Crew, Outcome, list[Event], list[Record]]:
    crew, outcome, events = Crew(cells, play, size=size), Outcome(folder), list[Event]()
    store = Store(folder / "records.jsonl")
    grid = Grid(left if left is not None else cells, store=store, outcome=outcome, tell=events.append)
    grid.run(crew)
    assert len(grid) == crew.running == 0
    return crew, outcome, events, Store(folder / "records.jsonl").records


def titles(tasks: list[list[Cell]]) -> list[list[str]]:
    return [[cell.title for cell in task] for task in tasks]


def test_one_worker_goes_through_the_plan(cells: list[Cell], tmp_path: Path) -> None:
    crew, outcome, events, records = run(cells, well, tmp_path)
    assert [cell for task in crew.started for cell in task] == cells
    assert (outcome.trained, outcome.measured, outcome.failures) == (4, 25, {})
    assert len(records) == 25
    assert len([e for e in events if isinstance(e, Ended)]) == 29
    # What is the same for all models goes to one worker at once, a white-box attack never.
    sizes = {(task[0].column.key, len(task)) for task in crew.started if isinstance(task[0], Measurement)}
    assert sizes == {("clean", 5), ("pgd", 1), ("contrast", 5), ("transfer", 5)}


def test_several_workers_begin_with_what_takes_longest(cells: list[Cell], tmp_path: Path) -> None:
    crew, _, _, records = run(cells, well, tmp_path, size=2)
    started = titles(crew.started)
    assert started[:4] == [["MLP, seed 0"], ["MLP+, seed 0"], ["MLPN, seed 0"], ["surrogate, seed 1000"]]
    order = [effort(task[0]) for task in crew.started[4:]]
    # Before the last training is done there is something else to do than to wait for it.
    assert order[1:] == sorted(order[1:], reverse=True)
    assert len(records) == 25


def test_nothing_is_measured_before_its_networks_are_trained(cells: list[Cell], tmp_path: Path) -> None:
    trained: set[str] = set()

    def checked(crew: Crew, task: Task) -> Iterator[Message]:
        for name in task.cells:
            cell = crew.cells[name]
            if isinstance(cell, Measurement):
                assert {need.hash for need in cell.needs} <= trained
            yield crew.done(name)
            trained.add(name)
        yield Over()

    for size in (1, 2, 3, 50):
        trained.clear()
        (tmp_path / str(size)).mkdir()
        assert len(run(cells, checked, tmp_path / str(size), size=size)[3]) == 25


def test_what_is_there_already_is_not_waited_for(cells: list[Cell], tmp_path: Path) -> None:
    left = [cell for cell in cells if isinstance(cell, Measurement) and cell.row.label == "MLPN"]
    crew, outcome, _, _ = run(cells, well, tmp_path, left=left)
    assert (outcome.trained, outcome.measured) == (0, 10)
    assert sum(map(len, crew.started)) == 10


def test_a_broken_training_leaves_out_what_needs_it(cells: list[Cell], tmp_path: Path) -> None:
    def play(crew: Crew, task: Task) -> Iterator[Message]:
        for name in task.cells:
            error = UserError("it must work", fix="mend it")
            broken = crew.cells[name].title == "surrogate, seed 1000"
            yield Broken.by(error, name) if broken else crew.done(name)
        yield Over()

    _, outcome, events, records = run(cells, play, tmp_path, size=2)
    assert (outcome.trained, outcome.measured, len(records)) == (3, 20, 20)
    assert {str(e) for e in outcome.failures.values()} == {"it must work; fix: mend it"}
    assert isinstance(outcome.failures["surrogate, seed 1000"], UserError)
    assert len([e for e in events if isinstance(e, Failed)]) == 6


def test_what_was_lost_with_a_worker_is_run_again_and_what_was_told_is_not(cells: list[Cell], tmp_path: Path) -> None:
    deaths = {"MLP, seed 0": 2, "Original: clean (paper) on MLP+, noise on, seed 0": 1}

    def play(crew: Crew, task: Task) -> Iterator[Message]:
        for name in task.cells:
            title = crew.cells[name].title
            if deaths.get(title):
                deaths[title] -= 1
                yield Over("killed by signal 9")
                return
            yield crew.done(name)
        yield Over()

    crew, outcome, events, records = run(cells, play, tmp_path)
    assert (outcome.trained, outcome.measured, outcome.failures) == (4, 25, {})
    assert len(records) == 25
    assert [e.title for e in events if isinstance(e, Died)] == [*["MLP, seed 0"] * 2, *list(deaths)[1:]]
    clean = [task for task in titles(crew.started) if task[0].startswith("Original")]
    assert [len(task) for task in clean] == [5, 4]  # the first of the five had been told


def test_a_cell_that_ends_every_worker_is_given_up_and_no_other(cells: list[Cell], tmp_path: Path) -> None:
    deadly = "contrast: contrast 5 (paper) on MLP+, noise on, seed 0"

    def play(crew: Crew, task: Task) -> Iterator[Message]:
        for name in task.cells:
            if crew.cells[name].title == deadly:
                yield Over("killed by signal 9")
                return
            yield crew.done(name)
        yield Over()

    crew, outcome, _, records = run(cells, play, tmp_path, size=2)
    assert sum(task[0] == deadly for task in titles(crew.started)) == 2  # and once within its batch
    assert list(outcome.failures) == [deadly]
    assert "3 have not; got killed by signal 9; fix: " in str(outcome.failures[deadly])
    assert len(records) == outcome.measured == 24


def test_what_is_told_twice_counts_once(cells: list[Cell], tmp_path: Path) -> None:
    def play(crew: Crew, task: Task) -> Iterator[Message]:
        for name in task.cells:
            yield crew.done(name)
            yield crew.done(name)
            yield Broken.by(ValueError("too late"), name)
        yield Over()

    _, outcome, events, records = run(cells, play, tmp_path)
    assert (outcome.trained, outcome.measured, outcome.failures) == (4, 25, {})
    assert len(records) == 25
    assert len(events) == 29


def test_trainings_may_need_trainings(cells: list[Cell], tmp_path: Path) -> None:
    """A row that goes on from another's weights: their chain comes first, and fails as one."""

    plain, first, _, other = cells[:4]
    assert isinstance(first, Training)
    chain = [first]
    for stage in range(2):
        chain.append(Training(first.network, f"stage {stage}", 0, 1, str(stage), 0, after=chain[-1]))
    crew, outcome, _, _ = run([other, plain, *chain], well, tmp_path, size=2)
    started = ["MLP, seed 0", "MLPN, seed 0", "stage 0, seed 0", "surrogate, seed 1000", "stage 1, seed 0"]
    assert [task[0].title for task in crew.started] == started
    assert outcome.trained == 5

    def play(crew: Crew, task: Task) -> Iterator[Message]:
        yield Broken.by(ValueError("oops"), task.cells[0])
        yield Over()

    (tmp_path / "broken").mkdir()
    _, outcome, events, _ = run(chain, play, tmp_path / "broken")  # type: ignore[arg-type]
    assert list(outcome.failures) == ["MLP, seed 0"]
    assert [e.title for e in events if isinstance(e, Failed)] == ["MLP, seed 0", "stage 0, seed 0", "stage 1, seed 0"]
