"""One stream of noise, three ways to compute it; `choose` is the one place that says which.

The contract, kept by every backend (`reference` is its readable definition):

- `add_(v, scale, rows, key)`: `v[b, j] += scale[j mod S] * ε[b, j]`, in place;
- `weighted_sum(g, rows, key, size)`: `out[s] = Σ_b Σ_{j mod S = s} g[b, j] * ε[b, j]`;
- `sigma_step(σ, grad, h, v, lr=, betas=, eps=, step=, fold=)`: Eq. 7, in place;

with `v`, `g`: contiguous `Float[B, M]` (32 or 64 bit), `scale`: `Float[S]`, S a divisor of M, `rows`: `Int64[B, 2]`
(sample, step) of every row, `key`: `Int64[3]` (seed, layer, call), and ε regenerated, never stored.
"""

from __future__ import annotations

import functools
import importlib.util
from typing import Protocol

import torch
from torch import Tensor


class Backend(Protocol):
    """See the contract above."""

    def add_(self, v: Tensor, scale: Tensor, rows: Tensor, key: Tensor) -> None: ...

    def weighted_sum(self, g: Tensor, rows: Tensor, key: Tensor, size: int) -> Tensor: ...

    def sigma_step(
        self,
        sigma: Tensor,
        grad: Tensor,
        h: Tensor,
        v: Tensor,
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        step: int,
        fold: bool = True,
    ) -> None: ...


_forced: str | None = None


def choose(device: torch.device) -> Backend:
    """The fastest backend that works for tensors on `device`: numba on CPUs, Triton on CUDA, else plain torch."""
    return _load(_forced or ("triton" if device.type == "cuda" else "numba" if device.type == "cpu" else "torch"))


def force(name: str | None) -> None:
    """Use this backend ("numba", "triton", "torch") on every device; None: choose again. For tests and benchmarks."""
    global _forced
    if name is not None:
        _load.cache_clear()
    _forced = name


@functools.cache
def _load(name: str) -> Backend:
    # numba and triton are heavy, and each may be missing where the other is at home.
    if name == "numba" and importlib.util.find_spec("numba"):
        from noiseopt.noise.kernels import cpu

        return cpu
    if name == "triton" and importlib.util.find_spec("triton"):
        from noiseopt.noise.kernels import cuda

        return cuda
    from noiseopt.noise.kernels import reference

    return reference
