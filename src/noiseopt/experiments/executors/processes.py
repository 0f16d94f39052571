"""Cells run in processes of this machine.

Each has a pipe of its own to the parent, and no lock or queue in common: a process that is killed takes its own task
with it and nothing else. (A `concurrent.futures` pool ends all its processes when one of them dies.)
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing.connection import Connection, wait

import torch

from noiseopt.experiments.messages import Message, Over, Task
from noiseopt.experiments.work import Setting, Works, local_device, perform

_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Processes:
    """`workers` processes, each with its share of the cores; on several GPUs they take turns."""

    workers: int

    def device(self, name: str | None) -> str:
        return local_device(name)

    @contextmanager
    def open(self, worker: Works) -> Iterator[_Team]:
        team = _Team(worker.setting, self.workers)
        try:
            yield team
        finally:
            team.end()


class _Member:
    """One process, and the task it is at."""

    def __init__(self, setting: Setting, threads: int) -> None:
        self.task: Task | None = None
        self.pipe, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=_serve, args=(theirs, setting, threads), daemon=True)
        # Ctrl-C goes to every process of a terminal. The parent's business it is alone, from a child's first moment.
        with _without_interrupts():
            self.process.start()
        theirs.close()

    def end(self) -> str:
        """End the process, if it has not ended; says how it did."""
        self.pipe.close()
        self.process.terminate()
        self.process.join(5)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        code = self.process.exitcode or 0
        return f"killed by signal {-code}" if code < 0 else f"ended with status {code}"


class _Team:
    tries = 3

    def __init__(self, setting: Setting, size: int) -> None:
        self.size = size
        gpus = torch.cuda.device_count() if setting.device == "cuda" else 0
        self._settings = [replace(setting, device=f"cuda:{i % gpus}") if gpus else setting for i in range(size)]
        self._threads = max(1, torch.get_num_threads() // size)
        self._members: list[_Member | None] = [None] * size

    @property
    def running(self) -> int:
        return sum(member is not None and member.task is not None for member in self._members)

    def start(self, task: Task) -> None:
        place = next(i for i, member in enumerate(self._members) if member is None or member.task is None)
        member = self._members[place]
        if member is not None and not member.process.is_alive():
            member.end()
            member = None
        self._members[place] = member = member or _Member(self._settings[place], self._threads)
        member.task = task
        with suppress(OSError):  # if it has died just now, `attend` finds out
            member.pipe.send(task)

    def attend(self, tell: Callable[[Task, Message], None]) -> None:
        at_work = {member.pipe: member for member in self._members if member is not None and member.task is not None}
        for pipe in wait(list(at_work)):
            member = at_work[pipe]  # type: ignore[index]
            task = member.task
            assert task is not None
            try:
                message = member.pipe.recv()
            except (EOFError, OSError):  # also in the middle of a message
                self._members[self._members.index(member)] = None
                message = Over(member.end())
            if isinstance(message, Over):
                member.task = None
            tell(task, message)

    def end(self) -> None:
        members = [member for member in self._members if member is not None]
        for member in members:  # all at once, and then wait
            member.process.terminate()
        for member in members:
            member.end()


def _serve(pipe: Connection, setting: Setting, threads: int) -> None:
    """What a process does all its life: tasks, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    hire = cache(setting.hire)
    with suppress(EOFError, OSError):
        while True:
            perform(hire, pipe.recv(), pipe.send)
            pipe.send(Over())


def _end_with_parent() -> None:
    """However the parent ends, kill -9 included, nobody is left to train for it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold SIGINT back inside the block; a process that is started there never has it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
