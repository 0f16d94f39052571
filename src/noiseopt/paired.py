"""Losses of adversarial training that look at the images and their adversarial examples both, and TRADES' own attack.

Training on the examples alone (Madry et al. 2018) needs no such loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from noiseopt.attacks.gradient import expected_loss, noise_seed
from noiseopt.attacks.projected_gradient import climb
from noiseopt.attacks.settings import check_batch, check_count, check_pixel_size, check_seed
from noiseopt.concepts import Model
from noiseopt.errors import UserError
from noiseopt.noise import draw_logits
from noiseopt.streams import SampleRandom

_START = 0.001  # standard deviation of TRADES' first step away from the image, where the KL has no gradient


class PairedLoss(Protocol):
    """`(logits of the images, logits of their adversarial examples, labels) → scalar`, the mean over the batch.

    Both `Float[N, classes]`, under the same noise. A data class, so that a run can say its settings.
    """

    def __call__(self, clean: Tensor, attacked: Tensor, labels: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class TRADES:
    """CE(f(x), y) + β KL(f(x) ‖ f(x')), of Zhang et al. 2019. `beta`: β, at least 0; 6 in the paper's best models.

    x' is what the given attack makes; the paper's is `DivergencePGD`.
    """

    beta: float = 6.0

    def __post_init__(self) -> None:
        if not 0 <= self.beta < float("inf"):
            raise UserError("beta must be at least 0", got=self.beta, fix="beta=6.0")

    def __call__(self, clean: Tensor, attacked: Tensor, labels: Tensor) -> Tensor:
        near = F.kl_div(attacked.log_softmax(1), clean.log_softmax(1), log_target=True, reduction="batchmean")
        return F.cross_entropy(clean, labels) + self.beta * near


@dataclass(frozen=True)
class Mixed:
    """(1 − share) CE(f(x), y) + share CE(f(x'), y), of Goodfellow et al. 2015. `share`: in [0, 1]; ½ in PNI's paper."""

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise UserError("share must lie in [0, 1]", got=self.share, fix="share=0.5")

    def __call__(self, clean: Tensor, attacked: Tensor, labels: Tensor) -> Tensor:
        return (1 - self.share) * F.cross_entropy(clean, labels) + self.share * F.cross_entropy(attacked, labels)


PAIRED: dict[str, Callable[..., PairedLoss]] = {"trades": TRADES, "mixed": Mixed}
"""Name in a recipe → loss."""


@dataclass(frozen=True, kw_only=True)
class DivergencePGD:
    """The attack inside TRADES: projected gradient ascent on KL(f(x) ‖ f(x')) in the L∞ ball about each image.

    It begins at x + 0.001 · N(0, 1). On a stochastic network f(x) is the mean of softmax over `draws` draws, and the
    gradient is a mean over as many, fresh in every iteration. The settings are those of `noiseopt.attacks.PGD`.
    """

    eps: float
    step_size: float
    steps: int
    draws: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_pixel_size("eps", self.eps)
        check_pixel_size("step_size", self.step_size)
        check_count("steps", self.steps)
        check_count("draws", self.draws)
        check_seed(self.seed)

    @property
    def name(self) -> str:
        return "pgd-kl"

    def parameters(self) -> dict[str, Any]:
        """The settings, as they go into a Record."""
        settings = ("eps", "step_size", "steps", "draws", "seed")
        return {"climbs": "kl"} | {name: getattr(self, name) for name in settings}

    @torch.no_grad()
    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, samples: Tensor | None = None) -> Tensor:
        """`images` (`Float[N, C, H, W]` in [0, 1]) and `labels` (`Int64[N]`; not looked at) → the images attacked."""
        samples = check_batch(images, labels, samples)
        if len(images) == 0:
            return images.detach().clone()
        about: dict[str, Any] = {"draws": self.draws, "seed": noise_seed(self.seed), "samples": samples}
        target = torch.cat([chunk.softmax(-1) for chunk in draw_logits(model, images, **about)]).mean(0)

        def divergence(logits: Tensor, labels: Tensor) -> Tensor:
            p = target.repeat(len(logits) // len(target), 1)
            return F.kl_div(logits.log_softmax(1), p, reduction="none").sum(1)

        def gradient(attacked: Tensor, step: int) -> Tensor:
            first = (step + 1) * self.draws
            return expected_loss(model, attacked, labels, **about, first_draw=first, criterion=divergence).gradient

        start = images + _START * SampleRandom(self.seed, samples).randn(*images.shape[1:]).to(images.dtype)
        return climb(gradient, images, start, eps=self.eps, step_size=self.step_size, steps=self.steps)
