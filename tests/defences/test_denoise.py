"""The autoencoder stands in front of the model, and neither is changed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from noiseopt.defences import denoise
from noiseopt.errors import UserError
from noiseopt.models import autoencoder, build

IMAGES = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def test_the_model_sees_what_the_autoencoder_makes_of_the_images() -> None:
    model, cleaner = build("mlp", seed=0, image_size=16), autoencoder(hidden=(9,), image_size=16)
    net = denoise(model.eval(), cleaner)
    assert cleaner.training, "only the copy is in eval mode, as the model is"
    assert torch.equal(net(IMAGES), model(cleaner.eval()(IMAGES)))
    assert denoise(model.train(), cleaner.eval()).autoencoder.training  # type: ignore[union-attr]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert all(p.any() for p in (model.output.weight, cleaner.encode1.weight))  # type: ignore[union-attr]


def test_an_autoencoder_for_other_images_is_named() -> None:
    net = denoise(build("mlp", seed=0, image_size=16), nn.Flatten())
    with pytest.raises(UserError, match=r"\(3, 1, 16, 16\) → \(3, 256\)"):
        net(IMAGES)
