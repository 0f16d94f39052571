"""Noise on inputs and activations: RSE, smoothing, learned noise on pixels, Learn2Perturb; all is `GaussianNoise`."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from noiseopt.errors import UserError
from noiseopt.noise.attaching import Behind, attach, to_input, without_noise
from noiseopt.noise.batching import warn_of_places
from noiseopt.noise.injection import SHARINGS, inject, layers_in_use, like_weights
from noiseopt.noise.layer import GaussianNoise
from noiseopt.noise.select import Where
from noiseopt.noise.streaming import Stream


def rse(
    model: nn.Module,
    *,
    example_input: Any,
    where: Where = "conv",
    first: float = 0.2,
    inner: float = 0.1,
    seed: int = 0,
) -> nn.Module:
    """Random Self-Ensemble (Liu et al. 2018): fixed Gaussian noise before every convolution, the first one's included.

    The ensemble is the mean of K draws at inference (`draws`). The first layer's noise is in the units of what that
    layer is given: normalised pixels, where the model normalises (the authors' networks do not).

    Args:
        model, example_input, where, seed: see `inject`; where="linear" for a fully connected network.
        first: standard deviation before the first chosen layer (0.2 in the paper); at least 0.
        inner: before the others (0.1).
    """
    for name, value in (("first", first), ("inner", inner)):
        check_level(name, value)
    net = without_noise(model)
    chosen, _, batch_dims = layers_in_use(net, where, example_input)
    stream = Stream(layers=len(chosen), seed=seed)
    for index, (name, module) in enumerate(chosen.items()):
        # One σ for the layer, for as many dimensions as its features have.
        dims = 1 if isinstance(module, nn.Linear) else 1 + len(module.kernel_size)  # type: ignore[arg-type]
        sigma = like_weights(torch.full([1] * dims, float(inner if index else first)), module)
        layer = GaussianNoise(sigma, learned=False, index=index, stream=stream, batch_dim=batch_dims[name])
        attach(module, layer, to_input)
    warn_of_places(net, example_input)
    return net


def smoothing(model: nn.Module, *, example_input: Any, sigma: float = 0.25, seed: int = 0) -> nn.Module:
    """Gaussian noise on the images, before the model's own normalisation (Cohen et al. 2019); not clipped.

    The model's names get "model." in front. Args: `sigma` is in units of the pixel range [0, 1], at least 0; the others
    are those of `inject`.
    """
    check_level("sigma", sigma)
    return _before(model, torch.full((1, 1, 1), float(sigma)), learned=False, seed=seed)


def pixels(model: nn.Module, *, example_input: Any, init: float = 0.5, per: str = "neuron", seed: int = 0) -> nn.Module:
    """Gaussian noise on the images as `smoothing` has it, with a learned σ for every pixel; to be trained by `entropy`.

    The price of entropy holds it up and the loss pushes it down where the image says something: where it does not,
    the noise grows and the weights that an attack would use there go. No paper's; the model's names get "model." in
    front.

    Args are those of `inject`. `example_input`: a batch of images, `Float[n, c, h, w]`, of which σ has the shape.
    `init`: σ at the start, in units of the pixel range [0, 1], above 0. `per`: one σ per "neuron" (a pixel of a
    channel), "channel" (images of any size) or "layer".
    """
    check_level("init", init, zero=False)
    if per not in SHARINGS:
        raise UserError(f"per must be one of {', '.join(SHARINGS)}", got=per, fix="per='neuron'")
    if not isinstance(example_input, Tensor) or example_input.dim() != 4:
        got = tuple(example_input.shape) if isinstance(example_input, Tensor) else type(example_input).__name__
        fix = "example_input=images[:2]"
        raise UserError("noise on pixels needs a batch of images, [n, c, h, w], as an example", got=got, fix=fix)
    _, c, h, w = example_input.shape
    size = {"neuron": (c, h, w), "channel": (c, 1, 1), "layer": (1, 1, 1)}[per]
    return _before(model, torch.full(size, float(init)), learned=True, seed=seed)


def _before(model: nn.Module, level: Tensor, *, learned: bool, seed: int) -> nn.Module:
    """A copy of `model` behind noise of this σ on what it is given, one name deeper."""
    inner = without_noise(model)
    tensors = (t for t in chain(inner.parameters(), inner.buffers()) if t.is_floating_point())
    like = next(tensors, torch.empty(0))
    level = level.to(device=like.device, dtype=like.dtype)
    return Behind(inner, GaussianNoise(level, learned=learned, index=0, stream=Stream(layers=1, seed=seed)))


def learn2perturb(
    model: nn.Module, *, example_input: Any, where: Where = "all", init: float = 0.25, seed: int = 0
) -> nn.Module:
    """Learn2Perturb (Jeddi et al. 2020): a learned σ for every neuron, to be trained by the objective `learn2perturb`.

    Args are those of `inject`; `init`: σ at the start, above 0 (0.25 in the published code).
    """
    check_level("init", init, zero=False)
    return inject(model, example_input=example_input, where=where, sigma="learned", init=init, seed=seed)


def check_level(name: str, value: float, *, zero: bool = True) -> None:
    """Raises UserError where `value` is no standard deviation, or is 0 where that is none to start from."""
    usable = not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value < math.inf
    if not usable or not (value or zero):
        least = "of at least 0" if zero else "above 0"
        raise UserError(f"{name} must be a finite number {least}", got=value, fix=f"{name}=0.1")
