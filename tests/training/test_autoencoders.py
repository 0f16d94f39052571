"""Autoencoders, and data that is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from noiseopt.errors import UserError
from noiseopt.models import build
from noiseopt.train import Training, train
from tests.training.common import digits


def test_an_autoencoder_learns_to_give_the_images_back(tmp_path: Path) -> None:
    net = build("noiseopt.models:autoencoder", seed=0, hidden=(24, 8), image_size=8, dropout=0.1)
    training = Training(epochs=20, batch_size=16, lr=1e-2, task="reconstruct")
    history = train(net, digits(), training, run_dir=tmp_path)
    first, last = history.epochs[0], history.epochs[-1]
    assert last.validation_loss < first.validation_loss
    assert 0 <= first.validation_accuracy < last.validation_accuracy <= 1
    data = digits().validation
    images, _, _ = data.batch(torch.arange(len(data)))
    net.eval()
    with torch.no_grad():
        out = net(images)
    assert last.validation_accuracy == pytest.approx(1 - (out - images).abs().mean().item(), abs=1e-6)
    expected = F.binary_cross_entropy(out, images, reduction="sum").item() / len(images)
    assert last.validation_loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("net", "rule"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), r"must give images of \[1, 8, 8\]; got \[1, 4\]"),
        (nn.Sequential(nn.Conv2d(1, 1, 1), nn.Hardtanh(-9.0, -1.0)), r"must give pixels in \[0, 1\]; got -"),
    ],
)
def test_what_is_no_autoencoder_is_refused(net: nn.Module, rule: str) -> None:
    with pytest.raises(UserError, match=rule):
        train(net, digits(), Training(epochs=1, task="reconstruct"))


def test_a_pair_of_tensors_is_no_split() -> None:
    pair: Any = (torch.rand(2, 1, 4, 4), torch.zeros(2).long())
    with pytest.raises(UserError, match="data must be a Split"):
        train(nn.Flatten(), pair, Training(epochs=1))
