"""What evaluation is tested with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from noiseopt.data import Dataset
from noiseopt.noise import inject


@pytest.fixture
def net() -> nn.Module:
    """A network with dropout and noise."""
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(4 * 36, 12), nn.ReLU(), nn.Linear(12, 4)
    )
    return inject(plain, example_input=torch.rand(2, 1, 8, 8), init=0.3)


@pytest.fixture
def data() -> Dataset:
    g = torch.Generator().manual_seed(1)
    return Dataset(
        images=torch.randint(0, 256, (300, 1, 8, 8), generator=g, dtype=torch.uint8),
        labels=torch.randint(0, 4, (300,), generator=g),
        classes=("a", "b", "c", "d"),
        name="random",
        ids=torch.randperm(5000, generator=g)[:300],
    )
