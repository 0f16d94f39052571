"""Cells run on a Ray cluster: other processes of this machine, or other machines, which share no files with it.

The data set and each trained model go through Ray's object store, to each node once. A task is a Ray generator: what
its worker tells comes back one message at a time, after every epoch with the files of the model, which are written
here. So an interrupted run goes on from the last epoch, whatever has become of the nodes. A task whose process or
node dies is handed over anew, with the checkpoint of its last epoch; Ray itself would begin it again as it was.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from filelock import FileLock, Timeout

from noiseopt.checkpoint import write_atomically
from noiseopt.errors import UserError
from noiseopt.experiments.executors.node import Files, on_node, packed
from noiseopt.experiments.messages import Message, Over, Task
from noiseopt.experiments.models import ModelFolder
from noiseopt.experiments.work import Cell, Worker, key


@dataclass(frozen=True)
class OnRay:
    """At most `workers` tasks at once (0: as many as the cluster has CPUs), each with `gpus_per_cell` GPUs.

    `address`: of a cluster; None: the one that this process is connected to, or RAY_ADDRESS names, or a new one here.
    """

    workers: int = 0
    address: str | None = None
    gpus_per_cell: float = 0.0

    def device(self, name: str | None) -> str:
        # It is the nodes' devices that count: they are tried there.
        return name or ("cuda" if self.gpus_per_cell else "cpu")

    @contextmanager
    def open(self, worker: Worker) -> Iterator[_Cluster]:
        """Raises UserError where Ray is not installed, or the cluster does not answer."""
        if find_spec("ray") is None:
            raise UserError("Ray is not installed", fix="pip install 'noiseopt[ray]'")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        ours = not ray.is_initialized()
        if ours:
            options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
            if not self.address and not os.environ.get("RAY_ADDRESS"):
                options["include_dashboard"] = False  # which only a new cluster may be told
            try:
                ray.init(address=self.address, **options)
            except (ConnectionError, ValueError, RuntimeError) as error:
                rule, fix = "--address must be of a Ray cluster that answers", "see `ray status`"
                raise UserError(rule, got=f"{self.address} ({error})", fix=fix) from None
        try:
            cluster = _Cluster(ray, worker, self)
            try:
                yield cluster
            finally:
                cluster.end()
        finally:
            if ours:
                ray.shutdown()


class _Cluster:
    tries = 3

    def __init__(self, ray: Any, worker: Worker, options: OnRay) -> None:
        self._ray, self._runs_dir = ray, worker.setting.runs_dir
        resources = ray.cluster_resources()
        if options.gpus_per_cell > resources.get("GPU", 0):
            fix = "leave --gpus-per-cell out, or add a node with a GPU"
            raise UserError("a Ray cluster must have the GPU that a cell takes", got="none", fix=fix)
        self.size = options.workers or max(1, int(resources.get("CPU", 1)))
        settings = {"num_cpus": 1, "num_gpus": options.gpus_per_cell, "max_retries": 0}
        self._remote = ray.remote(num_returns="streaming", **settings)(on_node)
        self._trainings = {cell.hash: cell for cell in worker.cells.trainings}
        cells: list[Cell] = [*worker.cells.trainings, *worker.cells.measurements]
        self._needs = {key(cell): cell.needs for cell in cells}
        # In a list: Ray then hands over the reference, and only a process that needs the object fetches it.
        self._shared = [ray.put(worker.setting), ray.put(packed(worker.pool))]
        self._models: dict[str, Any] = {}
        self._waiting: list[Task] = []
        self._tasks: dict[Any, Task] = {}
        self._locks: dict[Task, FileLock] = {}

    @property
    def running(self) -> int:
        return len(self._waiting) + len(self._tasks)

    def start(self, task: Task) -> None:
        self._waiting.append(task)

    def attend(self, tell: Callable[[Task, Message], None]) -> None:
        self._waiting = [task for task in self._waiting if not self._submit(task)]
        if not self._tasks:
            time.sleep(0.2)  # another noiseopt trains what all that is left must wait for
            return
        ready, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=0.5 if self._waiting else None)
        for generator in ready:
            task = self._tasks[generator]
            try:
                message = self._ray.get(next(generator))
            except StopIteration:
                message = Over()
            except self._ray.exceptions.RayError as error:
                message = Over(str(error).strip().partition("\n")[0])
            if isinstance(message, Over):
                self._forget(generator)
            if isinstance(message, Files):
                self._keep(message)
            else:
                tell(task, message)

    def end(self) -> None:
        for generator in list(self._tasks):
            with suppress(self._ray.exceptions.RayError, ValueError):
                self._ray.cancel(generator, force=True)
            self._forget(generator)

    def _submit(self, task: Task) -> bool:
        """Hand a task to Ray; False where it has to wait for another noiseopt, which trains the same model."""
        models = [name for name in task.cells if name in self._trainings]
        for name in models:
            lock = ModelFolder(self._runs_dir, self._trainings[name]).lock
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return False
            self._locks[task] = lock
            self._models.pop(name, None)  # its checkpoint may have become another while this waited
        needed = {cell.hash for name in task.cells for cell in self._needs.get(name, ())}
        checkpoints = {name: self._model(name) for name in (*models, *needed)}
        generator = self._remote.remote(self._shared, task, {name: c for name, c in checkpoints.items() if c})
        self._tasks[generator] = task
        return True

    def _model(self, name: str) -> Any:
        """The checkpoint as an object of the store; None where there is none yet."""
        if name not in self._models:
            path = ModelFolder(self._runs_dir, self._trainings[name]).checkpoint
            if not path.exists():
                return None
            self._models[name] = self._ray.put(path.read_bytes())
        return self._models[name]

    def _keep(self, files: Files) -> None:
        folder = ModelFolder(self._runs_dir, self._trainings[files.cell])
        for name, content in files.contents.items():
            write_atomically(folder.path / name, content)
        self._models.pop(files.cell, None)

    def _forget(self, generator: Any) -> None:
        task = self._tasks.pop(generator)
        if task in self._locks:
            self._locks.pop(task).release()
