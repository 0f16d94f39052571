"""The L-BFGS attack of Szegedy et al. (2014) for a whole batch at once, each image a problem of its own.

Two questions, both asked of the box-constrained solver in `box_lbfgs`, r being the perturbation:

- the strongest: maximise the expected loss subject to `x + r ∈ [0, 1]` and distortion(r) ≤ max_distortion;
- the smallest: minimise `c·‖r‖² + log p_y(x + r)` subject to `x + r ∈ [0, 1]`, for the largest c whose minimiser
  still fools. (The paper has `c·|r| + loss of a target class`; this is untargeted.)

The second alone would be no fair attack within a budget. From a confident class the minimiser jumps from far beyond
the decision boundary straight back to the image as c grows, so that distortions in between are never visited. And
with a stochastic model it would pick the image that fooled by luck, which is why only the first is asked there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from noiseopt.attacks.box_lbfgs import Objective, minimise
from noiseopt.attacks.gradient import Expectation, expected_loss, noise_seed
from noiseopt.concepts import Model
from noiseopt.noise import has_noise

# The range of c, as a multiple of the c at which the two terms are in balance on the decision boundary. Were the logits
# linear, the c sought would be between 1 and 1.5 of it.
_LOWEST, _HIGHEST = 1 / 16, 16.0
# Of the line search at the end: the distortion is found to 1/256.
_HALVINGS = 8


def rms(difference: Tensor) -> Tensor:
    """Szegedy's distortion: root mean square over the pixels of each row of `Float[N, D]`; `Float[N]`."""
    return difference.square().mean(dim=1).sqrt()


@dataclass(eq=False)
class Szegedy:
    """The settings of `LBFGS`, and the N images at hand."""

    model: Model
    images: Tensor
    labels: Tensor
    samples: Tensor
    steps: int
    search_steps: int
    history: int
    max_distortion: float
    draws: int
    seed: int
    origin: Tensor = field(init=False)
    stochastic: bool = field(init=False)

    def __post_init__(self) -> None:
        self.origin = self.images.detach().flatten(1)
        self.stochastic = has_noise(self.model)

    def attack(self) -> Tensor:
        """`Float[N, C, H, W]`: a smallest image that fools where one was found, else the strongest; see `LBFGS`."""
        best = _Smallest(self.origin, self.labels)
        strongest = self._strongest(best)
        if self.stochastic or self.search_steps == 0:
            return strongest.view_as(self.images)
        fooled = torch.isfinite(best.distortion).nonzero()[:, 0]
        if len(fooled):
            self._shorten(best, best.points[fooled], fooled)
            self._search_c(best, fooled)
        found = torch.isfinite(best.distortion)[:, None]
        return torch.where(found, best.points, strongest).view_as(self.images)

    def look(self, points: Tensor, rows: Tensor, step: int) -> Expectation:
        """The expected loss of `points` (`Float[n, D]`) as images number `rows`, under the draws of `step`."""
        return expected_loss(
            self.model,
            points.view(-1, *self.images.shape[1:]),
            self.labels[rows],
            draws=self.draws,
            seed=noise_seed(self.seed),
            samples=self.samples[rows],
            first_draw=step * self.draws,
        )

    def _strongest(self, best: _Smallest) -> Tensor:
        """Greatest loss within the budget: `Float[N, D]`. The budget is kept by scaling r into its ball."""

        def into_ball(away: Tensor) -> Tensor:
            return (self.max_distortion / rms(away).clamp(min=self.max_distortion))[:, None]

        def objective(points: Tensor, rows: Tensor, step: int) -> tuple[Tensor, Tensor]:
            origin = self.origin[rows]
            scale = into_ball(points - origin)
            away = scale * (points - origin)
            seen = self.look(origin + away, rows, step)
            best.offer(origin + away, rows, seen)
            # The chain rule through the scaling: outside the ball nothing changes along r.
            gradient = seen.gradient.flatten(1)
            outward = away / away.norm(dim=1, keepdim=True).clamp(min=torch.finfo(away.dtype).tiny)
            along = (gradient * outward).sum(dim=1, keepdim=True) * outward
            return -seen.loss, -torch.where(scale < 1, scale * (gradient - along), gradient)

        away = self._minimise(objective, self.origin) - self.origin
        return self.origin + into_ball(away) * away

    def _search_c(self, best: _Smallest, rows: Tensor) -> None:
        """Bisect in log c for images number `rows`, for which `best` has points that fool.

        A minimiser that fools lies well beyond the decision boundary; it is the direction that is sought.
        """
        # An image that fools as it is has r = 0, and nothing to search for.
        rows = rows[best.distortion[rows] > 0]
        if len(rows) == 0:
            return
        start = best.points[rows]
        slope = self.look(start, rows, 0).gradient.flatten(1).norm(dim=1)
        balance = (slope / (2 * (start - self.origin[rows]).norm(dim=1))).clamp(min=torch.finfo(slope.dtype).tiny)
        low, high = (balance * _LOWEST).log(), (balance * _HIGHEST).log()
        for _ in range(self.search_steps):
            log_c = (low + high) / 2
            weight = log_c.exp()

            def objective(points: Tensor, subset: Tensor, step: int, weight: Tensor = weight) -> tuple[Tensor, Tensor]:
                away = points - self.origin[rows[subset]]
                seen = self.look(points, rows[subset], step)
                best.offer(points, rows[subset], seen)
                value = weight[subset] * away.square().sum(dim=1) - seen.loss
                return value, 2 * weight[subset, None] * away - seen.gradient.flatten(1)

            point = self._minimise(objective, start)
            fooled = self.look(point, rows, 0).fooled(self.labels[rows])
            low, high = torch.where(fooled, log_c, low), torch.where(fooled, high, log_c)
            # From an image that fools: the distance term pulls it back, while one that does not may sit in a
            # local minimum beside the original, where p_y is flat.
            start = torch.where(fooled[:, None], point, start)
        self._shorten(best, start, rows)

    def _shorten(self, best: _Smallest, points: Tensor, rows: Tensor) -> None:
        """Bisect on the straight lines from `points`, which fool, to the originals."""
        origin = self.origin[rows]
        away = points - origin
        low, high = torch.zeros_like(origin[:, :1]), torch.ones_like(origin[:, :1])
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            point = origin + middle * away
            seen = self.look(point, rows, 0)
            best.offer(point, rows, seen)
            fooled = seen.fooled(self.labels[rows])[:, None]
            low, high = torch.where(fooled, low, middle), torch.where(fooled, middle, high)

    def _minimise(self, objective: Objective, start: Tensor) -> Tensor:
        reach = 0.5 * self.max_distortion * math.sqrt(self.origin.shape[1])
        return minimise(
            objective,
            start,
            steps=self.steps,
            history=self.history,
            reach=reach,
            stochastic=self.stochastic,
        )


class _Smallest:
    """The fooling images of smallest distortion among all that were looked at."""

    def __init__(self, origin: Tensor, labels: Tensor) -> None:
        self._origin, self._labels = origin, labels
        self.points = origin.clone()
        self.distortion = torch.full_like(origin[:, 0], torch.inf)

    def offer(self, points: Tensor, rows: Tensor, seen: Expectation) -> None:
        """`points` (`Float[n, D]`) are images number `rows`, looked at."""
        distortion = rms(points - self._origin[rows])
        better = seen.fooled(self._labels[rows]) & (distortion < self.distortion[rows])
        self.points[rows[better]], self.distortion[rows[better]] = points[better], distortion[better]
