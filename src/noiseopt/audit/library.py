"""AutoAttack by its authors' own library, as one attack among the others; the library is optional."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from noiseopt.attacks.settings import check_batch
from noiseopt.concepts import Model
from noiseopt.errors import UserError
from noiseopt.noise import draw_logits


@dataclass(frozen=True, kw_only=True)
class Library:
    """AutoAttack (Croce & Hein 2020) by `pyautoattack`: `rand` for models with noise, `standard` for those without.

    `rand` is APGD on both losses, 100 steps; it is given the mean prediction over `draws` draws, other ones in every
    pass, in place of as many passes of one draw each, by one of which it would also decide who has fallen. `standard`
    is APGD, targeted APGD and FAB, and Square with 5,000 queries. Its random numbers belong to the batch that it is
    given, as those of no other attack here do.
    """

    version: Literal["rand", "standard"]
    eps: float
    classes: int
    draws: int = 20
    seed: int = 0

    @property
    def name(self) -> str:
        return f"autoattack-{self.version}"

    def parameters(self) -> dict[str, Any]:
        """The settings, as they go into a Record."""
        draws = {"draws": self.draws} if self.version == "rand" else {}
        return {"version": self.version, "eps": self.eps, **draws, "seed": self.seed}

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, samples: Tensor | None = None) -> Tensor:
        """`images` (`Float[N, C, H, W]` in [0, 1]) and `labels` (`Int64[N]`) → the images attacked."""
        samples = check_batch(images, labels, samples)
        asked = _Mean(model, self.draws, seed=self.seed ^ int(samples.sum())) if self.version == "rand" else model
        made = _autoattack()(asked, eps=self.eps, version=self.version, seed=self.seed, device=images.device)
        made.apgd.eot_iter = 1
        # It would ask for the nine likeliest classes, however many there are.
        made.apgd_targeted.n_target_classes = made.fab.n_target_classes = min(9, self.classes - 1)
        logging.getLogger("auto-attack").setLevel(logging.CRITICAL)
        devices = [images.device] if images.device.type == "cuda" else []
        # Outside of this block its seeds would be everybody's.
        with torch.random.fork_rng(devices):
            attacked: Tensor = made.run_standard_evaluation(images, labels, batch_size=len(images))[0]
        return attacked.detach()


class _Mean(nn.Module):
    """Logits of the mean probabilities over K draws of a model's noise, other ones in every call."""

    def __init__(self, model: nn.Module, draws: int, *, seed: int) -> None:
        super().__init__()
        self.model, self._draws, self._seed, self._calls = model, draws, seed, 0

    def forward(self, images: Tensor) -> Tensor:
        first = self._calls * self._draws
        self._calls += 1
        chunks = draw_logits(self.model, images, draws=self._draws, seed=self._seed, first_draw=first)
        return torch.stack([chunk.log_softmax(-1).logsumexp(0) for chunk in chunks]).logsumexp(0)


def check_installed(classes: int) -> None:
    """Raises UserError where the library is missing, or cannot attack a model of so few classes."""
    _autoattack()
    if classes < 4:
        raise UserError("AutoAttack needs four classes", got=classes, fix="audit without autoattack")


def _autoattack() -> Any:
    try:
        from pyautoattack import AutoAttack
    except ImportError:
        fix = 'pip install "noiseopt[audit]"'
        raise UserError("AutoAttack is the library pyautoattack, which is not installed", fix=fix) from None
    return AutoAttack
