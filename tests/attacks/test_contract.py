"""What every attack promises, on every kind of model."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import Tensor, nn

from noiseopt.attacks import ATTACKS, LBFGS
from noiseopt.concepts import Perturbation
from noiseopt.errors import UserError
from tests.attacks.conftest import MODELS

SETTINGS: dict[str, dict[str, object]] = {
    "fgsm": {"eps": 0.1, "draws": 2},
    "pgd": {"eps": 0.1, "step_size": 0.05, "steps": 3, "draws": 2},
    "lbfgs": {"steps": 4, "search_steps": 2, "draws": 2},
    "sign_then_gradient": {"eps": 0.1, "c": 0.5, "draws": 2},
    "apgd": {"eps": 0.1, "steps": 5, "restarts": 2, "draws": 2},
    "square": {"eps": 0.1, "queries": 12, "draws": 2},
}


def attack_named(name: str) -> Perturbation:
    if name == "lbfgs paper":
        return LBFGS(protocol="paper", lr=0.1, steps=4)
    return ATTACKS[name](**SETTINGS[name])


def test_every_attack_is_tested_here() -> None:
    assert set(SETTINGS) == set(ATTACKS)


@pytest.fixture(params=[*ATTACKS, "lbfgs paper"])
def attack(request: pytest.FixtureRequest) -> Perturbation:
    return attack_named(request.param)


@pytest.mark.parametrize("model_name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_in_images_out(
    attack: Perturbation, model_name: str, dtype: torch.dtype, build, images: Tensor, labels: Tensor
) -> None:
    model = build(model_name).to(dtype)
    images = images.to(dtype).requires_grad_()
    before = images.detach().clone()
    attacked = attack(model, images, labels)
    assert attacked.shape == images.shape
    assert attacked.dtype == dtype
    assert not attacked.requires_grad
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert torch.equal(images, before)
    assert images.grad is None
    assert (attacked != images).any()
    assert torch.equal(attack(model, images, labels), attacked), "the same settings give the same images"
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_memory_layout_does_not_matter(attack: Perturbation, build, labels: Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 4)).double()
    images = torch.rand(12, 3, 6, 6, dtype=torch.float64)
    expected = attack(model, images, labels)
    last = images.to(memory_format=torch.channels_last)
    attacked = attack(model.to(memory_format=torch.channels_last), last, labels)
    torch.testing.assert_close(attacked, expected, rtol=0, atol=1e-6)


def test_works_inside_inference_mode(attack: Perturbation, noisy: nn.Module, images: Tensor, labels: Tensor) -> None:
    expected = attack(noisy, images, labels)
    with torch.inference_mode():
        inside = attack(noisy, images.clone(), labels.clone())
    torch.testing.assert_close(inside, expected)


def test_no_images_are_no_trouble(attack: Perturbation, noisy: nn.Module, images: Tensor, labels: Tensor) -> None:
    assert attack(noisy, images[:0], labels[:0]).shape == (0, 1, 6, 6)


def test_settings_make_the_attack_again(attack: Perturbation) -> None:
    settings = attack.parameters()  # type: ignore[attr-defined]
    assert json.loads(json.dumps(settings)) == settings
    assert ATTACKS[attack.name](**settings) == attack  # type: ignore[attr-defined]
    with pytest.raises(dataclasses.FrozenInstanceError):
        attack.seed = 3  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        type(attack)(0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y, s: (x * 255, y, s), "must be in"),
        (lambda x, y, s: (x - 0.5, y, s), "must be in"),
        (lambda x, y, s: (x * float("nan"), y, s), "must be in"),
        (lambda x, y, s: (x.half(), y, s), "float32 or float64"),
        (lambda x, y, s: ((x * 255).byte(), y, s), "float32 or float64"),
        (lambda x, y, s: (x, y[:5], s), "labels must be int64"),
        (lambda x, y, s: (x, y.int(), s), "labels must be int64"),
        (lambda x, y, s: (x, y + 4, s), "labels must be classes"),
        (lambda x, y, s: (x, y, s[:3]), "samples must be int64"),
    ],
)
def test_wrong_input_gets_an_error_that_helps(
    attack: Perturbation, change, message: str, mlp: nn.Module, images: Tensor, labels: Tensor
) -> None:
    wrong_images, wrong_labels, samples = change(images, labels, torch.arange(12))
    with pytest.raises(UserError, match=message):
        attack(mlp, wrong_images, wrong_labels, samples=samples)


def test_a_model_that_diverged_is_named_so(
    attack: Perturbation, mlp: nn.Module, images: Tensor, labels: Tensor
) -> None:
    with torch.no_grad():
        mlp[1].weight[0, 0] = float("nan")
    with pytest.raises(UserError, match="NaN"):
        attack(mlp, images, labels)


def test_a_model_in_training_mode_learns_nothing_from_an_attack(
    attack: Perturbation, images: Tensor, labels: Tensor
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(images.shape[1], 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.LazyLinear(4)).to(
        images.dtype
    )
    model(images)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attack(model.train(), images, labels)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model(images)
    assert not torch.equal(model.state_dict()["1.running_mean"], before["1.running_mean"])  # it does learn of its own
