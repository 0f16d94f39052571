"""Theorems 1 and 2: the gradient of σ, checked against autograd, finite differences, and an exact expectation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from noiseopt.noise import inject, sigmas, stream
from noiseopt.noise.attaching import noisy_modules
from noiseopt.noise.function import AddNoise
from tests.noise.conftest import epsilon


def _naive(net: nn.Sequential, images: Tensor, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The network written out with the formula everyone writes, on the very same draws, σ as fresh leaves."""
    leaves = {name: s.detach().clone().requires_grad_() for name, s in sigmas(net).items()}
    layers = {name: (module, layer) for name, module, layer in noisy_modules(net)}
    v = images
    for name, module in net.named_children():
        v = module.forward(v)  # without the hook
        if name in layers:
            v = v + leaves[name].abs() * epsilon(layers[name][1], rows, v.shape).to(v.dtype)
    return v, leaves


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sigma_gradient_is_that_of_the_naive_formula(
    backend: str, convnet: nn.Module, images: Tensor, dtype: torch.dtype
) -> None:
    """Linear and Conv, σ of both signs, to 1e-6 relative (in the norm of each layer's gradient)."""
    net = inject(convnet.to(dtype), example_input=images[:2].to(dtype), init="normal")
    assert any((s < 0).any() for s in sigmas(net).values())
    images = images.to(dtype)
    ids = torch.arange(6)
    rows = torch.stack([ids, torch.full_like(ids, 3)], 1)
    with stream(net, seed=11, samples=ids, step=3):
        net(images).square().sum().backward()
        out, leaves = _naive(net, images, rows)  # type: ignore[arg-type]
        out.square().sum().backward()
    for name, s in sigmas(net).items():
        error = (s.grad - leaves[name].grad).norm() / leaves[name].grad.norm()  # type: ignore[operator,union-attr]
        assert error < 1e-6


def test_channels_last_keeps_format_and_gradient() -> None:
    v = torch.randn(5, 3, 4, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    sigma = torch.randn(3, 4, 6, requires_grad=True)
    rows, key = torch.stack([torch.arange(5)] * 2, 1), torch.tensor([1, 0, 0])
    out = AddNoise.apply(v, sigma, rows, key, False)
    assert out.is_contiguous(memory_format=torch.channels_last)
    drawn = (out - v).detach() / sigma.detach().abs()
    weights = torch.randn(5, 3, 4, 6)
    for layout in (torch.channels_last, torch.contiguous_format):
        (grad,) = torch.autograd.grad(out, sigma, weights.contiguous(memory_format=layout), retain_graph=True)
        torch.testing.assert_close(grad, (weights * drawn).sum(0) * sigma.detach().sign(), rtol=1e-4, atol=1e-4)


def test_gradcheck_with_the_noise_held_fixed(backend: str) -> None:
    """First and second derivatives, in both arguments, by finite differences."""
    v = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor([0.7, -1.2, 0.3, 2.0, -0.1], dtype=torch.float64, requires_grad=True)
    rows, key = torch.stack([torch.arange(3)] * 2, 1), torch.tensor([5, 2, 0])

    def curved(v: Tensor, sigma: Tensor) -> Tensor:
        return torch.sin(AddNoise.apply(v, sigma, rows, key, False))

    assert gradcheck(curved, (v, sigma))
    assert gradgradcheck(curved, (v, sigma))


def test_finite_differences_of_a_network_with_common_random_numbers(convnet: nn.Module, images: Tensor) -> None:
    net = inject(convnet.double(), example_input=images[:2].double(), init="normal")
    images, labels = images.double(), torch.tensor([0, 1, 2, 3, 4, 0])

    def loss() -> Tensor:
        with stream(net, seed=2, samples=torch.arange(6), step=1):
            return nn.functional.cross_entropy(net(images), labels)

    loss().backward()
    for s in sigmas(net).values():
        assert s.grad is not None
        for index in torch.randint(s.numel(), (5,), generator=torch.Generator().manual_seed(0)).tolist():
            flat, step = s.data.view(-1), 1e-6
            values = []
            for sign in (1, -1):
                flat[index] += sign * step
                values.append(loss().item())
                flat[index] -= sign * step
            numeric = (values[0] - values[1]) / (2 * step)
            assert s.grad.view(-1)[index].item() == pytest.approx(numeric, rel=1e-4, abs=1e-8)


def test_theorem_2_on_a_network_with_an_exact_expectation() -> None:
    """E[(a (w x + |σ| ε) + b)²] = (a w x + b)² + a² σ², so dE/dσ = 2 a² σ, of either sign of σ."""
    first, second = nn.Linear(1, 1), nn.Linear(1, 1)
    net = inject(nn.Sequential(first, second), example_input=torch.ones(1, 1), where=["0"], init=-0.8)
    a = second.weight.item()
    n = 200_000
    with stream(net, seed=0, samples=torch.arange(n)):
        net(torch.ones(n, 1)).square().mean().backward()
    exact = 2 * a**2 * -0.8
    # Var of the estimator: ∂/∂σ = 2 (m + a|σ|ε) a ε sign(σ); four standard errors.
    m = (a * first(torch.ones(1)) + second.bias).item()
    spread = 2 * abs(a) * math.sqrt(m**2 + 2 * (a * 0.8) ** 2)
    assert sigmas(net)["0"].grad.item() == pytest.approx(exact, abs=4 * spread / math.sqrt(n))  # type: ignore[union-attr]


def test_the_sign_of_sigma() -> None:
    """The loss sees |σ|: gradients at σ and -σ are opposite, and at 0 the noise is off and stays off."""
    grads = []
    for value in (0.5, -0.5, 0.0):
        torch.manual_seed(0)
        net = inject(nn.Linear(4, 3), example_input=torch.ones(2, 4), init=1.0)
        with torch.no_grad():
            sigmas(net)[""].fill_(value)
        x = torch.randn(8, 4)
        with stream(net, seed=1, samples=torch.arange(8)):
            net(x).square().sum().backward()
        grads.append(sigmas(net)[""].grad)
    assert torch.equal(grads[0], -grads[1])  # type: ignore[operator]
    assert not grads[2].any()  # type: ignore[union-attr]


def test_nan_stays_nan(backend: str) -> None:
    net = inject(nn.Linear(4, 3), example_input=torch.ones(2, 4), init=0.5)
    x = torch.ones(3, 4)
    x[1] = math.nan
    out = net(x)
    assert out[1].isnan().all()
    assert out[[0, 2]].isfinite().all()


def test_half_precision_adds_what_single_would(backend: str) -> None:
    v = torch.randn(4, 6).bfloat16()
    sigma = torch.rand(6)
    rows, key = torch.stack([torch.arange(4)] * 2, 1), torch.tensor([5, 2, 0])
    half = AddNoise.apply(v, sigma, rows, key, False)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, AddNoise.apply(v.float(), sigma, rows, key, False).bfloat16())


