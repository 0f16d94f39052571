"""Cells run here, in the process that asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from noiseopt.experiments.messages import Message, Over, Task
from noiseopt.experiments.work import Works, local_device


@dataclass(frozen=True)
class InProcess:
    """One worker, this process itself."""

    def device(self, name: str | None) -> str:
        return local_device(name)

    @contextmanager
    def open(self, worker: Works) -> Iterator[_Alone]:
        yield _Alone(worker)


class _Alone:
    size = tries = 1

    def __init__(self, worker: Works) -> None:
        self._worker = worker
        self._task: Task | None = None

    @property
    def running(self) -> int:
        return int(self._task is not None)

    def start(self, task: Task) -> None:
        self._task = task

    def attend(self, tell: Callable[[Task, Message], None]) -> None:
        assert self._task is not None
        task, self._task = self._task, None
        self._worker.run(task, partial(tell, task))
        tell(task, Over())
