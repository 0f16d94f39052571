"""The four concepts. Everything in noiseopt is one of these, or makes one, or shows one.

- **Model**: images in [0, 1] → logits; normalisation is its first layer, inside.
- **Defence**: Model → Model.
- **Perturbation**: `(model, images, labels) → images`; clean, attack and corruption alike.
- **Record**: one measured number, one JSON line.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from noiseopt.errors import UserError

_ROUNDING = 1e-6

Model = nn.Module
"""`Float[N, C, H, W]` in [0, 1] → logits `Float[N, classes]`."""

Defence = Callable[[nn.Module], nn.Module]
"""Takes any Model and returns a Model; never changes the one it was given."""


@runtime_checkable
class Perturbation(Protocol):
    """Images in, images of the same shape out, still in [0, 1].

    `samples` are the identities of the images (`Int64[N]`), on which a perturbation keys its own randomness, so
    that an image is perturbed alike whatever batch it comes in; `None` stands for 0, 1, ..., N-1. A perturbation
    without randomness may ignore it. Attributes that are settings are read by name into the Record
    (see `describe`).
    """

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, samples: Tensor | None = None) -> Tensor: ...


class Record(BaseModel):
    """One measured number, with what is needed to believe it and to measure it again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str = Field(default="accuracy", description="what `value` is")
    value: float = Field(description="the measured number")
    count: int = Field(ge=1, description="how many images it was measured on")
    low: float = Field(description="lower end of the 95 % interval")
    high: float = Field(description="upper end of the 95 % interval")
    perturbation: str = Field(default="clean", description="name of the perturbation")
    parameters: dict[str, Any] = Field(default_factory=dict, description="its settings")
    noise: bool = Field(description="was the model's noise on at inference (and for the attack)?")
    draws: int = Field(ge=1, description="noise draws averaged for each prediction")
    seed: int = Field(default=0, description="seed of the noise and of the perturbation")
    # What only an experiment knows:
    model: str = Field(default="", description="row of the table")
    model_seed: int | None = Field(default=None, description="seed of training")
    column: str = Field(default="", description="column of the table")
    protocol: str = Field(default="", description="'paper' or 'strict'")
    recipe: str = Field(default="", description="hash of the part of the recipe that made this number")
    data: str = Field(default="", description="data set, and the part of it")
    data_hash: str = Field(default="", description="SHA-256 of the images and labels measured")
    code: str = Field(default="", description="version of noiseopt that measured it")

    def describe(self) -> str:
        """`0.953 [0.944, 0.961]`: the value and its 95 % interval."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson_interval(correct: int, count: int, *, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson (1927) score interval of a proportion; 95 % by default. Stays in [0, 1], right at 0 and 1 too."""
    share, spread = correct / count, z * z / count
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == count else min(1.0, centre + half)
    return low, high


def clean(model: Model, images: Tensor, labels: Tensor, *, samples: Tensor | None = None) -> Tensor:
    """The perturbation that does nothing."""
    return images


def perturbed(
    perturbation: Perturbation, model: Model, images: Tensor, labels: Tensor, *, samples: Tensor | None
) -> Tensor:
    """What a perturbation makes of `images`, which it is given a copy of; a plain `(model, images, labels)` function
    is one too.

    Raises UserError where it does not return a tensor of the images' shape, in [0, 1].
    """
    known = {"samples": samples} if _takes_samples(perturbation) else {}
    found = perturbation(model, images.clone(), labels, **known)
    if not isinstance(found, Tensor) or found.shape != images.shape:
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        rule = f"a perturbation returns the images as one tensor of their shape {tuple(images.shape)}"
        raise UserError(rule, got=got, fix="return one image for each that came in")
    found = found.detach().to(images.dtype)
    # Written so that NaN fails too; a rounding of the last digits is none of anybody's business.
    if found.numel() and not bool(((found >= -_ROUNDING) & (found <= 1 + _ROUNDING)).all()):
        got = f"values from {found.min().item():g} to {found.max().item():g}"
        raise UserError("a perturbation leaves the images in [0, 1]", got=got, fix="end it with .clamp(0, 1)")
    return found


def _takes_samples(perturbation: Perturbation) -> bool:
    """By name, or with whatever else it is given (`**options`)."""
    asked = perturbation.forward if isinstance(perturbation, nn.Module) else perturbation
    try:
        parameters = inspect.signature(asked).parameters.values()
    except (TypeError, ValueError):  # of a function written in C
        return False
    return any(p.name == "samples" or p.kind is p.VAR_KEYWORD for p in parameters)


def sample_ids(samples: Tensor | None, images: Tensor) -> Tensor:
    """`samples`, or 0, 1, ..., N-1 where it is None: `Int64[N]` on the images' device."""
    if samples is None:
        return torch.arange(len(images), device=images.device)
    return samples.to(images.device)
