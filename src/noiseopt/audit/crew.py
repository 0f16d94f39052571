"""Audits of several models at once: what a worker does, and who gives the workers their models."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from noiseopt.audit.running import Progress, audit
from noiseopt.audit.settings import Auditing
from noiseopt.audit.verdict import Verdict
from noiseopt.data import Dataset
from noiseopt.errors import UserError
from noiseopt.experiments.executors import Crew
from noiseopt.experiments.work import Broken, Done, Message, Over, Progressed, Setting, Task, Tell, Worker


@dataclass(frozen=True)
class Subject:
    """A trained model of a run."""

    label: str
    seed: int
    cell: str
    """The hash of what it is: of another recipe it is another."""

    @property
    def title(self) -> str:
        return f"{self.label}, seed {self.seed}"


@dataclass(frozen=True)
class Inspection(Setting):
    """What the workers of an audit have in common."""

    images: int | None
    """So many test images, the first; None: all."""
    auditing: Auditing
    folder: str
    batch_size: int

    def hire(self) -> Inspector:
        return Inspector(self, Worker(self))


class Inspector:
    """Has the test images and the trained models at hand, and audits one model after another."""

    def __init__(self, setting: Inspection, worker: Worker) -> None:
        self.setting = setting
        self._worker = worker
        self._images = test_images(worker, setting.images)
        self._networks = {cell.hash: cell for cell in worker.cells.networks}

    def run(self, task: Task, tell: Tell) -> None:
        for name in task.cells:
            clock = time.perf_counter()
            try:
                verdict = self._audit(name, tell)
            except Exception as error:
                tell(Broken.by(error, name))
            else:
                tell(Done(name, verdict, time.perf_counter() - clock))

    def _audit(self, name: str, tell: Tell) -> Verdict:
        network, setting = self._networks[name], self.setting
        return audit(
            self._worker.models[network],
            self._images,
            setting.auditing,
            folder=Path(setting.folder),
            label=network.label,
            model_seed=network.seed,
            batch_size=setting.batch_size,
            progress=lambda at: tell(Progressed(name, at)),
        )


def test_images(worker: Worker, images: int | None) -> Dataset:
    """The first of the test images, which a split has put in random order, on the worker's device."""
    test = worker.data.test
    chosen = test if images is None or images >= len(test) else test.span(0, images)
    return chosen.to(worker.device)


def inspect(
    subjects: Sequence[Subject],
    crew: Crew,
    *,
    keep: Callable[[Subject, Verdict], None],
    progress: Callable[[Subject, Progress | None], None],
) -> list[Verdict]:
    """Audit them all; the verdicts in the subjects' order. `keep` is given each as soon as there is one, and
    `progress` None then.

    Raises what auditing a model raised, and UserError where a model ends its worker `crew.tries` times.
    """
    by_cell = {subject.cell: subject for subject in subjects}
    verdicts: dict[str, Verdict] = {}
    waiting = deque(by_cell)
    deaths: Counter[str] = Counter()

    def hear(task: Task, message: Message) -> None:
        (name,) = task.cells
        match message:
            case Progressed(at=Progress() as at):
                progress(by_cell[name], at)
            case Done(result=Verdict() as verdict):
                verdicts[name] = verdict
                keep(by_cell[name], verdict)
                progress(by_cell[name], None)
            case Broken():
                raise message.exception()
            case Over() if name not in verdicts:
                deaths[name] += 1
                if deaths[name] >= crew.tries:
                    rule = f"{by_cell[name].title}: a worker must live until its audit is done"
                    raise UserError(rule, got=message.reason, fix="free memory, or use fewer --workers; then go on")
                waiting.appendleft(name)

    while waiting or crew.running:
        while waiting and crew.running < crew.size:
            crew.start(Task((waiting.popleft(),)))
        crew.attend(hear)
    return [verdicts[subject.cell] for subject in subjects]
