from __future__ import annotations

from typing import Any

import pytest

from noiseopt.audit.crew import inspect
from noiseopt.errors import UserError
from noiseopt.experiments.cells import Training
from noiseopt.experiments.messages import Broken, Message, Over, Task
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
    with pytest.raises(UserError, match=r"MLP, seed 0: a worker must live until its audit is done; got killed by") as e:
        inspect(TWO, crew, keep=lambda *_: None, progress=lambda *_: None)
    assert "fewer --workers" in str(e.value)
    assert [task.cells[0] for task in crew.tasks].count("MLP, seed 0") == crew.tries


def test_what_a_worker_raised_is_raised_here() -> None:
    broken = Broken.by(UserError("logits must be finite", got="nan", fix="train on"), "MLP, seed 0")
    with pytest.raises(UserError, match="logits must be finite; got nan; fix: train on"):
        inspect(TWO, Crew(broken, Over()), keep=lambda *_: None, progress=lambda *_: None)
