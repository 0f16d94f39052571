"""Sign noise of an asked distortion, and Eq. 3."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from noiseopt.attacks import FGSM, SignThenGradient, expected_gradient, sign_at, sign_curve
from noiseopt.attacks.gradient import noise_seed
from noiseopt.distortions import distortion
from noiseopt.errors import UserError
from noiseopt.evaluate import evaluate
from noiseopt.noise import noise

IDS = torch.tensor([70, 3, 500, 41, 8, 9, 12, 1, 2**40, 6, 5, 4])


@pytest.mark.parametrize("name", ["mlp", "relu mlp", "noisy cnn"])
def test_a_curve_is_fgsm_at_the_distortions_asked_for(name: str, build, images: Tensor, labels: Tensor) -> None:
    model = build(name)
    asked = [0.2, 0.0, 0.05, 0.1]
    noises = sign_curve(asked, model, images, labels, draws=2, seed=5, samples=IDS, batch_size=5)
    assert [n.distortion for n in noises] == asked
    for one in noises:
        attacked = one(model, images, labels, samples=IDS)
        assert distortion(images, attacked) == pytest.approx(one.distortion, abs=1e-8)
        assert attacked.min() >= 0
        assert attacked.max() <= 1
        if one.eps:
            fgsm = FGSM(eps=one.eps, draws=2, seed=5)(model, images, labels, samples=IDS)
            torch.testing.assert_close(attacked, fgsm)


def test_signs_belong_to_the_image_and_not_to_its_place(mlp: nn.Module, images: Tensor, labels: Tensor) -> None:
    one = sign_at(0.1, mlp, images, labels, samples=IDS)
    whole = one(mlp, images, labels, samples=IDS)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))[:7]
    assert torch.equal(one(mlp, images[order], labels[order], samples=IDS[order]), whole[order])
    for wrong in (IDS + 1, None):
        with pytest.raises(UserError, match="fixed set of images"):
            one(mlp, images, labels, samples=wrong)
    with pytest.raises(UserError, match="fixed set of images"):
        one(mlp, images[:, :, :5], labels, samples=IDS)
    for others in (images.flip(0), images.flip(3), images + 1e-3 * (images < 0.5)):
        with pytest.raises(UserError, match="fixed set of images"):
            one(mlp, others, labels, samples=IDS)


def test_it_is_evaluated_and_recorded(mlp: nn.Module, images: Tensor, labels: Tensor) -> None:
    accuracies = [
        (record := evaluate(mlp, (images, labels), one)).value for one in sign_curve([0.0, 0.3], mlp, images, labels)
    ]
    assert accuracies[1] < accuracies[0] == 1.0  # the labels are what the model says
    assert record.perturbation == "sign_noise"
    assert record.parameters["distortion"] == 0.3
    assert json.loads(json.dumps(record.parameters)) == record.parameters


def test_dropout_is_off_and_the_noise_is_as_it_is_switched(noisy: nn.Module, images: Tensor, labels: Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(36, 4)).double().train()
    one, same = (sign_at(0.1, model, images, labels) for _ in range(2))
    assert model.training
    assert torch.equal(one.signs, same.signs)
    with noise(noisy, on=False):
        silent = [sign_at(0.1, noisy, images, labels, seed=s).signs for s in (0, 1)]
    loud = [sign_at(0.1, noisy, images, labels, seed=s).signs for s in (0, 1)]
    assert torch.equal(*silent)
    assert not torch.equal(*loud)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distortions": [0.1, 1.0]}, "a distortion is a number"),
        ({"distortions": [0.1, 0.99]}, "within reach"),
        ({"draws": 0}, "draws must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"seed": -1}, "seed must be"),
        ({"samples": torch.zeros(12, dtype=torch.int64)}, "each its own"),
    ],
)
def test_wrong_settings_get_an_error_that_helps(
    change: dict, message: str, mlp, images: Tensor, labels: Tensor
) -> None:
    settings = {"distortions": [0.1], "model": mlp, "images": images, "labels": labels, **change}
    with pytest.raises(UserError, match=message):
        sign_curve(**settings)


def test_no_images_have_no_curve(mlp: nn.Module, images: Tensor, labels: Tensor) -> None:
    with pytest.raises(UserError, match="one image or more"):
        sign_curve([0.1], mlp, images[:0], labels[:0])


@pytest.mark.parametrize("name", ["mlp", "noisy mlp"])
def test_equation_3(name: str, build, images: Tensor, labels: Tensor) -> None:
    model = build(name)
    attacked = SignThenGradient(eps=0.1, c=0.5, draws=3, seed=2)(model, images, labels, samples=IDS)
    first = FGSM(eps=0.1, draws=3, seed=2)(model, images, labels, samples=IDS)
    # The second gradient is that of the noisy image, under draws of its own.
    gradient = expected_gradient(model, first, labels, draws=3, seed=noise_seed(2), samples=IDS, first_draw=3)
    torch.testing.assert_close(attacked, (first + 0.5 * gradient).clamp(0, 1))
    assert not torch.allclose(attacked, first)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"eps": 0}, "eps must"), ({"eps": 8}, "eps=8/255"), ({"c": 0.0}, "c must"), ({"draws": 1.5}, "draws must")],
)
def test_its_settings_are_checked(change: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SignThenGradient(**{"eps": 0.1, "c": 1.0, **change})
