"""Random streams that are passed in: counter-based, so that a draw belongs to its sample and not to its batch.

`philox` is Philox4x32-10 (Salmon, Moraes, Dror, Shaw: *Parallel random numbers: as easy as 1, 2, 3*, SC 2011) in
torch integer arithmetic: any device, vectorised, no state. `SampleRandom` uses it to give every image its own
stream, on CPUs by the compiled loops of `streams_cpu`; `BatchRandom` gives a `torch.Generator` the same methods.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor

MASK32 = 0xFFFFFFFF
_MULTIPLIER_0, _MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85

_AT_ONCE = 1 << 22  # words that are made together in torch, which takes ten times their memory


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10: four `Int64[...]` words in [0, 2³²) from a 128-bit counter (four such words) and a 64-bit seed.

    32 × 32 → 64-bit products wrap around in int64, but their bits are right, and only bits are used.
    """
    c0, c1, c2, c3 = counter
    key0, key1 = seed & MASK32, (seed >> 32) & MASK32
    for _ in range(10):
        product0, product1 = c0 * _MULTIPLIER_0, c2 * _MULTIPLIER_1
        # c1 and c3 keep their upper halves, which only ever meet the masks: two operations less in every round.
        c0 = ((product1 >> 32) ^ c1).bitwise_xor_(key0).bitwise_and_(MASK32)
        c2 = ((product0 >> 32) ^ c3).bitwise_xor_(key1).bitwise_and_(MASK32)
        c1, c3 = product1, product0
        key0, key1 = (key0 + _WEYL_0) & MASK32, (key1 + _WEYL_1) & MASK32
    return c0, c1 & MASK32, c2, c3 & MASK32


@cache
def _cpu_kernels() -> ModuleType | None:
    """The compiled loops, loaded when first asked for; None where numba is missing."""
    try:
        from noiseopt import streams_cpu
    except ImportError:
        return None
    return streams_cpu


class Random(Protocol):
    """Draws for a batch of N samples; the shape given is that of one sample."""

    def rand(self, *shape: int) -> Tensor:
        """Uniform on [0, 1): `Float32[N, *shape]`."""
        ...

    def randn(self, *shape: int) -> Tensor:
        """Standard normal: `Float32[N, *shape]`."""
        ...

    def randint(self, low: int, high: int, *shape: int) -> Tensor:
        """Uniform on low, ..., high - 1: `Int64[N, *shape]`."""
        ...


class SampleRandom:
    """Draws that depend on (seed, sample, how many calls came before, position), never on the rest of the batch."""

    def __init__(self, seed: int, samples: Tensor) -> None:
        """`samples`: identities in [0, 2³²), `Int64[N]`; draws are made on their device."""
        self.seed = seed
        self.samples = samples.to(torch.int64)
        self._calls = 0

    def _compiled(self, kernel: str, dtype: torch.dtype, shape: tuple[int, ...], *bounds: int) -> Tensor | None:
        """The draws by a loop of `streams_cpu`, or None where there is none for the samples' device."""
        kernels = _cpu_kernels() if self.samples.device.type == "cpu" else None
        if kernels is None:
            return None
        draws = torch.empty(len(self.samples), math.prod(shape), dtype=dtype)
        key = self.seed & MASK32, (self.seed >> 32) & MASK32
        fill: Any = getattr(kernels, kernel)
        fill(draws.numpy(), self.samples.contiguous().numpy(), self._calls, MASK32, *key, *bounds)
        self._calls += 1
        return draws.view(len(self.samples), *shape)

    def _words(self, count: int) -> Iterator[tuple[slice, Tensor]]:
        """Rows of samples and their words, `Int64[rows, count]` in [0, 2³²), until every sample had its turn."""
        position = torch.arange(-(-count // 4), device=self.samples.device)[None]
        call = torch.full_like(position, self._calls)
        self._calls += 1
        # The last counter word keeps this stream apart from the noise layers', which number layers from 0 there.
        purpose = torch.full_like(position, MASK32)
        step = max(1, _AT_ONCE // max(count, 1))
        for start in range(0, len(self.samples), step):
            rows = slice(start, start + step)
            words = philox((position, self.samples[rows, None] & MASK32, call, purpose), self.seed)
            yield rows, torch.stack(torch.broadcast_tensors(*words), dim=-1).flatten(1)[:, :count]

    def rand(self, *shape: int) -> Tensor:
        if (draws := self._compiled("uniform", torch.float32, shape)) is not None:
            return draws
        count = math.prod(shape)
        draws = torch.empty(len(self.samples), count, device=self.samples.device)
        for rows, words in self._words(count):
            draws[rows] = _unit(words)
        return draws.view(len(self.samples), *shape)

    def randn(self, *shape: int) -> Tensor:
        if (draws := self._compiled("normal", torch.float32, shape)) is not None:
            return draws
        count = math.prod(shape)
        half = -(-count // 2)
        draws = torch.empty(len(self.samples), count, device=self.samples.device)
        for rows, words in self._words(2 * half):
            uniform = _unit(words)
            radius = torch.sqrt(-2.0 * torch.log1p(-uniform[:, :half]))
            angle = 2.0 * math.pi * uniform[:, half:]
            draws[rows, :half] = radius * torch.cos(angle)
            draws[rows, half:] = (radius * torch.sin(angle))[:, : count - half]
        return draws.view(len(self.samples), *shape)

    def randint(self, low: int, high: int, *shape: int) -> Tensor:
        if (draws := self._compiled("integers", torch.int64, shape, low, high)) is not None:
            return draws
        # Multiply-shift: the bias is below (high - low) / 2³².
        count = math.prod(shape)
        draws = torch.empty(len(self.samples), count, dtype=torch.int64, device=self.samples.device)
        for rows, words in self._words(count):
            draws[rows] = (words * (high - low) >> 32).add_(low)
        return draws.view(len(self.samples), *shape)


def _unit(words: Tensor) -> Tensor:
    """Words as floats in [0, 1): 24 bits, so that every value is exact in float32 and 1.0 is never reached."""
    return (words >> 8).float().mul_(2.0**-24)


class BatchRandom:
    """A `torch.Generator` behind the same methods; draws are made where the generator lives, then moved."""

    def __init__(self, generator: torch.Generator, count: int, device: torch.device) -> None:
        """`count`: the batch size N. `device`: where the draws are wanted."""
        self._generator, self._count, self._device = generator, count, device

    def rand(self, *shape: int) -> Tensor:
        draws = torch.rand(self._count, *shape, generator=self._generator, device=self._generator.device)
        return draws.to(self._device)

    def randn(self, *shape: int) -> Tensor:
        draws = torch.randn(self._count, *shape, generator=self._generator, device=self._generator.device)
        return draws.to(self._device)

    def randint(self, low: int, high: int, *shape: int) -> Tensor:
        size = (self._count, *shape)
        draws = torch.randint(low, high, size, generator=self._generator, device=self._generator.device)
        return draws.to(self._device)
