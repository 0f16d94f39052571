"""Gaussian noise of any strength, and of an asked distortion."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from noiseopt.corruptions import RandomNoise, random_noise_at
from noiseopt.distortions import distortion
from noiseopt.errors import UserError
from noiseopt.evaluate import evaluate

IDS = torch.arange(64) * 977 + 5
IMAGES = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
GREY = torch.full((64, 1, 16, 16), 0.5)


def noisy(noise: RandomNoise, images: Tensor = IMAGES, ids: Tensor | None = IDS) -> Tensor:
    return noise(nn.Identity(), images, torch.zeros(len(images), dtype=torch.int64), samples=ids)


def test_it_is_normal_of_the_asked_deviation_and_clipped() -> None:
    move = noisy(RandomNoise(std=0.1), GREY) - GREY
    assert move.std().item() == pytest.approx(0.1, rel=0.03)
    assert (move.abs() < 0.1).float().mean().item() == pytest.approx(0.683, abs=0.02)
    loud = noisy(RandomNoise(std=3.0))
    assert (loud.min(), loud.max()) == (0, 1)
    assert torch.equal(noisy(RandomNoise(std=0.0)), IMAGES)


def test_an_image_gets_the_same_noise_in_any_batch_and_each_its_own() -> None:
    noise = RandomNoise(std=0.2, seed=4)
    whole = noisy(noise)
    assert torch.equal(
        torch.cat([noisy(noise, i, s) for i, s in zip(IMAGES.split(7), IDS.split(7), strict=True)]), whole
    )
    assert not torch.equal(whole, noisy(RandomNoise(std=0.2, seed=5)))
    assert not torch.equal(whole, noisy(noise, ids=IDS + 1))
    moves = (noisy(noise, GREY) - GREY).flatten(1)
    assert torch.corrcoef(moves).triu(1).abs().max() < 0.35
    # Twice the strength is the same noise, twice as far.
    torch.testing.assert_close(
        noisy(RandomNoise(std=0.04, seed=4), GREY) - 0.5, 2 * (noisy(RandomNoise(std=0.02, seed=4), GREY) - 0.5)
    )


def test_the_distortion_asked_for_is_measured_over_the_whole_set() -> None:
    noise = random_noise_at(0.1, IMAGES, seed=2, samples=IDS)
    assert distortion(IMAGES, noisy(noise)) == pytest.approx(0.1, abs=1e-7)
    parts = [noisy(noise, i, s) for i, s in zip(IMAGES.split(10), IDS.split(10), strict=True)]
    assert distortion(IMAGES, torch.cat(parts)) == pytest.approx(0.1, abs=1e-7)
    # It is the set that has it, not every image.
    assert distortion(IMAGES[:1], noisy(noise)[:1]) != pytest.approx(0.1, abs=1e-5)


def test_it_is_evaluated_and_recorded() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
    record = evaluate(model, (IMAGES, torch.zeros(64, dtype=torch.int64)), random_noise_at(0.1, IMAGES))
    assert record.perturbation == "random_noise"
    assert record.parameters["distortion"] == 0.1
    assert json.loads(json.dumps(record.parameters)) == record.parameters
    assert RandomNoise(std=0.1).parameters() == {"std": 0.1, "seed": 0}


def test_errors_tell_what_is_wrong() -> None:
    for wrong in (-0.1, float("inf"), float("nan"), "0.1", True):
        with pytest.raises(UserError, match="std must be"):
            RandomNoise(std=wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="seed must be"):
        RandomNoise(std=0.1, seed=0.5)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="seed must be"):
        random_noise_at(0.1, IMAGES, seed="0")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="within reach"):
        random_noise_at(0.9, IMAGES)
    with pytest.raises(UserError, match="63 samples for 64 images"):
        random_noise_at(0.1, IMAGES, samples=IDS[:63])
    with pytest.raises(UserError, match=r"lie in \[0, 1\]"):
        random_noise_at(0.1, IMAGES * 255)
