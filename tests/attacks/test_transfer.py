"""Attacks crafted on one model and held against another."""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn

from noiseopt.attacks import FGSM, PGD, Transfer
from noiseopt.concepts import Perturbation, clean


class Untouchable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError("a black-box attack asked the model under attack")


def test_only_the_surrogate_is_asked(noisy: nn.Module, images: Tensor, labels: Tensor) -> None:
    attack = PGD(eps=0.1, step_size=0.03, steps=4, draws=2)
    samples = torch.arange(50, 62)
    expected = attack(noisy, images, labels, samples=samples)
    transfer = Transfer(attack, noisy)
    assert isinstance(transfer, Perturbation)
    assert torch.equal(transfer(Untouchable(), images, labels, samples=samples), expected)
    assert torch.equal(transfer(Untouchable(), images, labels), attack(noisy, images, labels))


def test_it_describes_itself_in_json(mlp: nn.Module, noisy: nn.Module) -> None:
    transfer = Transfer(FGSM(eps=0.1), mlp)
    described = transfer.parameters()
    assert json.loads(json.dumps(described)) == described
    assert described["attack"] == "fgsm"
    assert described["eps"] == 0.1
    assert described["surrogate"]["parameters"] == sum(p.numel() for p in mlp.parameters())
    assert "Linear" not in repr(transfer), "a module's repr fills pages"
    assert Transfer(FGSM(eps=0.1), noisy).parameters()["surrogate"] != described["surrogate"]


def test_the_weights_are_part_of_the_description(mlp: nn.Module) -> None:
    before = Transfer(FGSM(eps=0.1), mlp).parameters()
    assert Transfer(FGSM(eps=0.1), mlp).parameters() == before
    with torch.no_grad():
        mlp[1].weight[0, 0] += 1e-6
    assert Transfer(FGSM(eps=0.1), mlp).parameters() != before


def test_any_perturbation_can_be_transferred(mlp: nn.Module, images: Tensor, labels: Tensor) -> None:
    transfer = Transfer(clean, nn.Flatten())  # a surrogate without parameters
    assert torch.equal(transfer(mlp, images, labels), images)
    assert transfer.parameters()["attack"] == "clean"


def test_batch_normalisation_does_not_learn_from_attacks(images: Tensor, labels: Tensor) -> None:
    size = images[0].numel()
    surrogate = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(size), nn.Linear(size, 10)).to(images.dtype).train()
    attack = Transfer(FGSM(eps=0.1), surrogate)
    first = attack(surrogate, images, labels)
    assert torch.equal(attack(surrogate, images, labels), first)
    assert surrogate.training
    assert not surrogate[1].running_mean.any()


def test_a_plain_function_can_be_transferred(mlp: nn.Module, images: Tensor, labels: Tensor) -> None:
    transfer = Transfer(lambda model, images, labels: images.flip(0), mlp)  # type: ignore[arg-type]
    assert torch.equal(transfer(mlp, images, labels), images.flip(0))
    assert json.dumps(transfer.parameters())
