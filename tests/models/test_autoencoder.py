"""The autoencoder has the paper's widths and Caffe's rest, and gives images back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from noiseopt.errors import UserError
from noiseopt.models import autoencoder, build

PATH = "noiseopt.models:autoencoder"


def test_the_papers_widths_and_caffes_activations() -> None:
    net = build(PATH, seed=0)
    layers = [m for m in net if isinstance(m, nn.Linear | nn.Sigmoid)]  # type: ignore[union-attr]
    widths = [m.out_features if isinstance(m, nn.Linear) else "σ" for m in layers]
    assert widths == [1000, "σ", 500, "σ", 250, "σ", 30, 250, "σ", 500, "σ", 1000, "σ", 784, "σ"]


def test_images_in_images_out() -> None:
    net = autoencoder(hidden=(20, 4), in_channels=3, image_size=(6, 5)).eval()
    images = torch.rand(7, 3, 6, 5)
    out = net(images)
    assert out.shape == images.shape
    assert out.min() >= 0
    assert out.max() <= 1


def test_weights_start_sparse_and_are_a_function_of_the_seed() -> None:
    net = build(PATH, seed=1)
    kept = {name: net.get_submodule(name).weight != 0 for name in ("encode1", "encode4", "decode1")}  # type: ignore[operator]
    for name, outputs in (("encode1", 1000), ("encode4", 30), ("decode1", 784)):
        assert kept[name].float().mean().item() == pytest.approx(15 / outputs, rel=0.05)  # type: ignore[union-attr]
        weight = net.get_submodule(name).weight[kept[name]]  # type: ignore[index]
        assert weight.std().item() == pytest.approx(1, rel=0.05)
    assert torch.equal(net.encode1.weight, build(PATH, seed=1).encode1.weight)  # type: ignore[union-attr]
    assert not torch.equal(net.encode1.weight, build(PATH, seed=2).encode1.weight)  # type: ignore[union-attr]


def test_its_input_is_dropped_in_training_only() -> None:
    net = autoencoder(dropout=0.25)
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [0.25]
    images = torch.rand(2, 1, 28, 28)
    assert not torch.equal(net(images), net(images))
    assert torch.equal(net.eval()(images), net(images))


def test_it_learns_to_fill_in_what_was_dropped() -> None:
    net = build(PATH, seed=0, hidden=(60, 12), image_size=8)
    generator = torch.Generator().manual_seed(0)
    shapes = (torch.rand(5, 1, 8, 8, generator=generator) > 0.5).float()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.95, nesterov=True)
    torch.manual_seed(0)
    losses = []
    for _ in range(200):
        loss = nn.functional.binary_cross_entropy(net(shapes), shapes, reduction="sum") / 5
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])
    holes = shapes * (torch.rand(shapes.shape, generator=generator) > 0.2)
    with torch.no_grad():
        cleaned = net.eval()(holes)
    assert (cleaned - shapes).abs().mean() < 0.3 * (holes - shapes).abs().mean()


@pytest.mark.parametrize(
    "options",
    [{"hidden": ()}, {"hidden": 30}, {"hidden": "30"}, {"hidden": (10, 0)}, {"dropout": 1.0}, {"dropout": True},
     {"in_channels": 0}, {"image_size": "28"}],
)  # fmt: skip
def test_an_option_out_of_range_is_the_users_error(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match="fix:"):
        autoencoder(**options)  # type: ignore[arg-type]
