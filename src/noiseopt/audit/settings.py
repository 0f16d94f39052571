"""What an audit is told."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from noiseopt.attacks.settings import check_count, check_pixel_size, check_seed
from noiseopt.errors import UserError

_USUAL = 20
FAR = 0.5
"""A distance at which any image can be turned into plain grey, so that no honest model is left with much."""


@dataclass(frozen=True, kw_only=True)
class Auditing:
    """How hard to try.

    `eps`: radius of the L∞ ball, in pixel units ([0, 1]). `draws`: noise draws K of the gradients, a ladder that rises.
    `steps`: of PGD, each of `eps` / 10, or of `eps` / `steps` where there are fewer: they must reach the border.
    `apgd_steps`, `restarts`: of APGD. `queries`: of Square. `votes`: draws that decide each image. `subset`: so many of
    the first images see the attacks of the checks in full, whatever fooled them before. `autoattack`: also AutoAttack
    by its authors' library, `rand` with the noise on and `standard` with it off. `seed`: of the noise, the starts and
    the squares.
    """

    eps: float
    draws: tuple[int, ...] = (1, 5, 20, 100)
    steps: int = 40
    apgd_steps: int = 50
    restarts: int = 1
    queries: int = 500
    votes: int = 100
    subset: int = 100
    autoattack: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_pixel_size("eps", self.eps)
        for draws in self.draws:
            check_count("draws", draws)
        if not self.draws or list(self.draws) != sorted(set(self.draws)):
            raise UserError("draws must rise, from one number at least", got=self.draws, fix="draws=(1, 5, 20, 100)")
        for name in ("steps", "apgd_steps", "restarts", "queries", "votes", "subset"):
            check_count(name, getattr(self, name))
        check_seed(self.seed)

    @property
    def usual(self) -> int:
        """The draws of attacks that are no ladder: the most of `draws` that is at most 20, or else the least."""
        return max([draws for draws in self.draws if draws <= _USUAL], default=self.draws[0])

    @property
    def far(self) -> float:
        """The large radius at which nothing should be left."""
        return max(FAR, min(1.0, 2 * self.eps))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"draws": list(self.draws)}
