"""LeNet is Caffe's, with dropout where Table 1 has it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from noiseopt.errors import UserError
from noiseopt.models import build, lenet
from noiseopt.noise import inject, sigmas

ALL = (0.2, 0.2, 0.2, 0.5, 0.5)


def test_caffes_architecture() -> None:
    net = build("lenet", seed=0)
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters() if p.dim() > 1}
    assert shapes == {
        "conv1.weight": (20, 1, 5, 5),
        "conv2.weight": (50, 20, 5, 5),
        "full.weight": (500, 800),
        "output.weight": (10, 500),
    }
    assert sum(p.numel() for p in net.parameters()) == 431_080  # as Caffe's model file has it
    assert [name for name, m in net.named_modules() if isinstance(m, nn.ReLU)] == ["activation"]
    assert not any(isinstance(m, nn.Dropout) for m in net.modules())
    images = torch.rand(3, 1, 28, 28)
    by_hand = images
    for name in ("conv1", "conv2"):
        layer = net.get_submodule(name)
        by_hand = nn.functional.max_pool2d(nn.functional.conv2d(by_hand, layer.weight, layer.bias), 2)
    by_hand = net.output(net.full(by_hand.flatten(1)).relu())  # type: ignore[operator]
    torch.testing.assert_close(net(images), by_hand)


@pytest.mark.parametrize(("name", "inputs"), [("conv1", 25), ("conv2", 500), ("full", 800), ("output", 500)])
def test_weights_start_as_caffes_xavier_filler_has_them(name: str, inputs: int) -> None:
    layer = build("lenet", seed=0).get_submodule(name)
    bound = math.sqrt(3 / inputs)
    assert 0.97 * bound < layer.weight.abs().max() <= bound  # type: ignore[operator, union-attr]
    assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.06)  # type: ignore[operator, union-attr]
    assert not layer.bias.any()  # type: ignore[operator, union-attr]


def test_dropout_by_layer() -> None:
    layers = list(build("lenet", seed=0, dropout=ALL).named_children())
    rates = {layers[i - 1][0]: m.p for i, (_, m) in enumerate(layers) if isinstance(m, nn.Dropout)}
    assert rates == {"normalize": 0.2, "pool1": 0.2, "pool2": 0.2, "activation": 0.5, "output": 0.5}
    only_input = lenet(dropout=(0.2, 0, 0, 0, 0))
    assert [name for name, m in only_input.named_modules() if isinstance(m, nn.Dropout)] == ["dropout_input"]


def test_dropout_changes_no_name_no_weight_and_no_prediction() -> None:
    plain, dropped = build("lenet", seed=3).eval(), build("lenet", seed=3, dropout=ALL)
    images = torch.rand(4, 1, 28, 28)
    plain.load_state_dict(dropped.state_dict())
    assert torch.equal(plain(images), dropped.eval()(images))
    assert not torch.equal(dropped.train()(images), dropped(images))


def test_it_takes_noise_and_other_sizes() -> None:
    net = inject(lenet(image_size=16, in_channels=3), example_input=torch.rand(2, 3, 16, 16), where=["full"])
    assert {name: tuple(s.shape) for name, s in sigmas(net).items()} == {"full": (500,)}
    with pytest.raises(UserError, match="16 pixels or more"):
        lenet(image_size=(28, 15))


@pytest.mark.parametrize("wrong", [0.2, (0.2,), (0.2, 0, 0, 0, 1.0), (-0.1, 0, 0, 0, 0), "All", (0, 0, 0, 0, True)])
def test_rates_out_of_range_are_the_users_error(wrong: object) -> None:
    with pytest.raises(UserError, match=r"five rates in \[0, 1\), for input, conv1, conv2, full, output"):
        build("lenet", seed=0, dropout=wrong)
