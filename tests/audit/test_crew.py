from __future__ import annotations

from collections.abc import Callable

import pytest

from noiseopt.audit.crew import Subject, inspect
from noiseopt.errors import UserError
from noiseopt.experiments.work import Broken, Message, Over, Task

TWO = [Subject("MLP", 0, "a"), Subject("MLP", 1, "b")]


class Crew:
    """Two workers that tell what they are told to, task by task."""

    size, tries = 2, 3

    def __init__(self, *told: Message) -> None:
        self._told = list(told)
        self.started: list[str] = []
        self._tasks: list[Task] = []

    @property
    def running(self) -> int:
        return len(self._tasks)

    def start(self, task: Task) -> None:
        assert self.running < self.size
        self.started += task.cells
        self._tasks.append(task)

    def attend(self, tell: Callable[[Task, Message], None]) -> None:
        task, message = self._tasks[0], self._told.pop(0)
        if isinstance(message, Over):
            self._tasks.pop(0)
        tell(task, message)


def test_a_model_whose_worker_dies_is_tried_again_and_then_named() -> None:
    crew = Crew(*[Over("killed by signal 9")] * 5)
    with pytest.raises(
        UserError, match=r"MLP, seed 0: a worker must live until its audit is done; got killed by"
    ) as caught:
        inspect(TWO, crew, keep=lambda *_: None, progress=lambda *_: None)
    assert "fewer --workers" in str(caught.value)
    assert crew.started[:3] == ["a", "b", "a"]


def test_what_a_worker_raised_is_raised_here() -> None:
    broken = Broken.by(UserError("logits must be finite", got="nan", fix="train on"), "a")
    with pytest.raises(UserError, match="logits must be finite; got nan; fix: train on"):
        inspect(TWO, Crew(broken), keep=lambda *_: None, progress=lambda *_: None)
