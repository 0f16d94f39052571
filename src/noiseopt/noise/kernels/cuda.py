"""The noise on GPUs: Triton, one pass over memory, nothing stored and nothing copied to the host.

The stream is the one that `reference` defines, and everything below follows from the balance of a GPU. An H200 moves
4.8 TB/s, 600 thousand million elements a second at one read and one write of float32; in that time it can spend some
fifty instructions on each. So the arithmetic must fit under the traffic (`_add` has 36, loads and stores included):

- xoshiro128++ is nine integer instructions a word. Philox, ten rounds, is paid once for the 64 words of a lane.
- Logarithm, sine and cosine are the polynomials of `cpu`: a few multiply-adds and no branches. The library functions
  carry the reduction of huge arguments, which never come; the fast approximations lose the logarithm near 1.
- A program is one warp, for a tile of neurons and as many rows of the batch as give its threads a lane, four or eight
  each. Four neighbouring lanes are a 16-byte access, and independent chains of instructions that hide each other's
  latency; one lane each lets a small layer, of 128 samples and one tile say, still spread over 64 schedulers.
- All rows of a program share the tile, hence one read of `scale`. `weighted_sum` adds up its rows in registers and
  writes one row of partial sums; a second pass adds those. No atomics: the same numbers every time.

Grids come from shapes, `rows` and `key` are read on the device: launches may be captured into a CUDA graph.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from noiseopt.noise.kernels import fits, reference
from noiseopt.noise.kernels.reference import lanes_of

BLOCKS, SLOTS = tl.constexpr(reference.BLOCKS), tl.constexpr(4)

# Programs that fill a large GPU (an H200 has 528 schedulers, each of which wants a warp or two).
MANY = 768

# Multiply-adds fused: half of the arithmetic is polynomials. Triton's own default for it varies by version.
_OPTIONS = {"num_warps": 1, "enable_fp_fusion": True}

L0, L1, L2, L3, L4, L5, L6, L7 = map(tl.constexpr, fits.LOG1P)
S0, S1, S2, S3, S4 = map(tl.constexpr, fits.SIN)
C0, C1, C2, C3, C4 = map(tl.constexpr, fits.COS)
LN2, HALF_ULP, ULP = tl.constexpr(0.69314718), tl.constexpr(2.0**-32), tl.constexpr(2.0**-31)
MANTISSA, THREE_QUARTERS = tl.constexpr(0x007FFFFF), tl.constexpr(0x3F400000)


@triton.jit
def _seeded(rows, key, row, present, tile, LANES: tl.constexpr):
    """The states of all lanes: four `uint32[ROWS, LANES]`."""
    sample = tl.load(rows + 2 * row, mask=present, other=0).to(tl.uint32)
    step = tl.load(rows + 2 * row + 1, mask=present, other=0).to(tl.uint32)
    seed = tl.load(key)
    layer_call = ((tl.load(key + 1) << 16) | tl.load(key + 2)).to(tl.uint32)
    # The counter is 16 · tile + lane: a layer with fewer lanes than 16 has tile 0 alone.
    lane = (tile * LANES + tl.arange(0, LANES)[None, :]).to(tl.uint32)
    zero = tl.zeros_like(sample + lane)
    return tl.philox(seed, lane + zero, sample + zero, step + zero, layer_call + zero)


@triton.jit
def _next(a, b, c, d):
    """One xoshiro128++ word of every lane, and the state after it."""
    t = a + d
    word = ((t << 7) | (t >> 25)) + a
    t = b << 9
    c = c ^ a
    d = d ^ b
    b = b ^ c
    a = a ^ d
    return word, a, b, c ^ t, (d << 11) | (d >> 21)


@triton.jit
def _box_muller(x, y):
    """Two normals from two words; see `reference._box_muller` for the formula."""
    uniform = (x >> 1).to(tl.int32, bitcast=True).to(tl.float32) * ULP + HALF_ULP
    # log(uniform) = exponent · ln 2 + log1p(f), with 1 + f in [3/4, 3/2) so that f = 0 at uniform = 1.
    shifted = uniform.to(tl.int32, bitcast=True) - THREE_QUARTERS
    exponent = (shifted >> 23).to(tl.float32)
    f = ((shifted & MANTISSA) + THREE_QUARTERS).to(tl.float32, bitcast=True) - 1.0
    log1p = f * (((((((L7 * f + L6) * f + L5) * f + L4) * f + L3) * f + L2) * f + L1) * f + L0)
    radius = tl.sqrt(tl.maximum(-2.0 * (exponent * LN2 + log1p), 1e-12))
    s = (y.to(tl.int32, bitcast=True) >> 1).to(tl.float32) * ULP
    q = s * s
    sine = ((((S4 * q + S3) * q + S2) * q + S1) * q + S0) * s
    cosine = (((C4 * q + C3) * q + C2) * q + C1) * q + C0
    flipped = (radius * cosine).to(tl.uint32, bitcast=True) ^ (y << 31)
    return radius * sine, flipped.to(tl.float32, bitcast=True)


@triton.jit
def _normals(a, b, c, d):
    """The next block: four slots `float32[ROWS, LANES]` of normals, and the state after them."""
    x, a, b, c, d = _next(a, b, c, d)
    y, a, b, c, d = _next(a, b, c, d)
    z0, z1 = _box_muller(x, y)
    x, a, b, c, d = _next(a, b, c, d)
    y, a, b, c, d = _next(a, b, c, d)
    z2, z3 = _box_muller(x, y)
    return z0, z1, z2, z3, a, b, c, d


@triton.jit
def _place(batch, neurons, ROWS: tl.constexpr, LANES: tl.constexpr):
    """What this program computes: its chunk of rows, these rows [ROWS, 1], its tile, the lanes' first neurons
    [1, LANES], and where the tile begins and ends.
    """
    size: tl.constexpr = BLOCKS * SLOTS * LANES
    tiles = tl.cdiv(neurons, size)
    tile, chunk = tl.program_id(0) % tiles, tl.program_id(0) // tiles
    row = (chunk * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    start = tile * size
    return chunk, row, tile, start + tl.arange(0, LANES)[None, :], start, tl.minimum(neurons, start + size)


@triton.jit
def _load(p, column, present, end, LANES: tl.constexpr, size=1, PERIODIC: tl.constexpr = False):
    """The four slots of the block whose first lanes are `column`; every `size` neurons the same if PERIODIC."""
    c0, c1, c2, c3 = column, column + LANES, column + 2 * LANES, column + 3 * LANES
    m0, m1, m2, m3 = present & (c0 < end), present & (c1 < end), present & (c2 < end), present & (c3 < end)
    if PERIODIC:
        c0, c1, c2, c3 = c0 % size, c1 % size, c2 % size, c3 % size
    return (
        tl.load(p + c0, mask=m0, other=0.0),
        tl.load(p + c1, mask=m1, other=0.0),
        tl.load(p + c2, mask=m2, other=0.0),
        tl.load(p + c3, mask=m3, other=0.0),
    )


@triton.jit
def _store(p, column, present, end, LANES: tl.constexpr, x0, x1, x2, x3):
    tl.store(p + column, x0, mask=present & (column < end))
    tl.store(p + column + LANES, x1, mask=present & (column + LANES < end))
    tl.store(p + column + 2 * LANES, x2, mask=present & (column + 2 * LANES < end))
    tl.store(p + column + 3 * LANES, x3, mask=present & (column + 3 * LANES < end))


@triton.jit(do_not_specialize=["batch"])
def _add(v, scale, rows, key, batch, neurons, size, PERIODIC: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr):
    _chunk, row, tile, column, start, end = _place(batch, neurons, ROWS, LANES)
    present, always = row < batch, tl.full((1, 1), 1, tl.int1)
    a, b, c, d = _seeded(rows, key, row, present, tile, LANES)
    v += row * neurons
    v0, v1, v2, v3 = _load(v, column, present, end, LANES)
    s0, s1, s2, s3 = _load(scale, column, always, end, LANES, size, PERIODIC)
    for _ in range(start, end, SLOTS * LANES):
        # The next block is under way while this one is computed: a small layer has too few warps to hide the wait.
        after = column + SLOTS * LANES
        n0, n1, n2, n3 = _load(v, after, present, end, LANES)
        t0, t1, t2, t3 = _load(scale, after, always, end, LANES, size, PERIODIC)
        z0, z1, z2, z3, a, b, c, d = _normals(a, b, c, d)
        _store(v, column, present, end, LANES, v0 + s0 * z0, v1 + s1 * z1, v2 + s2 * z2, v3 + s3 * z3)
        v0, v1, v2, v3, s0, s1, s2, s3 = n0, n1, n2, n3, t0, t1, t2, t3
        column = after


@triton.jit(do_not_specialize=["batch"])
def _sum(g, rows, key, sums, batch, neurons, ROWS: tl.constexpr, LANES: tl.constexpr):
    """`sums[chunk, j] = Σ_b g[b, j] ε[b, j]` over the rows b of the chunk, in one and the same order every time."""
    chunk, row, tile, column, start, end = _place(batch, neurons, ROWS, LANES)
    present, always = row < batch, tl.full((1, 1), 1, tl.int1)
    a, b, c, d = _seeded(rows, key, row, present, tile, LANES)
    g += row * neurons
    sums += chunk.to(tl.int64) * neurons
    g0, g1, g2, g3 = _load(g, column, present, end, LANES)
    for _ in range(start, end, SLOTS * LANES):
        after = column + SLOTS * LANES
        n0, n1, n2, n3 = _load(g, after, present, end, LANES)
        z0, z1, z2, z3, a, b, c, d = _normals(a, b, c, d)
        x0, x1 = tl.sum(g0 * z0, axis=0, keep_dims=True), tl.sum(g1 * z1, axis=0, keep_dims=True)
        x2, x3 = tl.sum(g2 * z2, axis=0, keep_dims=True), tl.sum(g3 * z3, axis=0, keep_dims=True)
        _store(sums, column, always, end, LANES, x0, x1, x2, x3)
        g0, g1, g2, g3 = n0, n1, n2, n3
        column = after


@triton.jit
def _equation_7(sigma, grad, h, v, count, beta1, beta2, rate, correction, eps, FOLD: tl.constexpr, SIZE: tl.constexpr):
    """`beta1`, `beta2`: 1 - β₁, 1 - β₂."""
    i = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    inside = i < count
    g, mean, square = tl.load(grad + i, inside), tl.load(h + i, inside), tl.load(v + i, inside)
    mean += (g - mean) * beta1
    square += (g * g - square) * beta2
    tl.store(h + i, mean, inside)
    tl.store(v + i, square, inside)
    moved = tl.load(sigma + i, inside) - rate * mean / tl.sqrt(square * correction + eps)
    tl.store(sigma + i, tl.abs(moved) if FOLD else moved, inside)


def _tiles(neurons: int) -> int:
    return triton.cdiv(neurons, BLOCKS.value * SLOTS.value * lanes_of(neurons))


def _rows_per_program(batch: int, neurons: int, *, most: int) -> int:
    """As many rows as leave enough programs for a large GPU, and its threads at most `most` lanes each."""
    lanes = lanes_of(neurons)
    for each in (8, 4):
        rows = each * 32 // lanes
        if each <= most and _tiles(neurons) * triton.cdiv(batch, rows) >= MANY:
            return rows
    return 32 // lanes


def add_(v: Tensor, scale: Tensor, rows: Tensor, key: Tensor) -> None:
    """`v[b, j] += scale[j mod S] ε[b, j]`."""
    if v.numel() == 0:
        return
    batch, neurons = v.shape
    size = len(scale)
    count = _rows_per_program(batch, neurons, most=4)
    grid = (_tiles(neurons) * triton.cdiv(batch, count),)
    # Kernels know addresses, not strides; a gradient that came from a sum, say, has the stride 0.
    inputs = (t.contiguous() for t in (scale, rows, key))
    constants = {"PERIODIC": size < neurons, "ROWS": count, "LANES": lanes_of(neurons), **_OPTIONS}
    with torch.cuda.device_of(v):
        _add[grid](v, *inputs, batch, neurons, size, **constants)


def weighted_sum(g: Tensor, rows: Tensor, key: Tensor, size: int) -> Tensor:
    """`out[s] = Σ_b Σ_{j mod S = s} g[b, j] ε[b, j]`."""
    if g.numel() == 0:
        return g.new_zeros(size)
    batch, neurons = g.shape
    count = _rows_per_program(batch, neurons, most=8)
    chunks = triton.cdiv(batch, count)
    grid = (_tiles(neurons) * chunks,)
    sums = g.new_empty(chunks, neurons)
    inputs = (t.contiguous() for t in (g, rows, key))
    with torch.cuda.device_of(g):
        _sum[grid](*inputs, sums, batch, neurons, ROWS=count, LANES=lanes_of(neurons), **_OPTIONS)
    return sums.view(-1, size).sum(0)


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
    # Triton passes numbers as float32, and kernels know no strides.
    if sigma.dtype != torch.float32 or not all(t.is_contiguous() for t in (sigma, h, v)):
        reference.sigma_step(sigma, grad, h, v, lr=lr, betas=betas, eps=eps, step=step, fold=fold)
        return
    rate, correction = lr / (1 - betas[0] ** step), 1 / (1 - betas[1] ** step)
    numbers = sigma.numel(), 1 - betas[0], 1 - betas[1], rate, correction, eps
    with torch.cuda.device_of(sigma):
        grid = (triton.cdiv(sigma.numel(), 256),)
        _equation_7[grid](sigma, grad.contiguous(), h, v, *numbers, FOLD=fold, SIZE=256, **_OPTIONS)
