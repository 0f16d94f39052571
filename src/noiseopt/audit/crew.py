"""Audits of several models at once: what a worker does, and who gives the workers their models."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from noiseopt.audit.running import Progress, audit
from noiseopt.audit.settings import Auditing
from noiseopt.audit.verdict import Verdict
from noiseopt.data import Dataset
from noiseopt.errors import UserError
from noiseopt.experiments.cells import Trained
from noiseopt.experiments.executors import Crew
from noiseopt.experiments.messages import Broken, Done, Message, Over, Progressed, Task, Tell
from noiseopt.experiments.work import Setting, Worker, one_by_one


@dataclass(frozen=True)
class Inspection(Setting):
    """What the workers of an audit have in common."""

    images: int | None
    """So many test images, the first; None: all."""
    auditing: Auditing
    noise: bool
    """False: taken out before."""
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
        self._networks = {network.title: network for network in worker.cells.networks}

    def run(self, task: Task, tell: Tell) -> None:
        one_by_one(task, tell, lambda title: self._audit(title, tell))

    def _audit(self, title: str, tell: Tell) -> Verdict:
        """With draws of the network's own, so that an interval over seeds has those of the audit in it, too."""
        network, setting = self._networks[title], self.setting
        return audit(
            self._worker.models[network],
            self._images,
            replace(setting.auditing, seed=setting.auditing.seed + network.seed),
            noise=setting.noise,
            folder=Path(setting.folder),
            label=network.label,
            model_seed=network.seed,
            batch_size=setting.batch_size,
            progress=lambda at: tell(Progressed(title, at)),
        )


def test_images(worker: Worker, images: int | None) -> Dataset:
    """The first of the test images, which a split has put in random order, on the worker's device."""
    test = worker.data.test
    chosen = test if images is None or images >= len(test) else test.span(0, images)
    return chosen.to(worker.device)


def inspect(
    networks: Sequence[Trained],
    crew: Crew,
    *,
    keep: Callable[[Trained, Verdict], None],
    progress: Callable[[Trained, Progress | None], None],
) -> list[Verdict]:
    """Audit them all; the verdicts in their order. `keep` is given each as soon as there is one, and `progress` None
    then.

    Raises what auditing a network raised, and UserError where one ends its worker `crew.tries` times; but the others
    are audited first.
    """
    by_title = {network.title: network for network in networks}
    verdicts: dict[str, Verdict] = {}
    waiting = deque(by_title)
    deaths: Counter[str] = Counter()
    failed: dict[str, Exception] = {}

    def hear(task: Task, message: Message) -> None:
        (title,) = task.cells
        match message:
            case Progressed(at=Progress() as at):
                progress(by_title[title], at)
            case Done(result=Verdict() as verdict):
                verdicts[title] = verdict
                keep(by_title[title], verdict)
                progress(by_title[title], None)
            case Broken():
                failed[title] = message.exception()
            case Over() if title not in verdicts and title not in failed:
                deaths[title] += 1
                if deaths[title] >= crew.tries:
                    fix = "free memory, or use fewer --workers; then go on"
                    failed[title] = UserError("a worker must live until its audit is done", got=message.reason, fix=fix)
                else:
                    waiting.appendleft(title)

    while waiting or crew.running:
        while waiting and crew.running < crew.size:
            crew.start(Task((waiting.popleft(),)))
        crew.attend(hear)
    for title, error in failed.items():
        if isinstance(error, UserError):
            raise error.about(title if len(failed) == 1 else f"{title} (and {len(failed) - 1} more)") from error
        raise error
    return [verdicts[title] for title in by_title]
