"""L-BFGS in a box for many small problems at once: nothing here knows of images or models.

Each row of `Float[N, D]` is a problem of its own, with its own active set, curvature pairs and line search, so that
one that fails or has converged leaves the others alone. The method is projected quasi-Newton (Bertsekas 1982) with
the two-loop recursion of Nocedal (1980) over the free variables.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Objective = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""`(points Float[n, D], rows Int64[n], step) → (values Float[n], gradients Float[n, D])`: of problems `rows`."""

_ARMIJO = 1e-4
_TRIALS = 6


def minimise(
    objective: Objective, start: Tensor, *, steps: int, history: int, reach: float, stochastic: bool = False
) -> Tensor:
    """Minimise each problem over [0, 1]^D from `start` (`Float[N, D]`) by at most `steps` iterations.

    `history`: curvature pairs kept. `reach`: length (L2) of the first step, where nothing is known of the
    curvature. `stochastic`: values at one point differ from step to step (but not within a step), so that the
    value and gradient to improve on are taken anew at each step; the two gradients of a curvature pair then
    still share their randomness. Returns `Float[N, D]`; deterministic values never increase
    (but for rounding).
    """
    rows = torch.arange(len(start), device=start.device)
    point = start.clone()
    value, gradient = objective(point, rows, 0)
    value, gradient = value.clone(), gradient.clone()
    pairs = _Pairs(history, point)
    reaches = torch.full_like(value, reach)
    running = torch.ones_like(rows, dtype=torch.bool)
    for step in range(steps):
        rows = running.nonzero()[:, 0]
        if len(rows) == 0:
            break
        if stochastic and step > 0:
            value[rows], gradient[rows] = objective(point[rows], rows, step)
        blocked = ((point <= 0) & (gradient > 0)) | ((point >= 1) & (gradient < 0))
        free = (~blocked).to(point.dtype)
        direction, curved = pairs.direction(gradient, free, reaches)
        old_point, old_gradient = point, gradient
        point, value, gradient, accepted, moved = _search(objective, point, value, gradient, direction, rows, step)
        pairs.push(point - old_point, gradient - old_gradient)
        # A row that found no lower point tries steepest descent next, and shorter steps, and then it is done.
        pairs.forget(~accepted & curved)
        reaches = torch.where(accepted, (2 * moved).clamp(min=1e-3 * reach), 0.01 * reaches)
        still = (point - old_point).abs().amax(dim=1) <= 1e-7
        running &= torch.where(accepted, ~still, curved | (reaches > 1e-5 * reach))
    return point


def _search(
    objective: Objective,
    point: Tensor,
    value: Tensor,
    gradient: Tensor,
    direction: Tensor,
    rows: Tensor,
    step: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Backtrack along the projected path, each of `rows` by itself, until Armijo's condition holds."""
    new_point, new_value, new_gradient = point.clone(), value.clone(), gradient.clone()
    accepted = torch.zeros_like(value, dtype=torch.bool)
    moved = torch.zeros_like(value)
    length = torch.ones_like(value)
    for _ in range(_TRIALS):
        here, before = point[rows], value[rows]
        trial = (here + length[rows, None] * direction[rows]).clamp(0.0, 1.0)
        trial_value, trial_gradient = objective(trial, rows, step)
        move = trial - here
        slope = (gradient[rows] * move).sum(dim=1)
        # The last digits of a value are noise: without the slack a converged row would search in vain.
        slack = 4 * torch.finfo(value.dtype).eps * before.abs()
        good = (slope < 0) & (trial_value <= before + _ARMIJO * slope + slack)
        done = rows[good]
        new_point[done], new_value[done], new_gradient[done] = trial[good], trial_value[good], trial_gradient[good]
        accepted[done], moved[done] = True, move[good].norm(dim=1)
        # The minimum of the parabola through value, slope and trial value, kept within [0.1, 0.5].
        shrink = (-slope / (2 * (trial_value - before - slope))).nan_to_num(0.1).clamp(0.1, 0.5)
        length[rows] *= shrink
        rows = rows[~good]
        if len(rows) == 0:
            break
    return new_point, new_value, new_gradient, accepted, moved


class _Pairs:
    """The last `history` steps s and gradient changes y of every problem."""

    def __init__(self, history: int, like: Tensor) -> None:
        self._history = history
        self._known: list[tuple[Tensor, Tensor, Tensor]] = []  # oldest first: s, y (Float[N, D]), use (Bool[N])

    def push(self, step: Tensor, change: Tensor) -> None:
        self._known = [*self._known, (step, change, torch.ones_like(step[:, 0], dtype=torch.bool))]
        self._known = self._known[-self._history :]

    def forget(self, rows: Tensor) -> None:
        for _, _, use in self._known:
            use &= ~rows

    def direction(self, gradient: Tensor, free: Tensor, reaches: Tensor) -> tuple[Tensor, Tensor]:
        """`-H g` on the free variables, 0 on the others; and whether curvature was known, `Bool[N]`."""
        projected = gradient * free
        result = projected.clone()
        scale = torch.zeros_like(reaches)
        applied: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for step, change, use in reversed(self._known):
            free_step, free_change = step * free, change * free
            curvature, square = _dot(free_step, free_change), _dot(free_change, free_change)
            use = use & (curvature > 1e-10 * square)
            inverse = torch.where(use, 1 / curvature, 0.0)
            # The newest pair that can be used scales the rest.
            scale = torch.where(use & (scale == 0), curvature / square, scale)
            weight = inverse * _dot(free_step, result)
            result -= weight[:, None] * free_change
            applied.append((free_step, free_change, inverse, weight))
        curved = scale > 0
        norm = projected.norm(dim=1)
        steepest = reaches / norm.clamp(min=torch.finfo(norm.dtype).tiny)
        result *= torch.where(curved, scale, steepest)[:, None]
        for free_step, free_change, inverse, weight in reversed(applied):
            correction = weight - inverse * _dot(free_change, result)
            result += correction[:, None] * free_step
        # Longer steps than the box is wide only hit its walls.
        widest = result.abs().amax(dim=1, keepdim=True).clamp(min=1.0)
        return -result / widest, curved


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return torch.linalg.vecdot(left, right)
