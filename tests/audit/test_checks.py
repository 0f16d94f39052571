"""Each check by itself, from outcomes that are made up, and the direct questions to a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from noiseopt.audit import Auditing, checks, probes
from noiseopt.audit.checks import Check, Evidence
from noiseopt.audit.ledger import Ledger
from noiseopt.audit.probes import Slopes
from noiseopt.audit.steps import Kind, steps_of
from noiseopt.audit.voting import Votes, is_clear, vote
from noiseopt.chances import sign_test
from noiseopt.data import Dataset

IMAGES = 100
HONEST = {
    "clean": 98, "noise-off": 40, "one-step": 45, "steps-10": 36, "pgd-1": 36, "pgd-5": 33, "pgd-20": 32,
    "steps-100": 32, "pgd-100": 31, "square": 55, "far": 0,
}  # fmt: skip
"""How many of 100 images each attack leaves; the first so many, so that attacks agree as far as they can."""


def judged(left: dict[str, int], *, slopes: Slopes | None = None, **known: Any) -> dict[str, Check]:
    """The checks of a model with noise on which each attack leaves so many images."""
    settings, kind = Auditing(eps=0.1), Kind(noisy=True, classes=10, gradient=True, gradient_off=True)
    ledger = Ledger(IMAGES, None)
    rows = torch.arange(IMAGES)
    for key, count in {**HONEST, **left}.items():
        right = (rows < count).long()
        ledger.add(key, rows, Votes(right, 1 - right), None, 1.0)
    made = {step.key: step for step in steps_of(settings, kind)}
    evidence = Evidence(
        settings=settings,
        kind=kind,
        slopes=slopes or Slopes(98, 0, 98),
        ledger=ledger,
        subset=torch.ones(IMAGES, dtype=torch.bool),
        made=made,
        **{"hidden_randomness": False, "shared_draws": False, **known},
    )
    found = checks.checks_of(evidence)
    return {check.name: check for check in found}


def test_nothing_is_found_where_all_is_as_it_should_be() -> None:
    found = judged({})
    assert len(found) == 12
    assert not any(check.found for check in found.values())
    assert {name for name, check in found.items() if not check.masking} == {"draws-converged", "steps-converged"}


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("more-draws", {"pgd-1": 20}),
        ("more-steps", {"one-step": 20}),
        ("large-radius", {"far": 10}),
        ("black-box", {"square": 20}),
        ("noise-off", {"noise-off": 20}),
        ("draws-converged", {"pgd-100": 20, "square": 60}),
        ("steps-converged", {"steps-100": 20}),
    ],
)
def test_each_finding_comes_of_what_it_is_about(name: str, left: dict[str, int]) -> None:
    found = judged(left)
    assert [check.name for check in found.values() if check.found] == [name]
    assert str(next(iter(left.values()))) in found[name].sentence


@pytest.mark.parametrize(("name", "left"), [("black-box", 26), ("noise-off", 26), ("more-draws", 26)])
def test_a_few_images_are_chance(name: str, left: int) -> None:
    key = {"black-box": "square", "noise-off": "noise-off", "more-draws": "pgd-1"}[name]
    check = judged({key: left})[name]
    assert check.numbers["more"] == 5
    assert check.numbers["p"] == sign_test(5, 0) > 0.01
    assert not check.found


def test_large_radius_lets_a_stray_image_pass() -> None:
    assert [judged({"far": count})["large-radius"].found for count in (0, 2, 5, 8)] == [False, False, False, True]


@pytest.mark.parametrize(
    ("slopes", "names"),
    [
        (Slopes(98, 0, 98), set()),
        (Slopes(98, 1, 97), set()),
        (Slopes(98, 20, 78), {"vanishing"}),
        (Slopes(98, 98, 0), {"vanishing"}),
        (Slopes(98, 0, 60), set()),
        (Slopes(98, 0, 20), {"slope"}),
        (Slopes(5, 0, 0), {"slope"}),
    ],
)
def test_gradients_that_vanish_or_mislead_are_found(slopes: Slopes, names: set[str]) -> None:
    assert {check.name for check in judged({}, slopes=slopes).values() if check.found} == names


def test_noise_that_is_not_what_it_seems_is_found() -> None:
    for name, known in (("randomness", "hidden_randomness"), ("draws", "shared_draws")):
        assert [c.name for c in judged({}, **{known: True}).values() if c.found] == [name]


@pytest.mark.parametrize(
    ("name", "hidden", "shared", "gradient"),
    [
        ("scaled logits", False, False, True),
        ("detached noise", False, False, False),
        ("one draw", False, True, True),
        ("own noise", True, False, True),
    ],
)
def test_a_model_is_asked_directly(
    masked: Callable[[str], nn.Module], test_images: Dataset, name: str, hidden: bool, shared: bool, gradient: bool
) -> None:
    model = masked(name)
    images, labels, _ = test_images.batch(torch.arange(10))
    with torch.random.fork_rng():
        assert probes.has_hidden_randomness(model, images) == hidden
        assert probes.shares_draws(model, images) == shared
        assert probes.has_gradient(model, images, labels, noise=True) == gradient
    assert probes.has_gradient(model, images, labels, noise=False)


def test_an_honest_model_is_what_it_says(plain: nn.Module, noisy: nn.Module, test_images: Dataset) -> None:
    images, labels, ids = test_images.batch(torch.arange(40))
    for model in (plain, noisy):
        assert not probes.has_hidden_randomness(model, images)
        assert not probes.shares_draws(model, images)
        found = probes.slopes(model, images, labels, ids, draws=5, seed=0, batch_size=16)
        assert found.zero == 0
        assert found.true >= 38


def test_votes_are_of_the_label_and_the_runner_up() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]])
    counted = vote(_Says(logits), torch.zeros(2, 1, 2, 2), torch.tensor([0, 2]), draws=7, seed=0)
    assert (counted.right.tolist(), counted.other.tolist()) == ([1, 0], [0, 1])


@pytest.mark.parametrize(
    ("right", "other", "clear"), [(1, 0, True), (5, 0, False), (6, 0, True), (55, 45, False), (65, 35, True)]
)
def test_a_close_vote_is_not_clear(right: int, other: int, clear: bool) -> None:
    assert is_clear(right, other) is clear


class _Says(nn.Module):
    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits[: len(images)]
