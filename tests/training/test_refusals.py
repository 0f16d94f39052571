"""Training refuses what cannot be trained, before anything is done."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from noiseopt.errors import UserError
from noiseopt.models import build
from noiseopt.train import Training, train
from tests.training.common import digits, small


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"epochs": -1}, "epochs"),
        ({"batch_size": 1.5}, "batch_size"),
        ({"lr": -1}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"momentum": 1.0}, "momentum"),
        ({"optimizer": "adamw"}, "optimizer.*adam"),
        ({"lr_decay": (0.5, 0)}, "lr_decay"),
        ({"lr_decay": (0.0, 1)}, "lr_decay"),
        ({"lr_decay": 0.5}, "lr_decay"),
        ({"sigma_lr": 0}, "sigma_lr"),
        ({"learning_rate": 0.1}, "learning_rate.*fix: the settings are epochs, steps, batch_size"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(UserError, match=f"training.{name}"):
        Training(**settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": build("mlp", seed=0, classes=4)}, r"must take images of \[1, 1, 8, 8\]"),
        ({"model": build("mlp", seed=0, image_size=8, classes=3)}, r"\[N, 4\] logits; got \[1, 3\]"),
        ({"model": nn.Identity()}, r"\[N, 4\] logits"),
        ({"model": nn.BatchNorm1d(1)}, r"must take images of \[1, 1, 8, 8\]; got expected 2D or 3D input"),
        ({"model": nn.Sequential(nn.Flatten(), nn.AvgPool1d(16))}, "nothing to train"),
        ({"seed": -1}, "seed"),
        ({"device": "abacus"}, "device"),
        ({"device": "cuda:99"}, "device"),
        ({"precision": "fp8"}, "precision"),
        ({"tracker": "paper"}, "tracker"),
        ({"tracker": "tensorboard"}, "run_dir"),
        ({"about": {"model": object()}}, "about must hold plain values"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_done(change: dict[str, Any], message: str) -> None:
    asked: dict[str, Any] = {"model": small(), "data": digits(), "training": Training(epochs=1)}
    with pytest.raises(UserError, match=message):
        train(**(asked | change))


def test_a_run_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        train(small(), digits(), Training(epochs=1), run_dir=tmp_path / "file")
