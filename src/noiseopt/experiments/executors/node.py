"""The side of a Ray cluster's nodes: what one of its processes does with a task, and what it sends back."""

from __future__ import annotations

import queue
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from noiseopt.data import Dataset
from noiseopt.experiments.cells import Training
from noiseopt.experiments.events import EpochDone
from noiseopt.experiments.messages import Broken, Done, Message, Task
from noiseopt.experiments.models import ModelFolder
from noiseopt.experiments.work import Setting, Worker, perform

# As `history` writes them: the checkpoint first, of which the others are copies, and last the curves, which say that
# all are there.
_FILES = ("checkpoint.safetensors", "sigma.safetensors", "curves.jsonl")


@dataclass(frozen=True)
class Files:
    """The files of a model as they are after an epoch."""

    cell: str
    contents: dict[str, bytes]


def on_node(shared: list[Any], task: Task, checkpoints: dict[str, Any]) -> Iterator[Message | Files]:
    """What a Ray worker does: `Worker.run` in a folder of its own, what it tells as a generator.

    How many messages there are depends on the arguments alone: Ray counts on it when it runs a task again.
    """
    hire = cache(partial(_hired, *shared))
    told: queue.SimpleQueue[Message | Files | None] = queue.SimpleQueue()
    thread = threading.Thread(target=_work, args=(hire, task, checkpoints, told.put))
    thread.start()
    while (message := told.get()) is not None:
        yield message
    thread.join()


def _work(
    hire: Callable[[], Worker],
    task: Task,
    checkpoints: dict[str, Any],
    put: Callable[[Message | Files | None], None],
) -> None:
    def tell(message: Message) -> None:
        if isinstance(message, EpochDone | Done) and trained:
            contents = {name: (trained / name).read_bytes() for name in _FILES if (trained / name).exists()}
            put(Files(task.cells[0], contents))
        put(message)

    trained: Path | None = None
    runs_dir: str | None = None
    try:
        worker = hire()
        runs_dir = worker.setting.runs_dir
        cells = {cell.hash: cell for cell in worker.cells.trainings}
        if task.cells[0] in cells:
            trained = ModelFolder(runs_dir, cells[task.cells[0]]).path
        _lay_out(checkpoints, cells, runs_dir)
        perform(hire, task, tell)
    except Exception as error:
        for name in task.cells:
            put(Broken.by(error, name))
    finally:
        if runs_dir is not None:  # a model is read once, and then kept in memory
            shutil.rmtree(runs_dir, ignore_errors=True)
        put(None)


def _lay_out(checkpoints: dict[str, Any], cells: dict[str, Training], runs_dir: str) -> None:
    import ray

    for name, reference in checkpoints.items():
        folder = ModelFolder(runs_dir, cells[name])
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.checkpoint.write_bytes(ray.get(reference))


@lru_cache(maxsize=1)
def _hired(setting: Any, pool: Any) -> Worker:
    """The worker of this process, for the run whose objects these are; kept from task to task."""
    import ray

    settled: Setting = replace(ray.get(setting), runs_dir=tempfile.mkdtemp(prefix="noiseopt-"))
    return Worker(settled, pool=_unpacked(ray.get(pool)))


def packed(pool: Dataset) -> dict[str, Any]:
    """A data set as arrays, which Ray's processes on a node share without copies."""
    arrays = {name: getattr(pool, name) for name in ("images", "labels", "ids", "boxes")}
    plain = {"classes": pool.classes, "name": pool.name}
    return plain | {name: None if tensor is None else tensor.numpy() for name, tensor in arrays.items()}


def _unpacked(pack: dict[str, Any]) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the arrays cannot be written: nobody does
        parts: Any = {n: torch.from_numpy(v) if hasattr(v, "__array__") else v for n, v in pack.items()}
    return Dataset(**parts)
