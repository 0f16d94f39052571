"""The noise on CPUs: numba, parallel over samples (forward) and over tiles (backward), nothing stored.

The stream is the one that `reference` defines. The 16 lanes of a tile are the 16 float32 of an AVX-512 register (or two
AVX2 ones): every inner loop runs over them, so that the compiler vectorises Philox, xoshiro128++ and Box-Muller alike.
Logarithm, sine and cosine are polynomials (errors below 2e-7), since a call to libm would not vectorise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange, types
from numba.extending import intrinsic
from torch import Tensor

from noiseopt.loops import both_ways, threads_for
from noiseopt.noise.kernels import fits, reference
from noiseopt.noise.kernels.reference import LANES, lanes_of

TILE, BLOCK = 1024, 64
SERIAL_BELOW = 32_768  # elements; waking threads costs more than these take

_FAST: dict[str, Any] = {"fastmath": True, "error_model": "numpy"}
f32, i32, u32, u64 = np.float32, np.int32, np.uint32, np.uint64

L0, L1, L2, L3, L4, L5, L6, L7 = map(f32, fits.LOG1P)
S0, S1, S2, S3, S4 = map(f32, fits.SIN)
C0, C1, C2, C3, C4 = map(f32, fits.COS)
LN2, HALF_ULP, ULP = f32(0.69314718), f32(2.0**-32), f32(2.0**-31)
ONE, MINUS_TWO, TINY = f32(1), f32(-2), f32(1e-12)
SIGN, MANTISSA, THREE_QUARTERS = u32(0x80000000), u32(0x007FFFFF), u32(0x3F400000)


def _reinterpret(source: Any, target: Any) -> Any:
    """A compiled function that reads the same 32 bits as another type."""

    def build(typing_context: Any, x: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], context.get_value_type(target))

        return target(source), code

    return intrinsic(build)


_bits, _float = _reinterpret(types.float32, types.uint32), _reinterpret(types.uint32, types.float32)


@njit(cache=True, **_FAST)
def _philox(state, k0, k1):  # type: ignore[no-untyped-def]
    """Philox4x32-10 of every lane's counter, in place; rounds outside and lanes inside, to vectorise."""
    for _ in range(10):
        for lane in range(LANES):
            p0 = u64(0xD2511F53) * u64(state[0, lane])
            p1 = u64(0xCD9E8D57) * u64(state[2, lane])
            state[0, lane] = u32(u32(p1 >> u64(32)) ^ state[1, lane] ^ k0)
            state[2, lane] = u32(u32(p0 >> u64(32)) ^ state[3, lane] ^ k1)
            state[1, lane] = u32(p1)
            state[3, lane] = u32(p0)
        k0 = u32(k0 + u32(0x9E3779B9))
        k1 = u32(k1 + u32(0xBB67AE85))


@njit(cache=True, **_FAST)
def _box_muller(x, y):  # type: ignore[no-untyped-def]
    """Two normals from two words; see `reference._box_muller` for the formula."""
    uniform = f32(i32(x >> u32(1))) * ULP + HALF_ULP
    # log(uniform) = exponent · ln 2 + log1p(f), with 1 + f in [3/4, 3/2) so that f = 0 at uniform = 1.
    shifted = u32(_bits(uniform) - THREE_QUARTERS)
    exponent = f32(i32(shifted) >> i32(23))
    f = _float(u32(u32(shifted & MANTISSA) + THREE_QUARTERS)) - ONE
    log1p = f * (((((((L7 * f + L6) * f + L5) * f + L4) * f + L3) * f + L2) * f + L1) * f + L0)
    radius = np.sqrt(max(MINUS_TWO * (exponent * LN2 + log1p), TINY))
    s = f32(i32(y) >> i32(1)) * ULP
    q = s * s
    sine = ((((S4 * q + S3) * q + S2) * q + S1) * q + S0) * s
    cosine = (((C4 * q + C3) * q + C2) * q + C1) * q + C0
    return radius * sine, _float(u32(_bits(f32(radius * cosine)) ^ u32(y << u32(31))))


