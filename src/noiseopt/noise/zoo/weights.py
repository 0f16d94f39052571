"""Noise on weights: PNI."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiseopt.errors import UserError
from noiseopt.noise.attaching import attach, to_weights, without_noise
from noiseopt.noise.batching import warn_of_places
from noiseopt.noise.function import AddNoise
from noiseopt.noise.injection import layers_in_use, like_weights
from noiseopt.noise.layer import NoiseLayer
from noiseopt.noise.select import Where
from noiseopt.noise.streaming import Stream
from noiseopt.noise.zoo.activations import check_level

_KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class WeightNoise(NoiseLayer):
    """W + α std(W) ε: the weights of one layer with noise of their own size; α is a parameter, std a constant.

    One ε for each draw, whatever the images: it is keyed by (seed, layer, call, turn, step) and not by the sample. So a
    training step has one, as in the paper; K draws folded into a batch have K; and no draw depends on what else is in
    the batch. Noise of weights is felt by all that goes through them, which is why its samples share it.
    """

    def __init__(self, alpha: Tensor, producer: nn.Module, *, index: int, stream: Stream) -> None:
        """`alpha`: `Float[1]`. `producer`: the layer whose weights these are; only its std is kept, for `sigma`."""
        super().__init__(index=index, stream=stream)
        self.alpha = nn.Parameter(alpha)
        # In a tuple: it is the parent, and must not become a child.
        self._producer = (producer,)

    @property
    def sigma(self) -> Tensor:  # type: ignore[override]
        """The standard deviation of the noise, `Float[1]`."""
        return self.alpha.detach().abs() * _spread(self._producer[0])

    def forward(self, v: Tensor, *, producer: nn.Module, given: Tensor) -> Tensor:
        """`v`: what `producer` made of `given`; returns what it would have made with noisy weights.

        The layer is linear, so that the noise's part is added: v + x ΔW.
        """
        if not self.stream.on:
            return v
        weight = producer.weight
        assert isinstance(weight, Tensor)
        single = given.dim() < (2 if isinstance(producer, nn.Linear) else weight.dim())
        x = given.unsqueeze(0) if single else given
        out = v.unsqueeze(0) if single else v
        copies, rows, key = self.place(len(x), x.device)
        if copies > 1:
            x, out = (t.repeat(copies, *[1] * (t.dim() - 1)) for t in (x, out))
        draws, of = rows[:, 1].unique(return_inverse=True)
        places = torch.stack([torch.full_like(draws, self.stream.turn), draws], dim=1)
        level = (self.alpha * _spread(producer)).expand(weight.shape)
        changes = AddNoise.apply(weight.new_zeros(len(draws), *weight.shape), level, places, key, True)
        of = of.repeat_interleave(len(x) // len(rows))
        out = out + _each_with_its_own(producer, x, changes, of)
        return out.squeeze(0) if single else out

    def extra_repr(self) -> str:
        return f"alpha {float(self.alpha.detach()):.3g}"


def _each_with_its_own(producer: nn.Module, x: Tensor, changes: Tensor, of: Tensor) -> Tensor:
    """Row i of `x` through the weights `changes[of[i]]`."""
    if len(changes) == 1:
        return _through(producer, x, changes[0])
    order = of.argsort(stable=True)
    in_order = bool((order[1:] > order[:-1]).all())  # folded draws come one after another
    parts = (x if in_order else x.index_select(0, order)).split(of.bincount(minlength=len(changes)).tolist())
    out = torch.cat([_through(producer, part, change) for part, change in zip(parts, changes, strict=True)])
    return out if in_order else out.index_select(0, order.argsort())


def _through(producer: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    if isinstance(producer, nn.Linear):
        return F.linear(x, weight)
    assert isinstance(producer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    return producer._conv_forward(x, weight, None)


def _spread(producer: nn.Module) -> Tensor:
    """The standard deviation of all its weights, a constant."""
    weight: Any = producer.weight
    spread: Tensor = weight.detach().std(correction=0)
    return spread


def pni(model: nn.Module, *, example_input: Any, where: Where = "all", alpha: float = 0.25, seed: int = 0) -> nn.Module:
    """Parametric Noise Injection (He et al. 2019): noise on the weights, of a learned share α of their std.

    α is one for each layer, trained with the weights but without their decay, as the published code does. The paper
    trains it on clean and adversarial images, half and half: `paired=Mixed(share=0.5)` in `train`.

    Args:
        model, example_input, where, seed: see `inject`. Linear layers and convolutions; no transposed ones.
        alpha: α at the start (0.25 in the paper); at least 0.
    """
    check_level("alpha", alpha)
    net = without_noise(model)
    chosen, *_ = layers_in_use(net, where, example_input)
    stream = Stream(layers=len(chosen), seed=seed)
    for index, (name, module) in enumerate(chosen.items()):
        if not isinstance(module, _KINDS):
            got, fix = f"{name!r}, a {type(module).__name__}", "choose others in where"
            raise UserError("weight noise goes on Linear and Conv1d/2d/3d layers", got=got, fix=fix)
        start = like_weights(torch.full((1,), float(alpha)), module)
        attach(module, WeightNoise(start, module, index=index, stream=stream), to_weights)
    warn_of_places(net, example_input)
    return net
