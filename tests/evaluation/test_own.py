"""Evaluation of what users bring: attacks, models and numbers of their own."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from noiseopt.attacks import PGD, Transfer
from noiseopt.concepts import Record
from noiseopt.data import Dataset
from noiseopt.errors import NoiseWarning, UserError
from noiseopt.evaluate import evaluate, predict
from noiseopt.noise import noise

LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))


class Signed:
    """An attack of one's own, as a newcomer writes it: one gradient, one step, in place."""

    def __init__(self, *, clip: bool = True) -> None:
        self.clip = clip

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = images.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(leaf), labels), leaf)
        images += 0.2 * gradient.sign()
        return images.clamp_(0, 1) if self.clip else images


def test_an_attack_of_ones_own_meets_the_same_noise_whatever_the_batch(net: nn.Module, data: Dataset) -> None:
    seen: list[Tensor] = []

    def look(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        seen.append(Signed()(model, images, labels))
        return seen[-1]

    for batch_size in (300, 300, 7):
        evaluate(net, data, look, batch_size=batch_size, draws=2)
    first, again, *parts = seen
    assert torch.equal(first, again)
    assert (first == torch.cat(parts)).float().mean() > 0.999  # signs of gradients of nearly 0 round either way


def test_an_attack_of_ones_own_changes_a_copy(net: nn.Module, data: Dataset) -> None:
    images = data.images / 255
    before = images.clone()
    evaluate(net, (images, data.labels), Signed(), draws=1)
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (Signed(clip=False), r"leaves the images in \[0, 1\]; got values from -0\.2 to 1\.2; fix: end it with .clamp"),
        (lambda m, x, y: x / 0, r"in \[0, 1\]; got values from nan to nan"),
        (lambda m, x, y: (x, y), "as one tensor of their shape.*; got tuple"),
        (lambda m, x, y: x.numpy(), "got ndarray"),
    ],
)
def test_an_attack_of_ones_own_is_held_to_the_rules(net: nn.Module, data: Dataset, attack: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(net, data, attack, draws=1)


def test_an_attack_may_work_in_another_precision(net: nn.Module, data: Dataset) -> None:
    assert evaluate(net, data, lambda m, x, y: x.double(), draws=2).value == evaluate(net, data, draws=2).value


class Restless(nn.Module):
    """Dropout that stays on."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.net(x), 0.5, training=True)


def test_randomness_of_the_models_own_is_said_and_repeats(data: Dataset) -> None:
    torch.manual_seed(0)
    model = Restless()
    state = torch.get_rng_state()
    with pytest.warns(NoiseWarning, match="two passes of this model differ"):
        one, other, third = (evaluate(model, data, seed=seed) for seed in (0, 0, 1))
    assert one == other
    assert one.value != third.value
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_is_as_it_is_switched_where_nothing_is_asked(net: nn.Module, data: Dataset) -> None:
    assert evaluate(net, data, draws=2).noise
    with noise(net, on=False):
        switched = evaluate(net, data, draws=2)
        assert torch.equal(predict(net, data.images / 255), predict(net, data.images / 255, noise=False))
        assert evaluate(net, data, draws=2, noise=True).noise
    assert switched == evaluate(net, data, draws=2, noise=False)
    assert not switched.noise


class Keyed(nn.Module):
    """An attack that is a module."""

    def forward(self, model: nn.Module, images: Tensor, labels: Tensor, *, samples: Tensor | None = None) -> Tensor:
        assert samples is not None
        return images


def wrapped(*args: Any, **options: Any) -> Tensor:
    assert options["samples"] is not None
    return args[1]


@pytest.mark.parametrize("attack", [Keyed(), wrapped, functools.partial(wrapped), Transfer(wrapped, LINEAR)])
def test_who_takes_samples_gets_them(data: Dataset, attack: Any) -> None:
    assert evaluate(LINEAR, data, attack).value == evaluate(LINEAR, data).value


def test_a_model_of_one_batch_size_is_measured(data: Dataset) -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return LINEAR(x.reshape(10, 64))

    assert evaluate(Fixed(), data, batch_size=10).value == evaluate(LINEAR, data).value


def test_numbers_of_numpy_are_numbers(data: Dataset) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    attack = PGD(eps=np.float32(0.1), step_size=np.float64(0.05), steps=np.int64(2))  # type: ignore[arg-type]
    record = evaluate(model, data, attack)
    assert Record.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"draws": 2.5}, "draws must be an integer"),
        ({"seed": -1}, "seed must be an integer in .*got -1"),
        ({"model": LINEAR, "data": (torch.rand(4, 1, 9, 9), torch.zeros(4).long())}, r"torch.float32 \[1, 9, 9\]"),
        ({"model": copy.deepcopy(LINEAR).half()}, "wrap it in a module that casts inside"),
        ({"model": nn.Conv2d(1, 4, 3)}, r"returns logits \[N, classes\]; got shape \(300, 4, 6, 6\)"),
    ],
)
def test_what_does_not_fit_is_said_first(net: nn.Module, data: Dataset, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(**({"model": net, "data": data} | change))
