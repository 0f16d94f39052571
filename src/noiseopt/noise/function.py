"""Eq. 1 and Theorem 1 of Xiao et al. as autograd functions: noise in, and its σ-gradient as a by-product.

    forward    v ← v + |σ| ε
    backward   ∂L/∂v = δ,    ∂L/∂σ = sign(σ) Σ_n δ_n ε_n

ε is not kept between the two: it is drawn again from its place in the stream (`kernels.reference`), so noise holds no
memory. At σ = 0 the sign, and with it the gradient, is 0 (as autograd has it for |σ|). NaN in v or σ stays NaN.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from noiseopt.noise.kernels import choose


class AddNoise(Function):
    """`v + |σ| ε`; see the module."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, sigma: Tensor, rows: Tensor, key: Tensor, in_place: bool) -> Tensor:
        """`v`: `Float[n, *features]`, n a multiple of len(rows). `sigma`: `Float[*trailing features]`.

        `in_place` adds into `v` itself, which only the caller can know to be safe (see `layer.may_overwrite`).
        """
        ctx.save_for_backward(sigma, rows, key)
        ctx.format = memory_format(v, sigma.shape)
        if in_place:
            ctx.mark_dirty(v)
            out = v
        else:
            out = v.clone(memory_format=ctx.format)
        _add_(out, sigma.abs(), rows, key)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        sigma, rows, key = ctx.saved_tensors
        grad_sigma = None
        if ctx.needs_input_grad[1]:
            g = grad.contiguous(memory_format=ctx.format)
            # As a function of its own only where somebody will differentiate once more.
            weigh = WeightedSum.apply if torch.is_grad_enabled() else _weighted_sum
            grad_sigma = weigh(g, rows, key, sigma.shape).to(sigma.dtype) * sigma.sign()
        return grad, grad_sigma, None, None, None


class WeightedSum(Function):
    """`Σ_n g_n ε_n` over the batch (and over what the feature shape does not name); its adjoint is `ScaledNoise`."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, rows: Tensor, key: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(rows, key)
        ctx.shape, ctx.dtype, ctx.format = g.shape, g.dtype, memory_format(g, shape)
        return _weighted_sum(g, rows, key, shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        rows, key = ctx.saved_tensors
        return ScaledNoise.apply(grad, rows, key, ctx.shape, ctx.format).to(ctx.dtype), None, None, None


class ScaledNoise(Function):
    """`s ε` for every sample; its adjoint is `WeightedSum`. Only double backward comes here."""

    @staticmethod
    def forward(
        ctx: Any, scale: Tensor, rows: Tensor, key: Tensor, shape: torch.Size, memory: torch.memory_format
    ) -> Tensor:
        ctx.save_for_backward(rows, key)
        ctx.shape, ctx.format = scale.shape, memory
        out = torch.zeros(shape, dtype=scale.dtype, device=scale.device).contiguous(memory_format=memory)
        _add_(out, scale, rows, key)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        rows, key = ctx.saved_tensors
        return (
            WeightedSum.apply(grad.contiguous(memory_format=ctx.format), rows, key, ctx.shape),
            None,
            None,
            None,
            None,
        )


def memory_format(v: Tensor, features: torch.Size) -> torch.memory_format:
    """Channels-last feature maps stay so, and count their neurons in memory order; all others become contiguous."""
    if v.is_contiguous() or len(features) != v.dim() - 1:
        return torch.contiguous_format
    if v.dim() == 4 and v.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    if v.dim() == 5 and v.is_contiguous(memory_format=torch.channels_last_3d):
        return torch.channels_last_3d
    return torch.contiguous_format


def _in_memory_order(features: Tensor) -> Tensor:
    """[C, H, W] → [H, W, C]"""
    return features.movedim(0, -1).contiguous()


def _matrix(v: Tensor, rows: Tensor) -> tuple[Tensor, bool]:
    """A view of `v` as [B, M] in memory order, and whether channels are last in it."""
    if v.is_contiguous():
        return v.view(len(rows), -1), False
    return v.movedim(1, -1).view(len(rows), -1), True


def _computable(dtype: torch.dtype) -> torch.dtype:
    """Kernels work in 32 or 64 bits; half precision passes through float32."""
    return dtype if dtype in (torch.float32, torch.float64) else torch.float32


def _add_(v: Tensor, scale: Tensor, rows: Tensor, key: Tensor) -> None:
    matrix, channels_last = _matrix(v, rows)
    scale = (_in_memory_order(scale) if channels_last else scale).reshape(-1)
    wide = matrix.to(_computable(v.dtype))
    choose(v.device).add_(wide, scale.to(wide.dtype), rows, key)
    if wide is not matrix:
        matrix.copy_(wide)


def _weighted_sum(g: Tensor, rows: Tensor, key: Tensor, shape: torch.Size) -> Tensor:
    matrix, channels_last = _matrix(g, rows)
    sums = choose(g.device).weighted_sum(matrix.to(_computable(g.dtype)), rows, key, shape.numel())
    if channels_last:
        return sums.view(*shape[1:], shape[0]).movedim(-1, 0).contiguous()
    return sums.view(shape)
