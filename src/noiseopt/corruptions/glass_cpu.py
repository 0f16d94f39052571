"""Glass blur on CPUs, compiled by numba: one image at a time, walk and blurs as the public code has them, in cache.

The same results as `glass_torch`, to the bit: no operation is fused or reordered (`fastmath` stays off).
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from noiseopt.streams_cpu import over_rows


@njit(cache=True)
def _correlate(source, target, stride, weights):  # type: ignore[no-untyped-def]
    """`gaussian._correlate` of a flat plane."""
    radius = len(weights) // 2
    reach = radius * stride
    inner = len(source) - 2 * reach
    middle, total = source[reach:], target[reach:]
    for i in range(inner):
        total[i] = middle[i] * weights[radius]
    for j in range(radius, 0, -1):
        # Slices, so that no index can be negative and the loop vectorises.
        before, after, weight = source[reach - j * stride :], source[reach + j * stride :], weights[radius - j]
        for i in range(inner):
            total[i] += (before[i] + after[i]) * weight


@njit(cache=True)
def _pad(plane, height, width, r):  # type: ignore[no-untyped-def]
    """Repeat the edge pixels of the H × W values in the middle of a padded plane r times on every side."""
    columns = width + 2 * r
    for h in range(r, r + height):
        for j in range(r):
            plane[h * columns + j] = plane[h * columns + r]
            plane[h * columns + r + width + j] = plane[h * columns + r + width - 1]
    for j in range(r):
        for w in range(columns):
            plane[j * columns + w] = plane[r * columns + w]
            plane[(r + height + j) * columns + w] = plane[(r + height - 1) * columns + w]


@over_rows
def glass_blur(out, images, words, share, bits, shift, weights):  # type: ignore[no-untyped-def]
    """`out`, `images`: `Float32[N, C, H, W]`; `words`, `share`, `bits`: as of `glass.Displacements`.

    `weights`: `Float64[2r + 1]`, the kernel of both blurs.
    """
    count, channels, height, width = images.shape
    r = len(weights) // 2
    columns = width + 2 * r
    room = (height + 2 * r) * columns
    weights_32 = weights.astype(np.float32)
    offsets = np.empty(4 * shift * shift, np.int32)
    for choice in range(len(offsets)):
        offsets[choice] = (choice // (2 * shift) - shift) * width + choice % (2 * shift) - shift
    mask = (1 << bits) - 1
    for n in prange(count):
        exact, exact_other = np.zeros(room, np.float64), np.zeros(room, np.float64)
        plane, other = np.zeros(room, np.float32), np.zeros(room, np.float32)
        levels = np.empty(height * width, np.float32)
        sources = np.empty(height * width, np.int32)
        choices = np.empty(words.shape[2] * share, np.int32)
        for i in range(height * width):
            sources[i] = i
        for number in range(words.shape[1]):
            for word in range(words.shape[2]):
                value = words[n, number, word]
                for place in range(share):
                    choices[word * share + place] = value & mask
                    value >>= bits
            at = max(0, height - 2 * shift) * max(0, width - 2 * shift)
            for h in range(height - shift, shift, -1):
                for w in range(width - shift, shift, -1):
                    at -= 1
                    i = h * width + w
                    sources[i] = sources[i + offsets[choices[at]]]  # a copy: see glass.glass_blur
        for c in range(channels):
            for h in range(height):
                start = (h + r) * columns + r
                image, row = images[n, c, h], exact[start : start + width]
                for w in range(width):
                    row[w] = np.rint(image[w] * np.float32(255)) / 255.0
            _pad(exact, height, width, r)
            _correlate(exact, exact_other, columns, weights)
            _correlate(exact_other, exact, 1, weights)
            for h in range(height):
                start = (h + r) * columns + r
                row, level = exact[start : start + width], levels[h * width : (h + 1) * width]
                for w in range(width):
                    level[w] = np.float32(np.int32(row[w] * 255.0)) / np.float32(255)
            for h in range(height):
                start = (h + r) * columns + r
                row_32, source = plane[start : start + width], sources[h * width : (h + 1) * width]
                for w in range(width):
                    row_32[w] = levels[source[w]]
            _pad(plane, height, width, r)
            _correlate(plane, other, columns, weights_32)
            _correlate(other, plane, 1, weights_32)
            for h in range(height):
                start = (h + r) * columns + r
                row_32, blurred = plane[start : start + width], out[n, c, h]
                for w in range(width):
                    blurred[w] = min(max(row_32[w], np.float32(0)), np.float32(1))
