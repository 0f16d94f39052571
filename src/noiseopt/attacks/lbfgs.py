"""The L-BFGS attack: Szegedy's, in a box and image by image, and the paper's, on whole batches."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from noiseopt.attacks.gradient import expected_loss, noise_seed
from noiseopt.attacks.settings import (
    check_batch,
    check_count,
    check_pixel_size,
    check_positive,
    check_seed,
)
from noiseopt.attacks.szegedy import Szegedy
from noiseopt.concepts import Model
from noiseopt.errors import UserError

_PAPER_BATCH = 128
_ONLY = {"box": ("search_steps", "history", "max_distortion"), "paper": ("lr",)}


@dataclass(frozen=True, kw_only=True)
class LBFGS:
    """The L-BFGS attack (Szegedy et al. 2014), as it was meant ("box") or as the paper ran it ("paper").

    `protocol="box"`: each image by itself, in [0, 1], with distortion `sqrt(mean r²)` over the pixels of the
    perturbation r. First the greatest loss within `max_distortion` is sought. Where that fools the model, the
    smallest distortion that still fools is sought next: minimise `c·‖r‖² + log p_y(x + r)` for the largest c whose
    minimiser fools, then shorten r on a straight line. The result is the smallest fooling perturbation found, or
    else the one of greatest loss.

    On a model with noise the result is always the one of greatest loss: the smallest perturbation that fooled under
    some draws of the noise fools under half of all others, and would make any noise look like a defence.

    - `steps`: L-BFGS iterations of each minimisation. `history`: curvature pairs kept.
    - `search_steps`: values of c tried; 0 leaves the greatest loss everywhere, which is what transfers to other
      models.
    - `max_distortion`: in (0, 1]. The default, 0.1, is what FGSM spends at `eps=0.1`.

    `protocol="paper"`: minimise the negative cross-entropy, averaged over 128 images at a time, by one
    unconstrained L-BFGS run without line search and without a distance term, and clip to [0, 1] at the end. One
    image's result depends on the other images of its 128, and nothing bounds the distortion.

    - `lr`: step size α of Table 2; required. `steps`: iterations N of Table 2.

    `draws`: noise draws K the loss, its gradient and success are averaged over (EOT). They are fresh in every
    iteration (for "paper": in every evaluation of the loss, with `draws=1` as published). `seed`: of the draws.
    """

    protocol: Literal["box", "paper"] = "box"
    lr: float | None = None
    steps: int = 20
    search_steps: int = 5
    history: int = 10
    max_distortion: float = 0.1
    draws: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.protocol not in list(_ONLY):
            raise UserError("protocol must be box or paper", got=self.protocol, fix='pass protocol="box"')
        other = "paper" if self.protocol == "box" else "box"
        defaults = {field.name: field.default for field in fields(self)}
        for name in _ONLY[other]:
            if getattr(self, name) != defaults[name]:
                rule = f"{name} belongs to protocol {other}"
                raise UserError(rule, got=f"protocol={self.protocol!r}", fix=f"leave {name} out")
        if self.protocol == "paper" and self.lr is None:
            raise UserError("protocol paper needs lr, the step size", fix="pass lr=0.5 (Table 2, MNIST)")
        if self.lr is not None:
            check_positive("lr", self.lr)
        for name in ("steps", "history", "draws"):
            check_count(name, getattr(self, name))
        check_count("search_steps", self.search_steps, least=0)
        check_pixel_size("max_distortion", self.max_distortion)
        check_seed(self.seed)

    @property
    def name(self) -> str:
        return "lbfgs"

    def parameters(self) -> dict[str, Any]:
        """The settings that count in this protocol, as they go into a Record."""
        names = ("protocol", "steps", *_ONLY[self.protocol], "draws", "seed")
        return {name: getattr(self, name) for name in names}

    @torch.no_grad()
    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, samples: Tensor | None = None) -> Tensor:
        """`images` (`Float[N, C, H, W]` in [0, 1]) and `labels` (`Int64[N]`) → the images attacked."""
        samples = check_batch(images, labels, samples)
        if len(images) == 0:
            return images.detach().clone()
        if self.protocol == "box":
            return Szegedy(
                model,
                images,
                labels,
                samples=samples,
                steps=self.steps,
                search_steps=self.search_steps,
                history=self.history,
                max_distortion=self.max_distortion,
                draws=self.draws,
                seed=self.seed,
            ).attack()
        blocks = zip(*(tensor.split(_PAPER_BATCH) for tensor in (images, labels, samples)), strict=True)
        return torch.cat([self._attack_together(model, *block) for block in blocks])

    def _attack_together(self, model: Model, images: Tensor, labels: Tensor, samples: Tensor) -> Tensor:
        """Protocol "paper" on one block of at most 128 images."""
        assert self.lr is not None
        attacked = images.detach().clone(memory_format=torch.contiguous_format)
        evaluations = 0

        def closure() -> float:
            nonlocal evaluations
            seen = expected_loss(
                model,
                attacked,
                labels,
                draws=self.draws,
                seed=noise_seed(self.seed),
                samples=samples,
                first_draw=evaluations * self.draws,
            )
            evaluations += 1
            attacked.grad = -seen.gradient / len(labels)
            return -float(seen.loss.mean())

        torch.optim.LBFGS([attacked], lr=self.lr, max_iter=self.steps).step(closure)
        return attacked.clamp(0.0, 1.0)
