"""Glass blur in torch, for any device: the walk over the pixels becomes one gather, a whole batch at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from noiseopt.corruptions.gaussian import gaussian_blur


def glass_blur(images: Tensor, choices: Tensor, shift: int, weights: list[float]) -> Tensor:
    """`images`: `Float[N, C, H, W]`; `choices`: `Int64[N, passes, pixels]` as of `glass.Displacements`.

    `weights`: the kernel of both blurs. Returns `Float32[N, C, H, W]`.
    """
    radius = len(weights) // 2
    levels = _blurred_levels(images, weights)
    walk = Walk(images.shape[-2], images.shape[-1], shift, padding=radius, device=images.device)
    sources = walk.sources(choices)[:, None].expand(-1, levels.shape[1], -1)
    shuffled = levels.flatten(2).gather(2, sources).view_as(levels).to(torch.float32).div_(255.0)
    if radius:
        shuffled = gaussian_blur(shuffled, weights)[..., radius:-radius, radius:-radius]
    return shuffled.clamp(0.0, 1.0)


def _blurred_levels(images: Tensor, weights: list[float]) -> Tensor:
    """The first blur and its cut to 8 bits: `UInt8[N, C, H + 2r, W + 2r]`, the r outer pixels without a meaning."""
    radius = len(weights) // 2
    levels = images.to(torch.float32).mul(255.0).round_()
    if radius == 0:  # k / 255 * 255 is k in float64, for every k
        return levels.to(torch.uint8)
    levels = functional.pad(levels, (radius,) * 4, mode="replicate")
    return gaussian_blur(levels.to(torch.float64).div_(255.0), weights).mul_(255.0).to(torch.uint8)


class Walk:
    """The public code's walk over the pixels, as the position where each pixel's value comes from.

    A step only writes (h, w), every pixel is written once per pass, and what a step reads is an old value unless the
    displaced pixel came earlier in the walk. With d = 1, which all severities of small images have, displacements are
    -1 and 0, all ahead in the walk, and a pass is one gather. Otherwise a pass is a forest of pointers whose roots are
    old values, and pointer doubling finds all roots in as many steps as the longest chain has binary digits.
    """

    def __init__(self, height: int, width: int, shift: int, *, padding: int, device: torch.device) -> None:
        """`shift`: d. `padding`: edge pixels repeated on every side. Positions count along the padded rows."""
        rows, columns = height + 2 * padding, width + 2 * padding
        self.shift, self.bottom, self.right = shift, padding + height, padding + width
        first = padding + shift + 1
        self.inside = (
            slice(first, max(self.bottom - shift + 1, first)),
            slice(first, max(self.right - shift + 1, first)),
        )
        self.here = torch.arange(rows * columns, device=device).view(rows, columns)
        self.walked = torch.zeros_like(self.here, dtype=torch.bool)
        self.walked[self.inside] = True
        # An outer pixel repeats the nearest one of the image.
        row = torch.arange(rows, device=device).clamp(padding, self.bottom - 1)
        column = torch.arange(columns, device=device).clamp(padding, self.right - 1)
        self.unmoved = row[:, None] * columns + column
        delta = torch.arange(-shift, shift, device=device)
        self.offsets = (delta[:, None] * columns + delta).flatten()

    def sources(self, choices: Tensor) -> Tensor:
        """After all passes: `Int64[N, rows · columns]`."""
        first, *others = choices.unbind(1)
        sources = self._one_pass(first)
        for choice in others:
            sources = sources.gather(1, self._one_pass(choice))
        return sources

    def _one_pass(self, choice: Tensor) -> Tensor:
        pointers = self.unmoved.repeat(len(choice), 1, 1)
        inside = pointers[:, *self.inside]
        torch.add(self.offsets.take(choice).view(inside.shape), self.here[self.inside], out=inside)
        if self.shift > 1:
            pointers = self._roots(pointers.flatten(1)).view_as(pointers)
        # The walk never reaches the first row or column, but the last ones it may.
        pointers[:, :, self.right :] = pointers[:, :, self.right - 1 : self.right]
        pointers[:, self.bottom :] = pointers[:, self.bottom - 1 : self.bottom]
        return pointers.flatten(1)

    def _roots(self, pointers: Tensor) -> Tensor:
        """Follow every pointer while it leads to a pixel that was written before the one that points."""
        size = self.here.numel()
        written = (pointers > self.here.flatten()) & self.walked.take(pointers)
        # Position p stands for a pixel's new value, p + size for its old one, which leads to itself.
        hops = torch.where(written, pointers, pointers + size)
        old = (self.here.flatten() + size).expand_as(hops)
        while bool((hops < size).any()):
            hops = torch.cat([hops, old], dim=1).gather(1, hops)
        return hops - size
