"""Small networks and the naive formula that the noise is held against."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from noiseopt.noise import GaussianNoise
from noiseopt.noise.kernels import force, reference


@pytest.fixture(params=["numba", "torch"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every backend of the CPU in turn."""
    force(request.param)
    yield request.param
    force(None)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def convnet() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(144, 10), nn.Tanh(),
        nn.Linear(10, 5),
    )  # fmt: skip


def epsilon(layer: GaussianNoise, rows: Tensor, shape: torch.Size, call: int = 0) -> Tensor:
    """ε of the reference definition, in the shape of the layer's output."""
    key = layer.stream.keys[layer.index].clone()
    key[2] = call
    return reference.normals(rows, key, shape[1:].numel()).view(shape)
