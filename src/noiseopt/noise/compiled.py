"""The noise as opaque operators, for `torch.compile`: the compiler sees shapes and a gradient, nothing inside.

Operators with a gradient must not write into their inputs, so the compiled path adds out of place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from noiseopt.noise import function, streaming


@torch.library.custom_op("noiseopt::next_key", mutates_args=("keys",))
def next_key(keys: Tensor, layer: int) -> Tensor:
    """See `stream.Stream`. Opaque, or the compiler would compute the key anew in the backward pass, from the counter
    that has moved on since.
    """
    streaming.refuse_in_backward()
    key = keys[layer].clone()
    keys[layer, 2] += 1
    return key


@next_key.register_fake
def _(keys: Tensor, layer: int) -> Tensor:
    return keys.new_empty(3)


@torch.library.custom_op("noiseopt::add_noise", mutates_args=())
def add_noise(v: Tensor, sigma: Tensor, rows: Tensor, key: Tensor, channels_last: bool) -> Tensor:
    """`v + |σ| ε`; see `function.AddNoise`.

    `channels_last` is how eager execution would hold `v`, and so how neurons are numbered: the compiler may hand over
    another layout, and need not hand over the same one forward and backward.
    """
    with torch.no_grad():
        return function.AddNoise.apply(_laid_out(v, channels_last), sigma, rows, key, False)


@add_noise.register_fake
def _(v: Tensor, sigma: Tensor, rows: Tensor, key: Tensor, channels_last: bool) -> Tensor:
    return torch.empty_like(_laid_out(v, channels_last))


@torch.library.custom_op("noiseopt::noise_sum", mutates_args=())
def noise_sum(g: Tensor, sigma: Tensor, rows: Tensor, key: Tensor, channels_last: bool) -> Tensor:
    """`sign(σ) Σ_n g_n ε_n`"""
    with torch.no_grad():
        sums = function.WeightedSum.apply(_laid_out(g, channels_last), rows, key, sigma.shape)
        return sums.to(sigma.dtype) * sigma.sign()


@noise_sum.register_fake
def _(g: Tensor, sigma: Tensor, rows: Tensor, key: Tensor, channels_last: bool) -> Tensor:
    return torch.empty_like(sigma, memory_format=torch.contiguous_format)


def _laid_out(v: Tensor, channels_last: bool) -> Tensor:
    if not channels_last:
        return v.contiguous()
    return v.contiguous(memory_format=torch.channels_last if v.dim() == 4 else torch.channels_last_3d)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:4])
    ctx.channels_last = inputs[4]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_sigma = None
    if ctx.needs_input_grad[1]:
        grad_sigma = noise_sum(grad, *ctx.saved_tensors, ctx.channels_last)
    return grad, grad_sigma, None, None, None


add_noise.register_autograd(_backward, setup_context=_setup)
