"""How much noise `inject` starts with, and who shares it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from noiseopt.errors import UserError
from noiseopt.noise import inject, sigmas, split_parameters, stream


def test_shared_sigma_has_the_summed_gradient(images: Tensor, convnet: nn.Module) -> None:
    whole, shared = (
        inject(convnet, example_input=images, where="conv", init=0.5, per=p) for p in ("neuron", "channel")
    )
    for net in (whole, shared):
        with stream(net, seed=1, samples=torch.arange(6)):
            net(images).square().sum().backward()
    expected = sigmas(whole)["0"].grad.sum((1, 2), keepdim=True)  # type: ignore[union-attr]
    torch.testing.assert_close(sigmas(shared)["0"].grad, expected)


def test_starts() -> None:
    wide = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.Flatten(), nn.Linear(64 * 64, 2000))
    example = torch.rand(2, 1, 8, 8)
    published = sigmas(inject(wide, example_input=example, init="published"))
    assert published["2"].std().item() == pytest.approx(1, abs=0.1)
    # Xavier-normal of [64, 8, 8]: fan in 8·8, fan out 64·8.
    assert published["0"].std().item() == pytest.approx((2 / (64 + 512)) ** 0.5, rel=0.1)
    normal = sigmas(inject(wide, example_input=example, init="normal"))
    assert normal["0"].std().item() == pytest.approx(1, abs=0.1)
    fixed = inject(wide, example_input=example, sigma=1.0)
    assert (sigmas(fixed)["0"] == 1).all()
    assert split_parameters(fixed)[1] == []
    one, two = (sigmas(inject(wide, example_input=example, seed=s))["0"] for s in (1, 2))
    assert not torch.equal(one, two)


def test_learned_mean_is_a_weight(convnet: nn.Module, images: Tensor) -> None:
    net = inject(convnet, example_input=images, mean=True)
    weights, learned = split_parameters(net)
    assert len(learned) == 3
    assert len(weights) == len(list(convnet.parameters())) + 3
    net(images).sum().backward()
    assert all(p.grad is not None for p in weights)


def levels(net: nn.Module) -> dict[str, float]:
    return {name: s.flatten()[0].item() for name, s in sigmas(net).items()}


@pytest.mark.parametrize(
    ("sigma", "expected"),
    [
        ([3, 1, 0], {"0": 3.0, "4": 1.0}),
        ((0, 0.5, 2), {"4": 0.5, "6": 2.0}),
        ({"4": 2, "*": 1}, {"0": 1.0, "4": 2.0, "6": 1.0}),
        ({"6": 0.5}, {"6": 0.5}),
        ({"[04]": 1, "4": 0}, {"0": 1.0}),
    ],
)
def test_a_layer_has_the_sigma_that_it_was_given(
    convnet: nn.Module, images: Tensor, sigma: Any, expected: dict[str, float]
) -> None:
    net = inject(convnet, example_input=images, sigma=sigma)
    assert levels(net) == expected
    one = inject(convnet, example_input=images, sigma=1.0, seed=3)
    each = inject(convnet, example_input=images, sigma=[1, 1, 1], seed=3)
    assert torch.equal(one(images), each(images))


@pytest.mark.parametrize(
    ("sigma", "message"),
    [
        ([3, 1], "one for each of: 0, 4, 6"),
        ({"5": 1}, "choose from: 0, 4, 6"),
        ([0, 0, 0], "above 0 in some layer"),
        ([1, -1, 1], "at least 0"),
        ({"[04]": 1, "[46]": 2}, "agree about a layer"),
    ],
)
def test_numbers_that_fit_no_layers_are_refused(convnet: nn.Module, images: Tensor, sigma: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        inject(convnet, example_input=images, sigma=sigma)


@pytest.mark.parametrize("sigma", ["learned", 0.7])
@pytest.mark.parametrize(
    ("per", "shapes"),
    [
        ("neuron", [(4, 12, 12), (10,), (5,)]),
        ("channel", [(4, 1, 1), (10,), (5,)]),
        ("layer", [(1, 1, 1), (1,), (1,)]),
    ],
)
def test_what_shares_a_sigma_is_per(
    convnet: nn.Module, images: Tensor, sigma: Any, per: str, shapes: list[tuple[int, ...]]
) -> None:
    net = inject(convnet, example_input=images, sigma=sigma, init=0.7, per=per, seed=2)
    assert [tuple(s.shape) for s in sigmas(net).values()] == shapes
    free = inject(convnet, example_input=images, sigma=sigma, init=0.7, per="neuron", seed=2)
    torch.testing.assert_close(net(images), free(images))  # the same noise, whoever shares its σ
    if sigma == "learned":
        for one in (net, free):
            with stream(one, seed=1, samples=torch.arange(len(images))):
                one(images).square().sum().backward()
        for shared, own in zip(sigmas(net).values(), sigmas(free).values(), strict=True):
            assert shared.grad is not None
            assert own.grad is not None
            torch.testing.assert_close(shared.grad, own.grad.sum_to_size(shared.shape), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (0, "must not start at 0"),
        (torch.tensor(0.0), "must not start at 0"),
        (1e-60, "must not start at 0"),
        (None, "a finite number, or a word; got None"),
        (float("nan"), "a finite number, or a word; got nan"),
    ],
)
def test_a_learned_sigma_starts_where_it_has_a_gradient(
    convnet: nn.Module, images: Tensor, init: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        inject(convnet, example_input=images, init=init)
    assert inject(convnet, example_input=images, init=torch.tensor(0.5))[0].noise.sigma.mean() == 0.5  # type: ignore
