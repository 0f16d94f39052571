"""The batched box-constrained L-BFGS against exact answers and against scipy's, one problem at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize as scipy_minimize
from torch import Tensor, nn

from noiseopt.attacks.box_lbfgs import Objective, _Pairs, minimise
from noiseopt.attacks.gradient import cross_entropy


def differentiated(function: Callable[[Tensor, Tensor], Tensor]) -> Objective:
    """`(points, rows) → values` with its gradients."""

    def objective(points: Tensor, rows: Tensor, step: int) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = points.clone().requires_grad_()
            values = function(leaf, rows)
            (gradients,) = torch.autograd.grad(values.sum(), leaf)
        return values.detach(), gradients

    return objective


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.integers(1, 12))
def test_separable_quadratics_are_solved_exactly(seed: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    curvature = 10 ** (2 * torch.rand(6, size, generator=generator, dtype=torch.float64) - 1)
    target = 3 * torch.rand(6, size, generator=generator, dtype=torch.float64) - 1
    objective = differentiated(lambda x, rows: (curvature[rows] * (x - target[rows]) ** 2).sum(1))
    start = torch.rand(6, size, generator=generator, dtype=torch.float64)
    found = minimise(objective, start, steps=100, history=10, reach=0.5)
    torch.testing.assert_close(found, target.clamp(0, 1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("weight", [0.1, 1.0])
@pytest.mark.parametrize("activation", [nn.Tanh, nn.Softplus])
def test_scipy_agrees(activation: type[nn.Module], weight: float) -> None:
    """On the attack's own objective: as good a minimum to 1 %, with the same pixels at their bounds."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(60, 32), activation(), nn.Linear(32, 5)).double().requires_grad_(False)
    for parameter in net.parameters():
        parameter.mul_(2.5)
    origin = (torch.rand(20, 60, dtype=torch.float64) * 1.6 - 0.3).clamp(0, 1)
    labels = net(origin).argmax(dim=1)

    def function(x: Tensor, rows: Tensor) -> Tensor:
        return weight * (x - origin[rows]).square().sum(1) - cross_entropy(net(x), labels[rows])

    objective = differentiated(function)
    found = minimise(objective, origin, steps=60, history=10, reach=1.0)
    values = objective(found, torch.arange(20), 0)[0]
    same_bounds, worse = [], []
    for i in range(20):

        def single(x: np.ndarray, i: int = i) -> tuple[float, np.ndarray]:
            value, gradient = objective(torch.from_numpy(x)[None], torch.tensor([i]), 0)
            return value.item(), gradient[0].numpy()

        theirs = scipy_minimize(
            single, origin[i].numpy(), jac=True, method="L-BFGS-B", bounds=[(0, 1)] * 60, options={"maxiter": 1000}
        )
        # The objective is not convex: now and then the two end in different minima, either of which may be the lower.
        difference = (values[i].item() - theirs.fun) / abs(theirs.fun)
        worse.append(difference > 0.01)
        if abs(difference) <= 0.01:
            same_bounds.append(((found[i].numpy() % 1 == 0) == (theirs.x % 1 == 0)).mean())
    assert sum(worse) <= 1
    assert len(same_bounds) >= 18
    assert np.mean(same_bounds) > 0.97
    assert (found % 1 == 0).any(dim=1).all(), "or nothing was constrained"


def _rosenbrock(x: Tensor, rows: Tensor) -> Tensor:
    x = 2 * x
    return (100 * (x[:, 1::2] - x[:, ::2] ** 2) ** 2 + (1 - x[:, ::2]) ** 2).sum(1)


def test_it_knows_curvature() -> None:
    """Steepest descent needs thousands of steps in Rosenbrock's valley."""
    start = torch.rand(10, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    objective = differentiated(_rosenbrock)
    found = minimise(objective, start, steps=120, history=10, reach=0.1)
    torch.testing.assert_close(found, torch.full_like(found, 0.5), rtol=0, atol=1e-3)
    forgetful = minimise(objective, start, steps=120, history=1, reach=0.1)
    assert (found - 0.5).abs().mean() <= (forgetful - 0.5).abs().mean()


def test_no_problem_sees_the_others() -> None:
    """Whatever the rest of the batch: solved at once, without progress, or hostile."""
    start = torch.rand(6, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    alone = minimise(differentiated(_rosenbrock), start, steps=25, history=5, reach=0.1)

    calls = itertools.count(1)

    def objective(points: Tensor, rows: Tensor, step: int) -> tuple[Tensor, Tensor]:
        values, gradients = differentiated(_rosenbrock)(points, rows, step)
        flat, liar = rows == 6, rows == 7
        values[flat], gradients[flat] = 0.0, 0.0
        # Promises descent, then jumps: its line search fails at every length.
        values[liar], gradients[liar] = float(next(calls)), 1e3
        return values, gradients

    more = torch.cat([start, torch.full((2, 4), 0.3, dtype=torch.float64)])
    together = minimise(objective, more, steps=25, history=5, reach=0.1)
    torch.testing.assert_close(together[:6], alone, rtol=0, atol=1e-12)
    assert torch.equal(together[6:], more[6:])


def test_values_never_rise_and_the_box_is_kept() -> None:
    seen: list[Tensor] = []

    def bumpy(x: Tensor, rows: Tensor) -> Tensor:
        seen.append(x.detach())
        return (torch.sin(9 * x) + 0.3 * x).sum(1) * torch.arange(1, 9, dtype=torch.float64)[rows]

    objective = differentiated(bumpy)
    start = torch.rand(8, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    value = objective(start, torch.arange(8), 0)[0]
    for steps in (1, 2, 5, 10, 40):
        found = minimise(objective, start, steps=steps, history=4, reach=2.0)
        now = objective(found, torch.arange(8), 0)[0]
        assert (now <= value + 1e-12).all()
        value = now
    assert all(x.min() >= 0 and x.max() <= 1 for x in seen)


def test_a_stochastic_objective_is_taken_anew_at_every_step_and_not_within_one() -> None:
    asked: list[tuple[int, Tensor]] = []

    def objective(points: Tensor, rows: Tensor, step: int) -> tuple[Tensor, Tensor]:
        asked.append((step, points.clone()))
        target = 0.5 + 0.01 * step
        return (points - target).square().sum(1), 2 * (points - target)

    minimise(objective, torch.zeros(1, 3), steps=4, history=3, reach=0.1, stochastic=True)
    steps = [step for step, _ in asked]
    assert steps == sorted(steps)
    assert set(steps) == {0, 1, 2, 3}
    for step in (1, 2, 3):
        first = next(points for number, points in asked if number == step)
        before = [points for number, points in asked if number == step - 1]
        assert any(torch.equal(first, points) for points in before), "each step starts at a point accepted before"


def test_curvature_is_used_where_it_is_known_and_not_forgotten() -> None:
    """f = 2·‖x‖²: the pair (s, 4 s) leads straight to the minimum, steepest descent goes as far as it reaches."""
    point = torch.tensor([[0.8, 0.4]] * 3)
    step = torch.tensor([[0.1, 0.2]] * 3)
    step[2] = 0.0  # this one did not move
    pairs = _Pairs(5, point)
    pairs.push(step, 4 * step)
    everywhere, reaches = torch.ones_like(point), torch.full((3,), 0.1)
    pairs.forget(torch.tensor([False, True, False]))
    direction, curved = pairs.direction(4 * point, everywhere, reaches)
    assert curved.tolist() == [True, False, False]
    torch.testing.assert_close(direction[0], -point[0])
    torch.testing.assert_close(direction[1:], -0.1 * point[1:] / point[1:].norm(dim=1, keepdim=True))
