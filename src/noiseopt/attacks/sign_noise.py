"""The adversarial noise of Uličný et al.: gradient signs of an asked distortion (Eqs. 1, 2), and Eq. 3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from noiseopt.attacks.gradient import expected_gradient, noise_seed
from noiseopt.attacks.projected_gradient import FGSM
from noiseopt.attacks.settings import check_batch, check_count, check_pixel_size, check_positive, check_seed
from noiseopt.concepts import Model
from noiseopt.distortions import sign_strengths
from noiseopt.errors import UserError
from noiseopt.noise.modes import evaluating


@dataclass(frozen=True, kw_only=True, eq=False)
class SignNoise:
    """`clip(x + eps · sign ∇_x loss, 0, 1)` with the signs known beforehand: FGSM on a set of images and a model, both
    fixed when `sign_at` or `sign_curve` made it.

    It looks up the signs of an image by its identity, and does not look at the model that it is called with: held
    against another model it is a transfer attack.
    """

    eps: float
    """Size of the step, in units of the pixel range [0, 1]."""
    distortion: float
    """What it does to its set of images (Eq. 2)."""
    draws: int
    seed: int
    signs: Tensor = field(repr=False)
    """`Int8[N, C, H, W]`: -1, 0 or 1."""
    samples: Tensor = field(repr=False)
    """`Int64[N]`: whose they are, in rising order."""
    marks: Tensor = field(repr=False)
    """`Int64[N]`: of the images' pixels, to know them by."""

    @property
    def name(self) -> str:
        return "sign_noise"

    def parameters(self) -> dict[str, Any]:
        """The settings, as they go into a Record."""
        return {"eps": self.eps, "distortion": self.distortion, "draws": self.draws, "seed": self.seed}

    @torch.no_grad()
    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, samples: Tensor | None = None) -> Tensor:
        """`images` (`Float[N, C, H, W]` in [0, 1]), of identities `samples` → the images attacked.

        Raises UserError where one of the images is not of its set, or another than the one of that identity.
        """
        wanted = check_batch(images, labels, samples).to(self.samples.device)
        rows = torch.searchsorted(self.samples, wanted).clamp_(max=len(self.samples) - 1)
        unknown = wanted[(self.samples[rows] != wanted) | (self.marks[rows] != _marks(images).to(rows.device))]
        if len(unknown) or images.shape[1:] != self.signs.shape[1:]:
            got = f"{len(unknown)} others" if len(unknown) else f"images of shape {list(images.shape[1:])}"
            fix = "make it with the images, and the samples, that it is used on"
            raise UserError("this noise was made for a fixed set of images", got=got, fix=fix)
        signs = self.signs[rows].to(images.device, images.dtype)
        return torch.add(images, signs, alpha=self.eps).clamp_(0.0, 1.0)


def sign_at(
    distortion: float,
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    draws: int = 1,
    seed: int = 0,
    samples: Tensor | None = None,
    batch_size: int = 500,
) -> SignNoise:
    """White-box sign noise whose distortion of these images, after clipping and over all of them, is `distortion`.

    The arguments and errors are those of `sign_curve`.
    """
    options: dict[str, Any] = {"draws": draws, "seed": seed, "samples": samples, "batch_size": batch_size}
    return sign_curve([distortion], model, images, labels, **options)[0]


