"""What a network takes over from one that was trained before it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from noiseopt.errors import UserError
from noiseopt.models import build
from noiseopt.noise import ZOO, continue_from, inject, sigmas


@pytest.mark.parametrize("kind", ["smoothing", "pixels"])
def test_weights_are_carried_over_behind_noise_and_out_from_behind_it(kind: str) -> None:
    def net(options: dict[str, Any] | None = None) -> nn.Module:
        plain = build("mlp", hidden=[4], seed=0 if options is None else 1)
        return plain if options is None else ZOO[kind](plain, example_input=torch.rand(2, 1, 28, 28), **options)

    trained, behind = net(), net({})
    continue_from(behind, trained)
    assert all(torch.equal(behind.state_dict()[f"model.{name}"], value) for name, value in trained.state_dict().items())
    out = build("mlp", hidden=[4], seed=2)
    continue_from(out, behind)
    assert all(torch.equal(out.state_dict()[name], value) for name, value in trained.state_dict().items())


@pytest.mark.parametrize(("before", "after"), [("fixed", "fixed"), ("learned", "fixed"), ("fixed", "learned")])
def test_noise_that_is_not_learned_is_carried_nowhere(before: Any, after: Any) -> None:
    def net(sigma: Any, init: float) -> nn.Module:
        options: dict[str, Any] = {"sigma": init} if sigma == "fixed" else {"sigma": "learned", "init": init}
        return inject(build("mlp", hidden=[4], seed=0), example_input=torch.rand(2, 1, 28, 28), **options)

    trained, going_on = net(before, 1.0), net(after, 0.5)
    continue_from(going_on, trained)
    assert all(bool((sigma == 0.5).all()) for sigma in sigmas(going_on).values())
    learned = net("learned", 0.5)
    continue_from(learned, net("learned", 1.0))
    assert all(bool((sigma == 1.0).all()) for sigma in sigmas(learned).values())


def test_a_network_of_another_shape_carries_nothing_over() -> None:
    with pytest.raises(UserError, match=r"hidden1\.weight has no partner"):
        continue_from(build("mlp", hidden=[5], seed=0), build("mlp", hidden=[4], seed=0))