@pytest.mark.parametrize("case", ["linear", "view", "leaf", "sigmoid", "hooked", "subclass"])
def test_noise_is_added_in_place_only_where_that_is_safe(case: str) -> None:
    """Whatever the producer, the gradients are those of the out-of-place formula, and nobody's tensor changes."""

    class Saturating(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(super().forward(x))  # its backward looks at its output

    class Leaky(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return self.bias[: self.out_features].expand(len(x), -1) if case == "view" else self.table[: len(x)]

    torch.manual_seed(0)
    x = torch.randn(4, 5)
    module: nn.Linear = {
        "linear": nn.Linear,
        "sigmoid": Saturating,
        "subclass": Saturating,
        "hooked": nn.Linear,
    }.get(case, Leaky)(5, 3)
    module.table = nn.Parameter(torch.randn(4, 3))  # type: ignore[assignment]
    seen = []
    if case == "hooked":
        module.register_forward_hook(lambda m, a, out: seen.append(out))
    net = inject(module, example_input=x[:2], init=0.7)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    with stream(net, seed=0, samples=torch.arange(4)):
        out = net(x)
        out.square().sum().backward()
    grads = {name: p.grad for name, p in net.named_parameters()}
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())
    if case == "hooked":
        assert torch.equal(seen[-1], module(x))
    net.zero_grad()
    rows = torch.stack([torch.arange(4), torch.zeros(4, dtype=torch.int64)], 1)
    with stream(net, seed=0, samples=torch.arange(4)):
        layer = net.noise
        plain = net.forward(x)
        noisy = plain + layer.sigma.abs() * epsilon(layer, rows, plain.shape)  # type: ignore[union-attr,arg-type]
    noisy.square().sum().backward()
    for name, p in net.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(grads[name], p.grad, rtol=1e-4, atol=1e-5)


def test_backward_holds_no_noise() -> None:
    """What the graph keeps for the noise layer: σ, the rows and the key; nothing of the batch's size times neurons."""
    net = inject(nn.Linear(4, 1000), example_input=torch.ones(1, 4))
    kept = 0

    def pack(t: Tensor) -> Tensor:
        nonlocal kept
        kept += t.numel()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        net(torch.randn(500, 4))
    assert kept < 500 * 4 + 2 * 4 * 1000 + 1000 + 2 * 500 + 3 + 1
