"""Workers that tell what a test has them tell."""

from __future__ import annotations

from collections.abc import Callable

from noiseopt.experiments.messages import Message, Task


class Player:
    """Ends a task at each `attend`, the oldest first; `play` says what is told of it."""

    tries = 3

    def __init__(self, *, size: int) -> None:
        self.size = size
        self.tasks: list[Task] = []
        """All that were started."""
        self._running: list[Task] = []

    @property
    def running(self) -> int:
        return len(self._running)

    def start(self, task: Task) -> None:
        assert self.running < self.size
        self.tasks.append(task)
        self._running.append(task)

    def attend(self, tell: Callable[[Task, Message], None]) -> None:
        task = self._running.pop(0)
        for message in self.play(task):
            tell(task, message)

    def play(self, task: Task) -> list[Message]:
        raise NotImplementedError
