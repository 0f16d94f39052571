"""The networks have the shapes of the paper, and options that fit them to other data."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from noiseopt.errors import UserError
from noiseopt.models import MODELS, Normalize, build, cnn, mlp


def widths(net: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for p in net.parameters() if p.dim() > 1]


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("mlp", [(100, 784), (50, 100), (10, 50)]),
        ("surrogate_mlp", [(300, 784), (150, 300), (10, 150)]),
        ("cnn", [(32, 1, 3, 3), (64, 32, 3, 3), (128, 3136), (10, 128)]),
    ],
)
def test_the_papers_architectures(name: str, shapes: list[tuple[int, ...]]) -> None:
    net = build(name, seed=0)
    assert widths(net) == shapes
    assert net(torch.rand(3, 1, 28, 28)).shape == (3, 10)


@pytest.mark.parametrize("name", MODELS)
def test_they_fit_other_data(name: str) -> None:
    net = build(name, seed=0, in_channels=3, image_size=(20, 16), classes=7, mean=(0.5, 0.4, 0.3), std=0.25)
    assert net(torch.rand(2, 3, 20, 16)).shape == (2, 7)


@pytest.mark.parametrize(("activation", "kind"), [("relu", nn.ReLU), ("sigmoid", nn.Sigmoid)])
def test_activation_follows_every_hidden_layer_and_not_the_output(activation: str, kind: type) -> None:
    layers = list(mlp(activation=activation, hidden=(4, 3)))
    assert [isinstance(layer, kind) for layer in layers] == [False, False, False, True, False, True, False]


def test_normalize_is_the_first_layer_and_works_per_channel() -> None:
    assert all(isinstance(next(iter(build(name, seed=0))), Normalize) for name in MODELS)
    layer = Normalize((0.5, 0.0), (0.5, 0.1))
    images = torch.tensor([[[[1.0]], [[0.2]]], [[[0.0]], [[0.0]]]])
    torch.testing.assert_close(layer(images), torch.tensor([[[[1.0]], [[2.0]]], [[[-1.0]], [[0.0]]]]))
    assert [name for name, _ in layer.named_buffers()] == ["mean", "std"]
    assert not list(layer.parameters())


@pytest.mark.parametrize(
    "options",
    [
        {"activation": "tanh"},
        {"hidden": (100, 0)},
        {"hidden": 100},
        {"hidden": "100"},
        {"classes": 0},
        {"classes": True},
        {"in_channels": 1.5},
        {"image_size": (28,)},
        {"image_size": "28"},
        {"image_size": None},
        {"mean": "white"},
        {"mean": float("nan")},
        {"mean": (0.1, 0.2)},
        {"std": 0.0},
        {"std": (0.2, 0.3, 0.4)},
        {"std": []},
    ],
)
def test_an_option_out_of_range_is_the_users_error(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match="fix:"):
        build("mlp", seed=0, **options)


def test_normalize_refuses_lengths_that_differ() -> None:
    with pytest.raises(UserError, match="2 and 3 entries"):
        Normalize((0.1, 0.2), (0.1, 0.2, 0.3))


def test_cnn_refuses_images_too_small_to_halve_twice() -> None:
    with pytest.raises(UserError, match="halves the image twice"):
        cnn(image_size=3)
    assert cnn(image_size=5)(torch.rand(1, 1, 5, 5)).shape == (1, 10)
