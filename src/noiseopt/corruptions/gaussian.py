"""The Gaussian blur of scikit-image, operation by operation, so that results agree to the last bit in float64."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def gaussian_kernel(sigma: float) -> list[float]:
    """Weights of a Gaussian cut off at the pixel nearest to 4 `sigma`, with sum 1; `[1.0]` where that is pixel 0."""
    radius = int(4.0 * sigma + 0.5)
    position = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 / (sigma * sigma) * position**2)
    return (weights / weights.sum()).tolist()


def gaussian_blur(padded: Tensor, weights: list[float]) -> Tensor:
    """Blur the last two axes, rows first; `Float[..., H + 2r, W + 2r]` with r edge pixels repeated on every side.

    Returns the same shape; the r outer pixels of the result mean nothing. Padding once is enough: a repeated column,
    blurred along its rows, is the blurred column repeated.
    """
    # In one dimension every operation is contiguous: what runs over from one row to the next lands in the padding.
    flat = padded.reshape(-1)
    for stride in (padded.shape[-1], 1):
        flat = _correlate(flat, weights, stride)
    return flat.view(padded.shape)


def _correlate(flat: Tensor, weights: list[float], stride: int) -> Tensor:
    """`Σ_j weights[j] flat[i + j stride]`, as scipy sums it: the centre, then the pairs from the outermost inwards."""
    radius = len(weights) // 2
    out = flat * weights[radius]
    reach, end = radius * stride, len(flat) - radius * stride
    inner = out[reach:end]
    for j in range(radius, 0, -1):
        step = j * stride
        # Two operations, not one fused: a fused product is not rounded.
        inner += (flat[reach - step : end - step] + flat[reach + step : end + step]).mul_(weights[radius - j])
    return out
