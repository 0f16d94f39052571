"""The definition of the noise ε(seed, layer, call, step, sample, neuron), in plain torch: any device, no compiler.

A tile is 64 · L consecutive neurons of one sample; it has L lanes: 16, or fewer for a layer of at most 512 neurons,
which has one tile (`lanes_of`). A lane's 128-bit state is one Philox4x32-10 call on the counter (tile · 16 + lane,
sample, step, layer · 2¹⁶ + call) under the 64-bit seed. It then runs xoshiro128++ (Blackman & Vigna, *Scrambled
linear pseudorandom number generators*, 2021). Four words of a lane make four normals by Box-Muller; the lanes
together make a block of 4 · L neurons, and 16 blocks a tile:

    neuron = (16 · tile + block) · 4 L + slot · L + lane,    slot = 0, 1 from words 0, 1; slot = 2, 3 from words 2, 3

So ε depends on nothing else: not on the batch, its order, the number of threads, or the process. `call` counts how
often the layer was used since (sample, step) were set, so that a layer used twice in a pass draws twice.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from noiseopt.streams import MASK32, philox

LANES, BLOCKS = 16, 16


def lanes_of(neurons: int) -> int:
    """Lanes of a tile in a layer of so many neurons: as few as give a lane no more than 64, but at most 16."""
    return min(LANES, 1 << (-(-neurons // 64) - 1).bit_length())


def normals(rows: Tensor, key: Tensor, count: int) -> Tensor:
    """ε of the first `count` neurons of every row: `Float32[B, count]`."""
    seed, layer, call = key.tolist()
    lanes = lanes_of(count)
    tiles = -(-count // (64 * lanes))
    lane = torch.arange(lanes, device=rows.device) + LANES * torch.arange(tiles, device=rows.device)[:, None]
    lane = lane.flatten().expand(len(rows), -1)
    sample, step = ((rows[:, i, None] & MASK32).expand_as(lane) for i in (0, 1))
    layer_call = torch.full_like(lane, (layer << 16) | call)
    state = list(philox((lane, sample, step, layer_call), seed))
    slots: list[Tensor] = []
    for _ in range(BLOCKS):
        words = [_next(state) for _ in range(4)]
        for pair in (words[:2], words[2:]):
            slots.extend(_box_muller(*pair))
    # 64 slots of [B, tiles · lanes] → [B, tiles, slots, lanes]
    return torch.stack([slot.view(len(rows), tiles, lanes) for slot in slots], dim=2).flatten(1)[:, :count]


def add_(v: Tensor, scale: Tensor, rows: Tensor, key: Tensor) -> None:
    """`v[b, j] += scale[j mod S] ε[b, j]`."""
    noise = normals(rows, key, v.shape[1]).to(v.dtype)
    v.view(len(v), -1, len(scale)).addcmul_(noise.view(len(v), -1, len(scale)), scale.to(v.dtype))


def weighted_sum(g: Tensor, rows: Tensor, key: Tensor, size: int) -> Tensor:
    """`out[s] = Σ_b Σ_{j mod S = s} g[b, j] ε[b, j]`."""
    noise = normals(rows, key, g.shape[1]).to(g.dtype)
    return (g * noise).view(-1, size).sum(0)


def sigma_step(
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
) -> None:
    """Eq. 7, in place: `h`, `v` ← their moving averages, `σ ← |σ - lr ĥ / √(v̂ + ε)|`; `step` counts from 1.

    `fold=False` leaves the outer |·| out.
    """
    h.lerp_(grad, 1 - betas[0])
    v.lerp_(grad * grad, 1 - betas[1])
    root = (v / (1 - betas[1] ** step)).add_(eps).sqrt_()
    sigma.addcdiv_(h, root, value=-lr / (1 - betas[0] ** step))
    if fold:
        sigma.abs_()


def _next(state: list[Tensor]) -> Tensor:
    """One xoshiro128++ word of every lane; `state` moves on."""
    a, b, c, d = state
    word = (_rotate((a + d) & MASK32, 7) + a) & MASK32
    shifted = (b << 9) & MASK32
    c, d = c ^ a, d ^ b
    b, a = b ^ c, a ^ d
    state[:] = a, b, c ^ shifted, _rotate(d, 11)
    return word


def _rotate(x: Tensor, bits: int) -> Tensor:
    return ((x << bits) & MASK32) | (x >> (32 - bits))


def _box_muller(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two standard normals from two 32-bit words; |z| ≤ 6.67.

    The radius uses the upper 31 bits of x; the upper 31 bits of y are an angle in [-π/2, π/2), its lowest bit the sign
    of the cosine, which makes the circle whole.
    """
    uniform = (x >> 1).float() * 2.0**-31 + 2.0**-32
    radius = torch.sqrt(torch.clamp_min(-2.0 * torch.log(uniform), 1e-12))
    signed = torch.where(y >= 2**31, y - 2**32, y)
    angle = math.pi * ((signed >> 1).float() * 2.0**-31)
    cosine = torch.where((y & 1).bool(), -torch.cos(angle), torch.cos(angle))
    return radius * torch.sin(angle), radius * cosine
