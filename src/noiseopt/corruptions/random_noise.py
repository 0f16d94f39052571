"""Gaussian noise of any strength (Uličný et al., section 3.1), also of the strength that has an asked distortion."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from noiseopt.concepts import Model, sample_ids
from noiseopt.corruptions.inputs import check_draws, check_images
from noiseopt.distortions import strength
from noiseopt.errors import UserError
from noiseopt.streams import SampleRandom


@dataclass(frozen=True, kw_only=True)
class RandomNoise:
    """`clip(x + std · z, 0, 1)`, z standard normal, its own for every value and every image (Perturbation).

    `std`: in units of the pixel range [0, 1]. `seed`: any whole number; an image (by its identity) has the same z under
    the same seed, whatever the `std`. `distortion`: where the noise was made for a set of images, what it does to that
    set (Eq. 2); it goes into the Record and changes nothing.
    """

    std: float
    seed: int = 0
    distortion: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.std, bool) or not isinstance(self.std, int | float) or not 0 <= self.std < math.inf:
            raise UserError("std must be a number of at least 0", got=self.std, fix="pass std=0.1")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            raise UserError("seed must be a whole number", got=self.seed, fix="pass seed=0")

    @property
    def name(self) -> str:
        return "random_noise"

    def parameters(self) -> dict[str, Any]:
        """The settings, as they go into a Record."""
        known = {} if self.distortion is None else {"distortion": self.distortion}
        return {"std": self.std, "seed": self.seed, **known}

    @torch.no_grad()
    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, samples: Tensor | None = None) -> Tensor:
        """`Float[N, C, H, W]` in [0, 1] in and out; `samples`: `Int64[N]`, identities; None for 0, 1, ..., N - 1."""
        check_images(images)
        noise = _draws(self.seed, images, samples)
        return torch.add(images, noise, alpha=self.std, out=noise).clamp_(0.0, 1.0)


def random_noise_at(distortion: float, images: Tensor, *, seed: int = 0, samples: Tensor | None = None) -> RandomNoise:
    """Gaussian noise whose distortion of these images, after clipping and over all of them (Eq. 2), is `distortion`.

    The standard deviation is solved for on the very draws, so what is asked for is what is measured.

    Args:
        distortion: in [0, 1).
        images: the whole test set, `Float[N, C, H, W]` in [0, 1].
        seed: of the draws.
        samples: identities of the images, `Int64[N]`, as `evaluate` will pass them (a data set's `ids`); None for
            0, 1, ..., N - 1.

    Raises:
        UserError: an argument is out of range, or no noise is strong enough.
    """
    check_images(images)
    std = strength(distortion, images, _draws(RandomNoise(std=0.0, seed=seed).seed, images, samples))
    return RandomNoise(std=std, seed=seed, distortion=distortion)


def _draws(seed: int, images: Tensor, samples: Tensor | None) -> Tensor:
    key = int.from_bytes(hashlib.sha256(f"random_noise/{seed}".encode()).digest()[:8], "big")
    draws = SampleRandom(key, sample_ids(samples, images)).randn(*images.shape[1:])
    return check_draws(draws, images).to(images.dtype)
