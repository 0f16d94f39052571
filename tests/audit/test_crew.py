from __future__ import annotations

from typing import Any

import pytest

from noiseopt.audit import Verdict
from noiseopt.audit.crew import inspect
from noiseopt.errors import UserError
from noiseopt.experiments.cells import Training
from noiseopt.experiments.messages import Broken, Done, Message, Over, Task
from tests.experiments.crews import Player

NET: Any = None  # which nobody looks at
TWO = [Training(NET, "MLP", seed, epochs=1, hash=str(seed), own_seed=seed) for seed in (0, 1)]


class Crew(Player):
    """Tells this of every task."""

    def __init__(self, *told: Message) -> None:
        super().__init__(size=2)
        self._told = told

    def play(self, task: Task) -> list[Message]:
        return list(self._told)


def test_a_network_whose_worker_dies_is_tried_again_and_then_named() -> None:
    crew = Crew(Over("killed by signal 9"))
    with pytest.raises(
        UserError, match=r"MLP, seed \d \(and 1 more\): a worker must live until its .* got killed by"
    ) as e:
        inspect(TWO, crew, keep=lambda *_: None, progress=lambda *_: None)
    assert "fewer --workers" in str(e.value)
    assert [task.cells[0] for task in crew.tasks].count("MLP, seed 0") == crew.tries


def test_a_network_that_cannot_be_audited_stops_no_other() -> None:
    kept: list[str] = []
    verdict = object.__new__(Verdict)

    class OneBroken(Crew):
        def play(self, task: Task) -> list[Message]:
            (title,) = task.cells
            if title == "MLP, seed 0":
                return [Broken.by(UserError("logits must be finite", got="nan", fix="train on"), title), Over()]
            return [Done(title, verdict, 0.0), Over()]

    with pytest.raises(UserError, match=r"^MLP, seed 0: logits must be finite; got nan; fix: train on"):
        inspect(TWO, OneBroken(), keep=lambda network, _: kept.append(network.title), progress=lambda *_: None)
    assert kept == ["MLP, seed 1"]


def test_what_a_worker_raised_is_raised_here() -> None:
    broken = Broken.by(UserError("logits must be finite", got="nan", fix="train on"), "MLP, seed 0")
    rule = r"MLP, seed 0 \(and 1 more\): logits must be finite; got nan; fix: train on"
    with pytest.raises(UserError, match=rule):
        inspect(TWO, Crew(broken, Over()), keep=lambda *_: None, progress=lambda *_: None)
