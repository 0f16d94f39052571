"""Random streams that are passed in: counter-based, so that a draw belongs to its sample and not to its batch.

`philox` is Philox4x32-10 (Salmon, Moraes, Dror, Shaw: *Parallel random numbers: as easy as 1, 2, 3*, SC 2011) in
torch integer arithmetic: any device, vectorised, no state. `SampleRandom` uses it to give every image its own
stream; `BatchRandom` gives a `torch.Generator` the same three methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

MASK32 = 0xFFFFFFFF
_MULTIPLIER_0, _MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85

_CACHED = 1 << 15  # words at a time on a CPU: they stay in its cache, and below what torch shares out to threads
_COMPILED_FROM = 1 << 16  # words from which a CPU takes the compiled loop; below, loading it would not pay


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
def _compiled_philox() -> Callable[..., None] | None:
    """`fill(words [rows, blocks, 4], samples [rows], call, purpose, key0, key1)` by numba; None where it is missing.

    The same numbers as `philox`, ten times as fast, since sixteen counters share a register and none touches memory.
    """
    try:
        from numba import njit, uint32, uint64
    except ImportError:
        return None
    import numpy as np

    lanes = 16

    @njit(cache=True)
    def fill(words: Any, samples: Any, call: int, purpose: int, key0: int, key1: int) -> None:
        blocks = words.shape[1]
        block = np.empty((4, lanes), np.uint32)
        for row in range(len(samples)):
            sample = uint32(samples[row])
            for start in range(0, blocks, lanes):
                for lane in range(lanes):
                    c0, c1, c2, c3 = uint32(start + lane), sample, uint32(call), uint32(purpose)
                    k0, k1 = uint32(key0), uint32(key1)
                    for _ in range(10):
                        product0, product1 = uint64(_MULTIPLIER_0) * c0, uint64(_MULTIPLIER_1) * c2
                        c0 = uint32(uint32(product1 >> uint64(32)) ^ c1 ^ k0)
                        c2 = uint32(uint32(product0 >> uint64(32)) ^ c3 ^ k1)
                        c1, c3 = uint32(product1), uint32(product0)
                        k0, k1 = uint32(k0 + uint32(_WEYL_0)), uint32(k1 + uint32(_WEYL_1))
                    block[0, lane], block[1, lane], block[2, lane], block[3, lane] = c0, c1, c2, c3
                for lane in range(min(lanes, blocks - start)):
                    for word in range(4):
                        words[row, start + lane, word] = block[word, lane]

    return fill


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

    def _words(self, count: int) -> Iterator[tuple[slice, Tensor]]:
        """Rows of samples and their words, `Int64[rows, count]` in [0, 2³²), until every sample had its turn."""
        call, device = self._calls, self.samples.device
        self._calls += 1
        blocks = -(-count // 4)
        on_cpu = device.type == "cpu"
        compiled = _compiled_philox() if on_cpu and len(self.samples) * count >= _COMPILED_FROM else None
        position = torch.arange(blocks, device=device)[None]
        rows = max(1, (_CACHED if on_cpu else 1 << 26) // max(count, 1))
        for start in range(0, len(self.samples), rows):
            chunk = slice(start, start + rows)
            samples = self.samples[chunk] & MASK32
            # The last counter word keeps this stream apart from the noise layers', which number layers from 0 there.
            if compiled is not None:
                words = torch.empty(len(samples), blocks, 4, dtype=torch.int64)
                keys = self.seed & MASK32, (self.seed >> 32) & MASK32
                compiled(words.numpy(), samples.numpy(), call, MASK32, *keys)
            else:
                purpose = torch.full_like(position, MASK32)
                counter = position, samples[:, None], torch.full_like(position, call), purpose
                words = torch.stack(torch.broadcast_tensors(*philox(counter, self.seed)), dim=-1)
            yield chunk, words.flatten(1)[:, :count]

    def rand(self, *shape: int) -> Tensor:
        count = math.prod(shape)
        draws = torch.empty(len(self.samples), count, device=self.samples.device)
        for rows, words in self._words(count):
            draws[rows] = _unit(words)
        return draws.view(len(self.samples), *shape)

    def randn(self, *shape: int) -> Tensor:
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
