"""AutoAttack by its authors' library, as part of an audit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from noiseopt import inject, predict
from noiseopt.audit import Auditing, audit, library
from noiseopt.audit.library import Library, check_installed
from noiseopt.data import Dataset
from noiseopt.errors import UserError
from noiseopt.noise import has_noise


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, 5))


@pytest.mark.parametrize("version", ["standard", "rand"])
def test_it_fools_what_can_be_fooled_inside_the_ball(version: Any) -> None:
    pytest.importorskip("pyautoattack")
    model = inject(tiny(), example_input=torch.zeros(2, 1, 6, 6), sigma=0.01) if version == "rand" else tiny()
    images = torch.rand(3, 1, 6, 6)
    labels = model(images).argmax(dim=1)
    before = torch.random.get_rng_state()
    attack = Library(version=version, eps=0.4, classes=5)
    attacked = attack(model, images, labels)
    assert torch.equal(torch.random.get_rng_state(), before), "its seeds stay its own"
    assert (attacked - images).abs().max() <= 0.4 + 1e-6
    assert (model(attacked).argmax(dim=1) != labels).all()
    assert torch.equal(attack(model, images, labels), attacked)


def test_it_is_given_the_mean_over_draws_others_in_every_pass() -> None:
    model = inject(tiny(), example_input=torch.zeros(2, 1, 6, 6), sigma=1.0)
    images = torch.rand(3, 1, 6, 6)
    asked = library._Mean(model, 20, seed=7)
    first, second = (asked(images).softmax(-1) for _ in range(2))
    assert torch.allclose(first, predict(model, images, draws=20, seed=7), atol=1e-6)
    assert not torch.allclose(first, second, atol=1e-3)
    both = predict(model, images, draws=40, seed=7)
    assert torch.allclose((first + second) / 2, both, atol=1e-6), "the next draws"


def test_an_audit_makes_it_with_the_noise_on_and_off(
    noisy: nn.Module, small: Auditing, test_images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, bool]] = []

    def attack(self: Library, model: nn.Module, images: Tensor, labels: Tensor, *, samples: Tensor) -> Tensor:
        made.append((self.version, has_noise(model)))
        return torch.zeros_like(images)

    monkeypatch.setattr(Library, "__call__", attack)
    monkeypatch.setattr(library, "_autoattack", lambda: None)
    weak = replace(small, eps=0.01, queries=2, steps=2, apgd_steps=2, subset=2, draws=(1,), autoattack=True)
    verdict = audit(noisy, test_images.span(0, 20), weak)
    assert [line.key for line in verdict.lines][-2:] == ["autoattack-standard", "autoattack-rand"]
    assert made == [("standard", False), ("rand", True)]
    assert verdict.accuracy.value < 0.3, "who falls for it has fallen"


def test_three_classes_are_too_few() -> None:
    pytest.importorskip("pyautoattack")
    with pytest.raises(UserError, match="four classes"):
        check_installed(3)
