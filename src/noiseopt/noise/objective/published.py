"""The regularisers of other papers' noise; see `noiseopt.noise.zoo`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from noiseopt.errors import UserError
from noiseopt.noise.attaching import noisy_modules
from noiseopt.noise.objective.base import SigmaObjective
from noiseopt.noise.zoo.covariance import CovarianceNoise


@dataclass
class Learn2Perturb(SigmaObjective):
    """Loss − γ/τ · Σ √σ of Jeddi et al. 2020, with τ = 1 + 1/2 + ... + 1/t in epoch t: noise is wanted, ever less so.

    σ is stepped after the weights, at their new values, and stays at or above `floor`.
    `gamma`: γ, at least 0. `floor`: above 0.
    """

    name: ClassVar[str] = "learn2perturb"
    alternates: ClassVar[bool] = True
    gamma: float = 1e-4
    floor: float = 0.01

    def __post_init__(self) -> None:
        self._harmonic = 1.0
        if not 0 <= self.gamma < float("inf"):
            raise UserError("gamma must be at least 0", got=self.gamma, fix="gamma=1e-4")
        if not 0 < self.floor < float("inf"):
            raise UserError("floor must be above 0", got=self.floor, fix="floor=0.01")

    def begin_epoch(self, epoch: int) -> None:
        self._harmonic = sum(1 / t for t in range(1, epoch + 2))

    @torch.no_grad()
    def after_backward(self, sigmas: Sequence[Tensor]) -> None:
        for sigma in sigmas:
            if sigma.grad is not None:
                root = sigma.abs().clamp_min(self.floor).sqrt()
                pull = torch.where(sigma < 0, -0.5, 0.5) / root
                sigma.grad.sub_(pull, alpha=self.gamma / self._harmonic)

    @torch.no_grad()
    def after_step(self, sigmas: Sequence[Tensor]) -> None:
        for sigma in sigmas:
            sigma.clamp_(min=self.floor)


@dataclass
class WeightCovariance(SigmaObjective):
    """Loss − `weight` · Σ_c ln(w_cᵀ Σ w_c) + `decay` · Σ_c ‖w_c‖², of Eustratiadis et al. 2021 (WCA).

    w_c are the weights of class c in the last layer and Σ the covariance of the noise before it: a large w_cᵀ Σ w_c
    bounds how much an attack can change the stochastic network's predictions. Weights and noise both descend it; the
    second term keeps the weights from growing without end, and nothing keeps the noise from it but the loss.
    """

    name: ClassVar[str] = "wca"
    shared: ClassVar[bool] = True
    weight: float = 1.0
    decay: float = 1e-2

    def __post_init__(self) -> None:
        for setting, value in (("weight", self.weight), ("decay", self.decay)):
            if not 0 <= value < float("inf"):
                raise UserError(f"{setting} must be at least 0", got=value, fix=f"{setting}=1e-2")

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, training_loss: Tensor, *, samples: Tensor
    ) -> Tensor:
        found = [(module, layer) for _, module, layer in noisy_modules(model) if isinstance(layer, CovarianceNoise)]
        if not found:
            fix = 'noiseopt.noise.ZOO["wca"](model, example_input=images[:2])'
            raise UserError("the objective wca is of the noise of that name", got="a model without", fix=fix)
        total = training_loss
        for module, layer in found:
            weights = module.weight
            assert isinstance(weights, Tensor)
            aligned = (weights @ layer.loadings).square().sum(1)  # wᵀ F Fᵀ w = ‖Fᵀ w‖²
            total = total - self.weight * aligned.log().sum() + self.decay * weights.square().sum()
        return total
