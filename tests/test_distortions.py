"""Eq. 2, and the strength of noise that has an asked distortion."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from noiseopt.attacks import sign_at
from noiseopt.corruptions import random_noise_at
from noiseopt.data import load
from noiseopt.distortions import distortion, sign_strengths, strength
from noiseopt.errors import UserError
from noiseopt.models import build


def images_of(kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(40, 3, 9, 7, generator=generator)
    return {"uniform": uniform, "8-bit": (uniform * 255).round() / 255, "black and white": uniform.round()}[kind]


KINDS = ("uniform", "8-bit", "black and white")


def test_distortion_is_equation_2() -> None:
    images = images_of("uniform")
    perturbed = (images + 0.3 * torch.randn_like(images)).clamp(0, 1)
    n, c, h, w = images.shape
    by_hand = (perturbed - images).abs().double().sum() / n / c / h / w
    assert distortion(images, perturbed) == pytest.approx(float(by_hand), rel=1e-6)
    # Memory order is nobody's business.
    last = images.to(memory_format=torch.channels_last)
    assert distortion(last, perturbed) == pytest.approx(float(by_hand), rel=1e-6)


def test_distortion_takes_more_pixels_than_it_looks_at_together() -> None:
    images = torch.zeros(3, 1, 400, 400)
    perturbed = images.clone()
    perturbed[-1] = 0.75
    assert distortion(images, perturbed) == pytest.approx(0.25)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asked", [0.0, 1e-4, 0.01, 0.1, 0.2, 0.45])
def test_the_distortion_asked_for_is_measured(kind: str, asked: float) -> None:
    images = images_of(kind)
    normal = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    for direction in (normal, normal.sign().to(torch.int8), -images.sub(0.5).sign()):
        s = strength(asked, images, direction)
        assert distortion(images, (images + s * direction).clamp(0, 1)) == pytest.approx(asked, abs=1e-7)
        if set(direction.unique().tolist()) <= {-1, 0, 1}:
            assert sign_strengths([asked, 0.0], images, direction) == pytest.approx([s, 0.0], abs=1e-6)


def test_half_of_the_noise_on_black_pixels_is_cut_off() -> None:
    black, up = torch.zeros(1, 1, 1, 4), torch.tensor([1.0, -1.0, 1.0, 0.0]).view(1, 1, 1, 4)
    assert strength(0.2, black, up) == pytest.approx(0.4)
    assert sign_strengths([0.2, 0.5, 0.1], black, up) == pytest.approx([0.4, 1.0, 0.2])


@pytest.mark.parametrize("asked", [-0.1, 1.0, float("nan"), "0.1", None, True])
def test_a_distortion_is_a_number_from_0_to_1(asked: object) -> None:
    images = images_of("uniform")
    for solve in (lambda: strength(asked, images, images), lambda: sign_strengths([asked], images, images.sign())):  # type: ignore[arg-type, list-item]
        with pytest.raises(UserError, match=r"a distortion is a number in \[0, 1\)"):
            solve()


def test_what_no_noise_can_do_is_said() -> None:
    grey = torch.full((2, 1, 3, 3), 0.5)
    with pytest.raises(UserError, match=r"within reach.*got 0.6, of at most 0.5"):
        strength(0.6, grey, torch.ones_like(grey))
    with pytest.raises(UserError, match=r"within reach.*got 0.1, of at most 0;"):
        sign_strengths([0.1], grey, torch.zeros_like(grey))
    with pytest.raises(UserError, match="not empty"):
        strength(0.1, grey[:0], grey[:0])
    with pytest.raises(UserError, match=r"\(2, 1, 3, 3\) and \(1, 1, 3, 3\)"):
        distortion(grey, grey[:1])


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_both_noises_on_real_images(name: str, shared_data: Path, tmp_path: Path) -> None:
    data = load(name, part="test", data_dir=shared_data, cache_dir=tmp_path)
    images, labels, ids = data.batch(torch.arange(500))
    model = build("lenet", seed=0, in_channels=images.shape[1], image_size=images.shape[-1]).eval()
    for asked in (0.1, 0.2):
        for noise in (
            random_noise_at(asked, images, seed=3, samples=ids),
            sign_at(asked, model, images, labels, samples=ids),
        ):
            measured = distortion(images, noise(model, images, labels, samples=ids))
            assert measured == pytest.approx(asked, abs=0.0005 / 100)
