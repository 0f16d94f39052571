"""Where the cells run: in this process, in several processes of this machine, or on a Ray cluster.

An executor is a few settings; `open` makes a crew of it, which takes tasks and passes on what the workers tell. All
three run the same `Worker` with the same `Task`s, and none of them knows of stores, recipes or displays.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import torch

from noiseopt.errors import UserError
from noiseopt.experiments.executors.cluster import OnRay
from noiseopt.experiments.executors.inprocess import InProcess
from noiseopt.experiments.executors.processes import Processes
from noiseopt.experiments.messages import Message, Task
from noiseopt.experiments.work import Worker, usable_device

__all__ = ["Crew", "Executor", "InProcess", "OnRay", "Processes", "chosen", "cores", "suited"]


class Crew(Protocol):
    """Workers at work. `size`: how many tasks they may be given at once. `tries`: how often a cell may end its worker.

    Each task ends with an `Over`. What it had not told by then was lost, and is for whoever gave it to give again.
    """

    size: int
    tries: int

    @property
    def running(self) -> int:
        """How many tasks are in hand."""

    def start(self, task: Task) -> None:
        """Give a task to the workers; only while `running` is below `size`."""

    def attend(self, tell: Callable[[Task, Message], None]) -> None:
        """Wait until the workers tell something, and pass it on; only while there are running tasks."""


class Executor(Protocol):
    """How to make a crew."""

    def device(self, name: str | None) -> str:
        """The device that cells run on, where the user named `name`. Raises UserError where there is no such."""

    def open(self, worker: Worker) -> AbstractContextManager[Crew]:
        """A crew for what `worker` would do; leaving the block ends it, whatever it is at."""


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def suited(device: str | None, *, workers: int | None = None, at_most: int | None = None) -> InProcess | Processes:
    """The executor that uses the whole machine: a worker for each core, or for each GPU, but no more than `at_most`.

    `workers`: how many, where the user said it; 0 stands for as many as there are cores.
    """
    place = usable_device(device)
    count = workers or cores()
    if workers is None and place.type != "cpu":
        count = torch.cuda.device_count() if device in (None, "cuda") else 1
    count = count if at_most is None else min(count, at_most)
    return Processes(count) if count > 1 else InProcess()


def chosen(name: str | None, *, workers: int | None, address: str | None, gpus_per_cell: float | None) -> Executor:
    """The executor that these options mean. `workers`: 0 stands for as many as there are cores (on Ray: CPUs); None
    for one, unless an executor of many is named.

    Raises:
        UserError: an option that this executor does not have.
    """
    name = name or ("ray" if address is not None else "processes" if workers not in (None, 1) else "inprocess")
    if name == "ray":
        return OnRay(workers or 0, address, gpus_per_cell or 0.0)
    for option, value in (("--address", address), ("--gpus-per-cell", gpus_per_cell)):
        if value is not None:
            raise UserError(f"{option} is for a Ray cluster", got=f"--executor {name}", fix="add --executor ray")
    if name == "processes":
        return Processes(workers or cores())
    if workers not in (None, 1):
        raise UserError("--executor inprocess is one worker", got=workers or "auto", fix="use --executor processes")
    return InProcess()
