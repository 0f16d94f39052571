"""SigmaAdam is Eq. 7 of the paper."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from noiseopt.errors import UserError
from noiseopt.noise import SigmaAdam


def _equation_7(sigma: np.ndarray, grads: list[np.ndarray], lr: float, eps: float) -> np.ndarray:
    """The paper's formula, line by line, in float64."""
    h, v = np.zeros_like(sigma), np.zeros_like(sigma)
    for count, g in enumerate(grads, start=1):
        h = 0.9 * h + (1 - 0.9) * g
        v = 0.999 * v + (1 - 0.999) * g * g
        h_hat = h / (1 - 0.9**count)
        v_hat = v / (1 - 0.999**count)
        sigma = np.abs(sigma - lr * h_hat / np.sqrt(v_hat + eps))
    return sigma


@pytest.mark.parametrize("eps", [1e-8, 1e-2])
def test_it_is_equation_7(eps: float) -> None:
    random = np.random.default_rng(0)
    starts = [random.normal(size=(7,)), random.normal(size=(2, 3, 4))]
    grads = [[random.normal(size=s.shape) * 10 ** random.uniform(-5, 0) for s in starts] for _ in range(40)]
    params = [torch.tensor(s, requires_grad=True) for s in starts]
    optimiser = SigmaAdam(params, lr=0.05, eps=eps)
    for step in grads:
        for p, g in zip(params, step, strict=True):
            p.grad = torch.tensor(g)
        optimiser.step()
    for number, p in enumerate(params):
        expected = _equation_7(starts[number], [g[number] for g in grads], 0.05, eps)
        np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_a_sigma_of_any_memory_layout_is_updated() -> None:
    start = torch.rand(2, 3, 4, 5)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        p = start.clone(memory_format=layout).requires_grad_()
        p.grad = torch.linspace(-1, 1, 120).view(2, 3, 4, 5)
        SigmaAdam([p], lr=0.1).step()
        results.append(p.detach())
    assert not torch.equal(results[0], start)
    torch.testing.assert_close(results[0], results[1])


def test_epsilon_is_inside_the_root() -> None:
    """With a tiny gradient √(v̂ + ε) ≈ √ε = 1e-4, where torch's Adam would divide by |g| + 1e-8."""
    p = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    p.grad = torch.tensor([1e-6], dtype=torch.float64)
    SigmaAdam([p], lr=1e-3).step()
    assert p.item() == pytest.approx(1 - 1e-3 * 1e-6 / np.sqrt(1e-12 + 1e-8), rel=1e-12)


def test_sigma_is_folded_and_nothing_else() -> None:
    p = torch.tensor([0.0005, -0.3, 0.2], requires_grad=True)
    p.grad = torch.tensor([1.0, 0.0, -1.0])
    SigmaAdam([p], lr=1e-3).step()
    torch.testing.assert_close(p.detach(), torch.tensor([0.0005, 0.3, 0.201]))


def test_state_round_trips_and_late_parameters_have_their_own_count() -> None:
    a, b = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
    optimiser = SigmaAdam([a, b])
    a.grad = torch.ones(3)
    optimiser.step()
    assert torch.equal(b, torch.ones(2))
    twin_a, twin_b = a.detach().clone().requires_grad_(), b.detach().clone().requires_grad_()
    twin = SigmaAdam([twin_a, twin_b])
    twin.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    for p in (a, b, twin_a, twin_b):
        p.grad = torch.full_like(p, 0.5)
    optimiser.step(), twin.step()
    assert torch.equal(a, twin_a)
    assert torch.equal(b, twin_b)
    assert b[0].item() == pytest.approx(1 - 1e-3, abs=1e-6)  # its first step


@pytest.mark.parametrize("options", [{"lr": -1.0}, {"betas": (1.0, 0.9)}, {"eps": 0.0}, {"lr": float("nan")}])
def test_bad_settings_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UserError, match="fix:"):
        SigmaAdam([torch.ones(1)], **options)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="learned"):
        SigmaAdam([])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_the_steps_of_single(dtype: torch.dtype) -> None:
    """To the precision that σ has; and a state that was saved goes on."""
    torch.manual_seed(0)
    half, single = torch.ones(50, dtype=dtype, requires_grad=True), torch.ones(50, requires_grad=True)
    optimisers = [SigmaAdam([p], lr=0.05) for p in (half, single)]
    for step in range(6):
        grad = torch.randn(50) * 1e-3
        for p, optimiser in zip((half, single), optimisers, strict=True):
            p.grad = grad.to(p.dtype)
            optimiser.step()
        if step == 3:
            state = copy.deepcopy(optimisers[0].state_dict())
            optimisers[0] = SigmaAdam([half], lr=0.05)
            optimisers[0].load_state_dict(state)
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), single, rtol=0, atol=0.03)
    assert (half - 1).abs().mean() > 0.02


@pytest.mark.parametrize("written", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("read", [torch.bfloat16, torch.float32, torch.float64])
def test_a_state_of_another_precision_goes_on(written: torch.dtype, read: torch.dtype) -> None:
    def stepped(p: torch.Tensor, state: dict[str, Any] | None) -> SigmaAdam:
        optimiser = SigmaAdam([p], lr=0.05)
        if state is not None:
            optimiser.load_state_dict(state)
        p.grad = torch.full_like(p, 0.1)
        optimiser.step()
        return optimiser

    state = stepped(torch.ones(5, dtype=written, requires_grad=True), None).state_dict()
    level = torch.ones(5, dtype=read, requires_grad=True)
    stepped(level, state)
    torch.testing.assert_close(level.double(), torch.full((5,), 0.95, dtype=torch.float64), rtol=0, atol=0.01)
    # As an older version wrote it.
    state["state"][0] |= {name: state["state"][0][name].bfloat16() for name in ("h", "v")}
    stepped(torch.ones(5, dtype=read, requires_grad=True), state)
