"""The corruptions without geometry: Gaussian noise, impulse noise, contrast."""

from __future__ import annotations

import torch
from torch import Tensor

from noiseopt.corruptions.inputs import check_draws, check_images, random_stream
from noiseopt.corruptions.severities import CONTRAST, GAUSSIAN_NOISE, IMPULSE_NOISE
from noiseopt.streams import Random


@torch.no_grad()
def gaussian_noise(images: Tensor, *, severity: int, generator: torch.Generator | Random | None = None) -> Tensor:
    """Normal noise of standard deviation c, independent for every value: `clip(x + c z, 0, 1)`.

    `images`: `Float[N, C, H, W]` in [0, 1]; returns the same shape, dtype and device, in [0, 1]. `severity`: 1 to 5,
    which sets c (`severities`). `generator`: a `torch.Generator`, a stream of `noiseopt.streams`, or None for one that
    `torch.manual_seed` governs. Raises `UserError` where an argument is not so; NaN is not in [0, 1].
    """
    check_images(images)
    std = GAUSSIAN_NOISE.at(severity, images)
    noise = check_draws(random_stream(generator, images).randn(*images.shape[1:]), images).to(images.dtype)
    return torch.add(images, noise, alpha=std, out=noise).clamp_(0.0, 1.0)


@torch.no_grad()
def impulse_noise(images: Tensor, *, severity: int, generator: torch.Generator | Random | None = None) -> Tensor:
    """Salt and pepper: every value becomes 0 with probability c / 2 and 1 with probability c / 2.

    Each channel for itself, as `skimage.util.random_noise(mode="s&p")` has it, so that a grey pixel may turn red.
    `images`: `Float[N, C, H, W]` in [0, 1]; returns the same shape, dtype and device, in [0, 1]. `severity`: 1 to 5,
    which sets c (`severities`). `generator`: a `torch.Generator`, a stream of `noiseopt.streams`, or None for one that
    `torch.manual_seed` governs. Raises `UserError` where an argument is not so; NaN is not in [0, 1].
    """
    check_images(images)
    fraction = IMPULSE_NOISE.at(severity, images)
    uniform = check_draws(random_stream(generator, images).rand(*images.shape[1:]), images)
    # Scaled about its middle, so that only c / 2 on either side rounds to -1 and to 1: masks would be far slower.
    impulses = uniform.sub_(0.5).mul_(1.0 / (1.0 - fraction)).round_().to(images.dtype)
    return torch.add(images, impulses, out=impulses).clamp_(0.0, 1.0)


@torch.no_grad()
def contrast(images: Tensor, *, severity: int, generator: torch.Generator | Random | None = None) -> Tensor:
    """Every channel of an image shrunk towards its mean m over the pixels: `clip(m + c (x - m), 0, 1)`.

    `images`: `Float[N, C, H, W]` in [0, 1]; returns the same shape, dtype and device, in [0, 1]. `severity`: 1 to 5,
    which sets c (`severities`). `generator`: not needed; taken so that all corruptions are called alike. Raises
    `UserError` where an argument is not so; NaN is not in [0, 1].
    """
    check_images(images)
    factor = CONTRAST.at(severity, images)
    return torch.lerp(images.mean(dim=(-2, -1), keepdim=True), images, factor).clamp_(0.0, 1.0)
