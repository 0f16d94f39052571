"""Corruptions as Perturbations: an image is corrupted alike in any batch."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from noiseopt.concepts import Perturbation
from noiseopt.corruptions import CORRUPTIONS, Corruption
from noiseopt.errors import UserError

IDS = torch.arange(64) * 977 + 5
IMAGES = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
names = pytest.mark.parametrize("name", CORRUPTIONS)


def corrupt(corruption: Corruption, rows: Tensor | slice = slice(None), ids: Tensor | None = IDS) -> Tensor:
    images = IMAGES[rows]
    labels = torch.zeros(len(images), dtype=torch.int64)
    return corruption(nn.Identity(), images, labels, samples=None if ids is None else ids[rows])


@names
def test_an_image_is_corrupted_alike_in_any_batch(name: str) -> None:
    corruption = Corruption(name, severity=4, seed=7)
    whole = corrupt(corruption)
    for size in (1, 7, 32):  # the whole is made by several threads, these are not
        parts = [corrupt(corruption, slice(start, start + size)) for start in range(0, 64, size)]
        assert torch.equal(torch.cat(parts), whole)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(2))
    assert torch.equal(corrupt(corruption, order), whole[order])
    assert torch.equal(corrupt(Corruption(name, severity=4, seed=7)), whole)


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name != "contrast"])
def test_seeds_samples_and_severities_have_draws_of_their_own(name: str) -> None:
    one = corrupt(Corruption(name, severity=3))
    assert not torch.equal(one, corrupt(Corruption(name, severity=3, seed=1)))
    assert not torch.equal(one, corrupt(Corruption(name, severity=3), ids=IDS + 1))
    assert torch.equal(
        corrupt(Corruption(name, severity=3), ids=None), corrupt(Corruption(name, severity=3), ids=torch.arange(64))
    )
    same = torch.full((2, 3, 32, 32), 0.5) * torch.linspace(0.1, 1, 32)
    first, second = Corruption(name, severity=3)(nn.Identity(), same, torch.zeros(2))
    assert not torch.equal(first, second)


def test_severities_do_not_share_draws() -> None:
    grey = torch.full((20, 1, 32, 32), 0.5)
    noise = [Corruption("gaussian_noise", severity=s)(nn.Identity(), grey, torch.zeros(20)) - 0.5 for s in (3, 4)]
    correlation = torch.corrcoef(torch.stack([n.flatten() for n in noise]))[0, 1]
    assert abs(correlation.item()) < 0.03  # 1 if they did


@names
def test_it_is_a_perturbation_that_tells_its_settings(name: str) -> None:
    corruption = Corruption(name, severity=2, seed=3)
    assert isinstance(corruption, Perturbation)
    assert dataclasses.asdict(corruption) == {"name": name, "severity": 2, "seed": 3}
    assert corruption == Corruption(name, severity=2, seed=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        corruption.severity = 3  # type: ignore[misc]


def test_errors_come_when_it_is_made() -> None:
    with pytest.raises(UserError, match=r"one of gaussian_noise, impulse_noise, glass_blur, contrast; got fog"):
        Corruption("fog", severity=1)
    with pytest.raises(UserError, match="severity must be"):
        Corruption("contrast", severity=0)
    with pytest.raises(UserError, match="seed must be a whole number"):
        Corruption("contrast", severity=1, seed=0.5)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="63 samples for 64 images"):
        Corruption("gaussian_noise", severity=1)(nn.Identity(), IMAGES, torch.zeros(64), samples=IDS[:63])
