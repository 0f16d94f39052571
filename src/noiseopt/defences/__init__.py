"""Defences: each takes a Model and returns a Model, and so can be stacked (`noiseopt.inject` is one too).

>>> guarded = low_pass(committee([lenet, denoise(lenet, trained_autoencoder)]), noise=0.3)  # doctest: +SKIP

A white-box attack goes through all of it. Whatever noise is in it follows `noiseopt.noise` and `noiseopt.stream`, and
every part draws its own.
"""

from collections.abc import Callable

from torch import nn

from noiseopt.defences.autoencoder import Denoised, denoise
from noiseopt.defences.committee import Committee, committee
from noiseopt.defences.low_pass import Blur, low_pass


def _committee(*models: nn.Module, seed: int = 0) -> nn.Module:
    return committee(models, seed=seed)


DEFENCES: dict[str, Callable[..., nn.Module]] = {
    "committee": _committee,
    "low_pass": low_pass,
    "denoise": denoise,
}
"""Name in a recipe → `(model, [more models], **settings) → model`."""

__all__ = ["DEFENCES", "Blur", "Committee", "Denoised", "committee", "denoise", "low_pass"]