def sign_curve(
    distortions: Sequence[float],
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    draws: int = 1,
    seed: int = 0,
    samples: Tensor | None = None,
    batch_size: int = 500,
) -> list[SignNoise]:
    """One `SignNoise` for each of `distortions`; the signs do not depend on eps, so all share one gradient per image.

    The gradient goes through the whole pipeline of `model`, and is averaged over `draws` noise draws where that is
    random (EOT). The model is used in eval mode and left as it was; its noise is used as it is switched.

    >>> noises = sign_curve([0.1, 0.2], model, images, labels, samples=ids)  # doctest: +SKIP
    >>> records = [evaluate(model, data, noise) for noise in noises]  # doctest: +SKIP

    Args:
        distortions: each in [0, 1): asked of Eq. 2 for the whole set after clipping to [0, 1].
        model: images → logits, on the device of the images.
        images, labels: the whole test set, `Float[N, C, H, W]` in [0, 1] and `Int64[N]`.
        draws: K; has no effect on a model without noise.
        seed: of the draws.
        samples: identities of the images, `Int64[N]`, no two the same, as `evaluate` will pass them (a data set's
            `ids`); None for 0, 1, ..., N - 1.
        batch_size: images at a time.

    Raises:
        UserError: an argument is out of range, or a distortion beyond what any eps does to these images.
    """
    check_count("draws", draws)
    check_count("batch_size", batch_size)
    check_seed(seed)
    ids = check_batch(images, labels, samples)
    known, order = ids.sort()
    if len(ids) == 0 or bool((known[1:] == known[:-1]).any()):
        got = "none" if len(ids) == 0 else "a number twice"
        raise UserError("samples must name one image or more, each its own", got=got, fix="pass a data set's ids")
    signs = torch.empty(images.shape, dtype=torch.int8, device=images.device)
    with evaluating(model):
        for rows in torch.arange(len(ids), device=ids.device).split(batch_size):
            gradient = expected_gradient(
                model, images[rows], labels[rows], draws=draws, seed=noise_seed(seed), samples=ids[rows]
            )
            signs[rows] = gradient.sign().to(torch.int8)
    sizes = sign_strengths(distortions, images, signs)
    signs, marks = signs[order], _marks(images)[order]
    return [
        SignNoise(eps=eps, distortion=asked, draws=draws, seed=seed, signs=signs, samples=known, marks=marks)
        for asked, eps in zip(distortions, sizes, strict=True)
    ]


def _marks(images: Tensor) -> Tensor:
    """`Int64[N]`: sums of the pixels, each times its place; in steps of 1/4080, as another device may have scaled bytes
    with another rounding.
    """
    steps = (images.detach().float() * 4080).round().flatten(1).long()
    return (steps * torch.arange(1, steps.shape[1] + 1, device=steps.device)).sum(dim=1)


@dataclass(frozen=True, kw_only=True)
class SignThenGradient:
    """Eq. 3: `clip(x' + c · ∇_x loss(x'), 0, 1)` with `x' = clip(x + eps · sign ∇_x loss(x), 0, 1)`.

    What the paper's adversarial committee is trained on. The loss is that of each image by itself: where the paper's
    was the mean over a batch of B images, its c was B times as large.

    `eps`: size of the first step, in pixel units ([0, 1]). `c`: factor on the gradient, positive. `draws`: noise draws
    K that each gradient is averaged over (EOT), others for each of the two. `seed`: of those draws.
    """

    eps: float
    c: float
    draws: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_pixel_size("eps", self.eps)
        check_positive("c", self.c)
        check_count("draws", self.draws)
        check_seed(self.seed)

    @property
    def name(self) -> str:
        return "sign_then_gradient"

    def parameters(self) -> dict[str, Any]:
        """The settings, as they go into a Record."""
        return {"eps": self.eps, "c": self.c, "draws": self.draws, "seed": self.seed}

    @torch.no_grad()
    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, samples: Tensor | None = None) -> Tensor:
        """`images` (`Float[N, C, H, W]` in [0, 1]) and `labels` (`Int64[N]`) → the images attacked."""
        first = FGSM(eps=self.eps, draws=self.draws, seed=self.seed)(model, images, labels, samples=samples)
        if len(images) == 0:
            return first
        gradient = expected_gradient(
            model,
            first,
            labels,
            draws=self.draws,
            seed=noise_seed(self.seed),
            samples=samples,
            first_draw=self.draws,
        )
        return torch.add(first, gradient, alpha=self.c).clamp_(0.0, 1.0)
