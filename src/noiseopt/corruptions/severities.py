"""The severities as data: those of CIFAR-10-C and of Tiny-ImageNet-C (Hendrycks & Dietterich, ICLR 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Generic, TypeVar

from torch import Tensor

from noiseopt.errors import UserError

Parameters = TypeVar("Parameters")

LARGE = 64
"""From this many pixels on the shorter side, images take the severities of 64-pixel images."""


@dataclass(frozen=True)
class Table(Generic[Parameters]):
    """One corruption's parameters at severity 1 to 5."""

    small: tuple[Parameters, ...]
    """For 28- and 32-pixel images: CIFAR-10-C."""
    large: tuple[Parameters, ...]
    """For 64-pixel images: Tiny-ImageNet-C."""

    def at(self, severity: int, images: Tensor) -> Parameters:
        """The parameters of this severity for images of this size."""
        check_severity(severity)
        return (self.large if min(images.shape[-2:]) >= LARGE else self.small)[severity - 1]


@dataclass(frozen=True)
class Glass:
    """One severity of the glass blur."""

    sigma: float
    """Standard deviation of the two Gaussian blurs, in pixels."""
    shift: int
    """d: a pixel is displaced by -d, ..., d - 1 pixels along each axis."""
    passes: int
    """How many times the pixels are displaced."""


def check_severity(severity: int) -> None:
    """An integer from 1 to 5, or a `UserError`."""
    if isinstance(severity, bool) or not isinstance(severity, Integral) or not 1 <= severity <= 5:
        raise UserError("severity must be a whole number from 1 to 5", got=severity, fix="pass severity=1, ..., 5")


GAUSSIAN_NOISE = Table(
    small=(0.04, 0.06, 0.08, 0.09, 0.10),
    large=(0.04, 0.08, 0.12, 0.15, 0.18),
)
"""Standard deviation, in units of the pixel range [0, 1]."""

IMPULSE_NOISE = Table(
    small=(0.01, 0.02, 0.03, 0.05, 0.07),
    large=(0.01, 0.02, 0.05, 0.08, 0.14),
)
"""Fraction of the values set to 0 or 1."""

GLASS_BLUR = Table(
    small=(Glass(0.05, 1, 1), Glass(0.25, 1, 1), Glass(0.4, 1, 1), Glass(0.25, 1, 2), Glass(0.4, 1, 2)),
    large=(Glass(0.1, 1, 1), Glass(0.5, 1, 1), Glass(0.6, 1, 2), Glass(0.7, 2, 1), Glass(0.9, 2, 2)),
)

CONTRAST = Table(
    small=(0.75, 0.5, 0.4, 0.3, 0.15),
    large=(0.4, 0.3, 0.2, 0.1, 0.05),
)
"""Factor on the distance from the image's mean."""