@njit(cache=True, **_FAST)
def _normals(z, state, words, blocks):  # type: ignore[no-untyped-def]
    """`blocks` steps of xoshiro128++, four words each, in all lanes: `z[(4 block + slot) · 16 + lane]`."""
    for block in range(blocks):
        for word in range(4):
            for lane in range(LANES):
                a, b, c, d = state[0, lane], state[1, lane], state[2, lane], state[3, lane]
                t = u32(a + d)
                words[word, lane] = u32(u32(u32(t << u32(7)) | (t >> u32(25))) + a)
                t = u32(b << u32(9))
                c = u32(c ^ a)
                d = u32(d ^ b)
                state[1, lane] = u32(b ^ c)
                state[0, lane] = u32(a ^ d)
                state[2, lane] = u32(c ^ t)
                state[3, lane] = u32(u32(d << u32(11)) | (d >> u32(21)))
        at = block * BLOCK
        for lane in range(LANES):
            z[at + lane], z[at + LANES + lane] = _box_muller(words[0, lane], words[1, lane])
        at += 2 * LANES
        for lane in range(LANES):
            z[at + lane], z[at + LANES + lane] = _box_muller(words[2, lane], words[3, lane])


@njit(cache=True, **_FAST)
def _fill_tile(z, state, words, rows, b, tile, n, key):  # type: ignore[no-untyped-def]
    """The first n normals of a tile of row b: `z[i]` is neuron `1024 tile + i`."""
    for lane in range(LANES):
        state[0, lane] = u32(tile * LANES + lane)
        state[1, lane] = u32(rows[b, 0])
        state[2, lane] = u32(rows[b, 1])
        state[3, lane] = u32((key[1] << 16) | key[2])
    _philox(state, u32(u64(key[0])), u32(u64(key[0]) >> u64(32)))
    _normals(z, state, words, (n + BLOCK - 1) // BLOCK)


@njit(cache=True, **_FAST)
def _fill_group(z, state, words, rows, first, lanes, neurons, key):  # type: ignore[no-untyped-def]
    """All normals of `16 / lanes` narrow rows at once: `z[(j // lanes) · 16 + r · lanes + j % lanes]` is neuron j of
    row `first + r`, so that narrow layers fill the register too.
    """
    for lane in range(LANES):
        b = min(first + lane // lanes, len(rows) - 1)
        state[0, lane] = u32(lane % lanes)
        state[1, lane] = u32(rows[b, 0])
        state[2, lane] = u32(rows[b, 1])
        state[3, lane] = u32((key[1] << 16) | key[2])
    _philox(state, u32(u64(key[0])), u32(u64(key[0]) >> u64(32)))
    _normals(z, state, words, (neurons + 4 * lanes - 1) // (4 * lanes))


@njit(cache=True, **_FAST)
def _log2(power):  # type: ignore[no-untyped-def]
    shift = u32(0)
    while (1 << shift) < power:
        shift += u32(1)
    return shift


def _add_wide(v, scale, rows, key, parts):  # type: ignore[no-untyped-def]
    size, neurons = len(scale), v.shape[1]
    for part in prange(parts):
        z = np.empty(TILE, np.float32)
        state, words = np.empty((4, LANES), np.uint32), np.empty((4, LANES), np.uint32)
        for b in range(len(v) * part // parts, len(v) * (part + 1) // parts):
            for tile in range((neurons + TILE - 1) // TILE):
                start = tile * TILE
                n = min(TILE, neurons - start)
                _fill_tile(z, state, words, rows, b, tile, n, key)
                out = v[b, start : start + n]
                if size == neurons:
                    s = scale[start : start + n]
                    for i in range(n):
                        out[i] += s[i] * z[i]
                else:
                    for i in range(n):
                        out[i] += scale[(start + i) % size] * z[i]


def _add_narrow(v, scale, rows, key, lanes, parts):  # type: ignore[no-untyped-def]
    size, neurons = len(scale), v.shape[1]
    per_group, shift, low = LANES // lanes, _log2(lanes), u32(lanes - 1)
    groups = (len(v) + per_group - 1) // per_group
    for part in prange(parts):
        z = np.empty(TILE, np.float32)
        state, words = np.empty((4, LANES), np.uint32), np.empty((4, LANES), np.uint32)
        for group in range(groups * part // parts, groups * (part + 1) // parts):
            first = group * per_group
            _fill_group(z, state, words, rows, first, lanes, neurons, key)
            for b in range(first, min(first + per_group, len(v))):
                out, mine = v[b], z[(b - first) * lanes :]
                if size == neurons:
                    for j in range(neurons):
                        out[j] += scale[j] * mine[(u32(j) >> shift) * LANES + (u32(j) & low)]
                else:
                    for j in range(neurons):
                        out[j] += scale[j % size] * mine[(u32(j) >> shift) * LANES + (u32(j) & low)]


def _sum_wide(g, rows, key, sums, parts):  # type: ignore[no-untyped-def]
    """`sums[j] = Σ_b g[b, j] ε[b, j]`, every neuron by one thread and in the order of b: the same for any `parts`."""
    neurons = g.shape[1]
    tiles = (neurons + TILE - 1) // TILE
    for part in prange(parts):
        z = np.empty(TILE, np.float32)
        state, words = np.empty((4, LANES), np.uint32), np.empty((4, LANES), np.uint32)
        for tile in range(tiles * part // parts, tiles * (part + 1) // parts):
            start = tile * TILE
            n = min(TILE, neurons - start)
            total = sums[start : start + n]
            for b in range(len(g)):
                _fill_tile(z, state, words, rows, b, tile, n, key)
                grad = g[b, start : start + n]
                for i in range(n):
                    total[i] += grad[i] * z[i]


@njit(cache=True, **_FAST)
def _sum_narrow(g, rows, key, sums, lanes):  # type: ignore[no-untyped-def]
    neurons = g.shape[1]
    per_group, shift, low = LANES // lanes, _log2(lanes), u32(lanes - 1)
    z = np.empty(TILE, np.float32)
    state, words = np.empty((4, LANES), np.uint32), np.empty((4, LANES), np.uint32)
    for first in range(0, len(g), per_group):
        _fill_group(z, state, words, rows, first, lanes, neurons, key)
        for b in range(first, min(first + per_group, len(g))):
            grad, mine = g[b], z[(b - first) * lanes :]
            for j in range(neurons):
                sums[j] += grad[j] * mine[(u32(j) >> shift) * LANES + (u32(j) & low)]


@njit(cache=True, **_FAST)
def _equation_7(sigma, grad, h, v, beta1, beta2, rate, correction, eps, fold):  # type: ignore[no-untyped-def]
    for i in range(len(sigma)):
        g = grad[i]
        h[i] += (g - h[i]) * beta1
        v[i] += (g * g - v[i]) * beta2
        moved = sigma[i] - rate * h[i] / np.sqrt(v[i] * correction + eps)
        sigma[i] = abs(moved) if fold else moved


_add_wide_serial, _add_wide_parallel = both_ways(_add_wide, **_FAST)
_add_narrow_serial, _add_narrow_parallel = both_ways(_add_narrow, **_FAST)
_sum_wide_serial, _sum_wide_parallel = both_ways(_sum_wide, **_FAST)


def add_(v: Tensor, scale: Tensor, rows: Tensor, key: Tensor) -> None:
    """`v[b, j] += scale[j mod S] ε[b, j]`."""
    arrays = v.detach().numpy(), scale.detach().numpy(), rows.numpy(), key.numpy()
    threads, lanes = threads_for(v.numel(), serial_below=SERIAL_BELOW), lanes_of(v.shape[1])
    if lanes == LANES:
        (_add_wide_serial if threads == 1 else _add_wide_parallel)(*arrays, threads)
    else:
        (_add_narrow_serial if threads == 1 else _add_narrow_parallel)(*arrays, lanes, threads)


def weighted_sum(g: Tensor, rows: Tensor, key: Tensor, size: int) -> Tensor:
    """`out[s] = Σ_b Σ_{j mod S = s} g[b, j] ε[b, j]`."""
    sums = torch.zeros(g.shape[1], dtype=g.dtype)
    arrays = g.detach().numpy(), rows.numpy(), key.numpy(), sums.numpy()
    threads, lanes = threads_for(g.numel(), serial_below=SERIAL_BELOW), lanes_of(g.shape[1])
    if lanes < LANES:
        _sum_narrow(*arrays, lanes)  # one tile: every neuron's sum is one thread's
    else:
        (_sum_wide_serial if threads == 1 else _sum_wide_parallel)(*arrays, threads)
    return sums if size == g.shape[1] else sums.view(-1, size).sum(0)


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
    """Eq. 7 in one pass, in place; see `reference.sigma_step`."""
    if not (sigma.is_contiguous() and h.is_contiguous() and v.is_contiguous()):
        # A flat copy would be updated in their place.
        reference.sigma_step(sigma, grad, h, v, lr=lr, betas=betas, eps=eps, step=step, fold=fold)
        return
    number = f32 if sigma.dtype == torch.float32 else np.float64
    flat = (t.numpy().ravel() for t in (sigma.detach(), grad.contiguous(), h, v))
    rate, correction = lr / (1 - betas[0] ** step), 1 / (1 - betas[1] ** step)
    _equation_7(*flat, *map(number, (1 - betas[0], 1 - betas[1], rate, correction, eps)), fold)
