"""The low-pass filter of Uličný et al. (after Gu & Rigazio 2014): Gaussian noise and a blur in front of a Model."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from noiseopt.errors import UserError
from noiseopt.noise import GaussianNoise
from noiseopt.noise import seed as start_noise
from noiseopt.noise.streaming import Stream


class Blur(nn.Module):
    """Every channel convolved with `exp(-t²/2v)`, t on `linspace(-3, 3, k)` along each axis, of sum 1.

    Beyond its edge an image goes on with the pixels of its edge, so that the result is in [0, 1] if the image is, and
    as bright at the edge as elsewhere.
    """

    weights: Tensor

    def __init__(self, kernel: int, variance: float) -> None:
        """`kernel`: k, odd, in pixels. `variance`: v, in the units of t."""
        super().__init__()
        self.variance = variance
        line = torch.exp(-torch.linspace(-3, 3, kernel, dtype=torch.float64).square() / (2 * variance))
        self.register_buffer("weights", (line / line.sum()).float())

    def forward(self, images: Tensor) -> Tensor:
        """`Float[N, C, H, W]` → the same shape."""
        size, channels = len(self.weights), images.shape[1]
        reach = size // 2
        rows = self.weights.expand(channels, 1, 1, size)
        out = pad(images, (reach, reach, reach, reach), mode="replicate")
        return conv2d(conv2d(out, rows, groups=channels), rows.transpose(2, 3), groups=channels)

    def extra_repr(self) -> str:
        return f"kernel={len(self.weights)}, variance={self.variance:g}"


def low_pass(
    model: nn.Module, *, kernel: int = 7, variance: float = 0.6, noise: float = 0.0, seed: int = 0
) -> nn.Module:
    """A Model that sees the images blurred; with `noise`, blurred after Gaussian noise was added.

    The paper's three filters are (kernel, variance) = (7, 0.6), (5, 1.3) and (3, 7).

    The noise is a noise layer like those of `inject`: each sample and each draw has its own, `noiseopt.noise` switches
    it, K-draw predictions and EOT attacks average over it, and `noiseopt.remove` takes it out. A model gets noise from
    `inject` before it comes here, not after. The paper does not say whether the noisy image is clipped to [0, 1]; it is
    not, since that would brighten black and hide its gradient.

    Args:
        model: any Model; copied, not changed.
        kernel: pixels along each side, odd.
        variance: v of `Blur`; positive. The kernel always spans t in [-3, 3], whatever its size.
        noise: standard deviation, in units of the pixel range [0, 1]; at least 0.
        seed: where its noise, and that inside `model`, starts outside of a `noiseopt.stream` block.

    Raises:
        UserError: an option is out of range.
    """
    if isinstance(kernel, bool) or not isinstance(kernel, int) or kernel < 3 or kernel % 2 == 0:
        raise UserError("kernel must be an odd number of pixels, 3 or more", got=kernel, fix="pass kernel=7")
    if not (_is_number(variance) and variance > 0):
        raise UserError("variance must be a positive number", got=variance, fix="pass variance=0.6")
    if not (_is_number(noise) and noise >= 0):
        raise UserError("noise must be a standard deviation of at least 0", got=noise, fix="pass noise=0.2")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if noise:
        # One σ for the whole layer: images of any size. In a Sequential, so that `remove` may take it out.
        stream = Stream(layers=1, seed=seed)
        layers["noise"] = GaussianNoise(torch.full((1, 1, 1), float(noise)), learned=False, index=0, stream=stream)
    layers["blur"] = Blur(kernel, variance)
    # As the model's own numbers are, and where they are.
    tensors = (t for t in chain(model.parameters(), model.buffers()) if t.is_floating_point())
    like = next(tensors, torch.empty(0))
    before = nn.Sequential(layers).to(device=like.device, dtype=like.dtype)
    net = nn.Sequential(OrderedDict(low_pass=before.train(model.training), model=copy.deepcopy(model)))
    net.training = model.training
    if noise:
        start_noise(net, seed)  # else ours and the model's could be the same numbers
    return net


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
