"""Corruptions by name, and as a Perturbation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from noiseopt.concepts import Model, sample_ids
from noiseopt.corruptions.glass import glass_blur
from noiseopt.corruptions.pixelwise import contrast, gaussian_noise, impulse_noise
from noiseopt.corruptions.severities import check_severity
from noiseopt.errors import UserError
from noiseopt.streams import SampleRandom

CORRUPTIONS: dict[str, Callable[..., Tensor]] = {
    "gaussian_noise": gaussian_noise,
    "impulse_noise": impulse_noise,
    "glass_blur": glass_blur,
    "contrast": contrast,
}
"""Each is called as `corrupt(images, *, severity, generator=None)`."""


@dataclass(frozen=True)
class Corruption:
    """A corruption as a Perturbation: the same image is corrupted in the same way, whatever batch it comes in.

    `name`: one of `CORRUPTIONS`. `severity`: 1 to 5. `seed`: any whole number. The draws of an image belong to its
    identity, and name, severity and seed are mixed into one key, so that no two corruptions or severities share draws,
    as they do not in the published benchmark. The model and the labels are not looked at.

    >>> corrupted = Corruption("glass_blur", severity=3)(model, images, labels, samples=ids)  # doctest: +SKIP
    """

    name: str
    severity: int = field(kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if self.name not in CORRUPTIONS:
            raise UserError(
                f"the corruption must be one of {', '.join(CORRUPTIONS)}", got=self.name, fix="pass one of these names"
            )
        check_severity(self.severity)
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            raise UserError("seed must be a whole number", got=self.seed, fix="pass seed=0")

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, samples: Tensor | None = None) -> Tensor:
        """`Float[N, C, H, W]` in [0, 1] in and out; `samples`: `Int64[N]`, identities; None for 0, 1, ..., N - 1."""
        random = SampleRandom(self._key(), sample_ids(samples, images))
        return CORRUPTIONS[self.name](images, severity=self.severity, generator=random)

    def _key(self) -> int:
        text = f"{self.name}/{self.severity}/{self.seed}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
