"""FGSM (Goodfellow et al. 2015) and PGD (Madry et al. 2018): one projected-gradient loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from noiseopt.attacks.gradient import expected_gradient, noise_seed
from noiseopt.attacks.settings import check_batch, check_count, check_pixel_size, check_seed
from noiseopt.concepts import Model
from noiseopt.streams import SampleRandom


@dataclass(frozen=True, kw_only=True)
class FGSM:
    """The fast gradient sign method: `clip(x + eps · sign ∇_x loss)`, one step of PGD without a random start.

    `eps`: size of the step, in pixel units ([0, 1]). `draws`: noise draws K the gradient is averaged over (EOT);
    1 is the paper's protocol. `seed`: of those draws.
    """

    eps: float
    draws: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_pixel_size("eps", self.eps)
        check_count("draws", self.draws)
        check_seed(self.seed)

    @property
    def name(self) -> str:
        return "fgsm"

    def parameters(self) -> dict[str, Any]:
        """The settings, as they go into a Record."""
        return {"eps": self.eps, "draws": self.draws, "seed": self.seed}

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, samples: Tensor | None = None) -> Tensor:
        """`images` (`Float[N, C, H, W]` in [0, 1]) and `labels` (`Int64[N]`) → the images attacked."""
        one_step = PGD(eps=self.eps, step_size=self.eps, steps=1, draws=self.draws, random_start=False, seed=self.seed)
        return one_step(model, images, labels, samples=samples)


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Projected gradient ascent on the loss in the L∞ ball of radius `eps` about each image, and in [0, 1].

    `eps`, `step_size`: in pixel units ([0, 1]). `steps`: iterations. `draws`: noise draws K each gradient is
    averaged over (EOT), fresh in every iteration; 1 is the paper's protocol. `random_start`: begin uniformly in
    the ball (the paper's code begins at the image). `seed`: of the start and the draws; both belong to the
    sample and not to its batch.
    """

    eps: float
    step_size: float
    steps: int
    draws: int = 1
    random_start: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_pixel_size("eps", self.eps)
        check_pixel_size("step_size", self.step_size)
        check_count("steps", self.steps)
        check_count("draws", self.draws)
        check_seed(self.seed)

    @property
    def name(self) -> str:
        return "pgd"

    def parameters(self) -> dict[str, Any]:
        """The settings, as they go into a Record."""
        return {
            "eps": self.eps,
            "step_size": self.step_size,
            "steps": self.steps,
            "draws": self.draws,
            "random_start": self.random_start,
            "seed": self.seed,
        }

    @torch.no_grad()
    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, samples: Tensor | None = None) -> Tensor:
        """`images` (`Float[N, C, H, W]` in [0, 1]) and `labels` (`Int64[N]`) → the images attacked."""
        samples = check_batch(images, labels, samples)
        about: dict[str, Any] = {"draws": self.draws, "seed": noise_seed(self.seed), "samples": samples}
        start = images
        if self.random_start:
            uniform = SampleRandom(self.seed, samples).rand(*images.shape[1:]).to(images.dtype)
            start = images + self.eps * (2.0 * uniform - 1.0)

        def gradient(attacked: Tensor, step: int) -> Tensor:
            return expected_gradient(model, attacked, labels, **about, first_draw=step * self.draws)

        return climb(gradient, images, start, eps=self.eps, step_size=self.step_size, steps=self.steps)


def climb(
    gradient: Callable[[Tensor, int], Tensor],
    images: Tensor,
    start: Tensor,
    *,
    eps: float,
    step_size: float,
    steps: int,
) -> Tensor:
    """From `start` by the signs of `gradient(attacked, step)`, in the L∞ ball of `eps` about `images` and in [0, 1]."""
    if len(images) == 0:
        return images.detach().clone()
    low, high = (images - eps).clamp(min=0.0), (images + eps).clamp(max=1.0)
    attacked = start.detach().clamp(low, high)
    for step in range(steps):
        attacked = (attacked + step_size * gradient(attacked, step).sign()).clamp(low, high)
    return attacked
