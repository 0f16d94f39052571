"""Correlated noise: WCA."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from noiseopt.errors import UserError
from noiseopt.noise.attaching import attach, to_input, without_noise
from noiseopt.noise.batching import warn_of_places
from noiseopt.noise.function import AddNoise
from noiseopt.noise.injection import layers_in_use, like_weights
from noiseopt.noise.layer import NoiseLayer
from noiseopt.noise.streaming import Stream
from noiseopt.noise.zoo.activations import check_level


class CovarianceNoise(NoiseLayer):
    """v + z, z ~ N(0, Σ) with Σ = F Fᵀ: noise whose neurons move together. `factor` F is a parameter.

    F is `Float[D, D]`, of which the lower triangle counts (a Cholesky factor), or `Float[D, r]` with r < D.
    """

    def __init__(self, factor: Tensor, *, index: int, stream: Stream) -> None:
        super().__init__(index=index, stream=stream)
        self.factor = nn.Parameter(factor)

    @property
    def loadings(self) -> Tensor:
        """F as it is used."""
        square = self.factor.shape[0] == self.factor.shape[1]
        return self.factor.tril() if square else self.factor

    @property
    def sigma(self) -> Tensor:  # type: ignore[override]
        """The standard deviation of each neuron's noise, `Float[D]`."""
        return self.loadings.detach().norm(dim=1)

    def forward(self, v: Tensor) -> Tensor:
        """`v`: `Float[n, ..., D]` or `Float[D]`; the same shape comes back."""
        if not self.stream.on:
            return v
        single = v.dim() == 1
        out = v.unsqueeze(0) if single else v
        copies, rows, key = self.place(len(out), out.device)
        if copies > 1:
            out = out.repeat(copies, *[1] * (out.dim() - 1))
        loadings = self.loadings
        nothing = loadings.new_zeros(*out.shape[:-1], loadings.shape[1])
        epsilon = AddNoise.apply(nothing, loadings.new_ones(loadings.shape[1]), rows, key, True)
        out = out + epsilon @ loadings.T
        return out.squeeze(0) if single else out

    def extra_repr(self) -> str:
        return f"factor {tuple(self.factor.shape)}, mean σ {self.sigma.mean():.3g}"


def wca(
    model: nn.Module, *, example_input: Any, rank: int | None = None, init: float = 1.0, seed: int = 0
) -> nn.Module:
    """Weight-Covariance Alignment (Eustratiadis et al. 2021): learned, correlated noise on the last hidden layer.

    The noise is added to what the last Linear layer is given. It is to be trained by the objective `wca`, which aligns
    it with that layer's weights.

    Args:
        model, example_input, seed: see `inject`; the last Linear layer in the model's order is its classifier.
        rank: None: any covariance, by its Cholesky factor; or r: one of this rank.
        init: standard deviation of every neuron at the start, above 0: uncorrelated, or with `rank` at random.
    """
    check_level("init", init, zero=False)
    net = without_noise(model)
    chosen, *_ = layers_in_use(net, "linear", example_input)
    module = list(chosen.values())[-1]
    width: Any = module.in_features
    if rank is not None and not (type(rank) is int and 1 <= rank < width):
        raise UserError(f"rank must be a whole number below {width}, the neurons", got=rank, fix="rank=8")
    if rank is None:
        factor = init * torch.eye(width)
    else:
        factor = torch.randn(width, rank, generator=torch.Generator().manual_seed(seed))
        factor *= init / factor.norm(dim=1, keepdim=True)
    layer = CovarianceNoise(like_weights(factor, module), index=0, stream=Stream(layers=1, seed=seed))
    attach(module, layer, to_input)
    warn_of_places(net, example_input)
    return net
