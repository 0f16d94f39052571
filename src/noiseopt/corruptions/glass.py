"""Glass blur: its draws, and which of two programs makes the images; `glass_cpu` and `glass_torch` agree to the bit."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from noiseopt.corruptions import glass_torch
from noiseopt.corruptions.gaussian import gaussian_kernel
from noiseopt.corruptions.inputs import check_draws, check_images, random_stream
from noiseopt.corruptions.severities import GLASS_BLUR, Glass
from noiseopt.streams import Random

WORD = 24  # bits of one random integer, shared out among several pixels
_CPU_VALUES, _DEVICE_VALUES = 1 << 17, 1 << 24  # of an image batch, at a time: a CPU's cache; an accelerator's memory


@torch.no_grad()
def glass_blur(images: Tensor, *, severity: int, generator: torch.Generator | Random | None = None) -> Tensor:
    """A blur, pixels replaced by near ones, a blur: the image as seen through frosted glass.

    `images`: `Float[N, C, H, W]` in [0, 1]; returns the same shape, dtype and device, in [0, 1]. `severity`: 1 to 5,
    which sets the standard deviation of the blurs, the largest shift d and the number of passes. `generator`: a
    `torch.Generator`, a stream of `noiseopt.streams`, or None for one that `torch.manual_seed` governs. Raises
    `UserError` where an argument is not so; NaN is not in [0, 1]. Only pixels at least d + 1 from the top and left and
    d from the bottom and right are replaced, so that a tiny image is only blurred.

    This is the benchmark as it was generated (Hendrycks & Dietterich, ICLR 2019). Three things to know:

    - **It copies, it does not swap.** The public code walks from the last pixel to the first, draws a displacement
      (dy, dx) from -d, ..., d - 1 (numpy's `randint` leaves the upper end out) and runs
      `x[h, w], x[h', w'] = x[h', w'], x[h, w]`. On a colour image the right-hand sides are numpy *views*: the first
      assignment overwrites what the second one reads, and both pixels end up with the value of (h', w'). So pixels get
      lost and others appear twice, in the published images and in these.
    - **Greyscale copies too.** On a two-dimensional array the same line would swap, but imagecorruptions first stacks
      a greyscale image into three equal channels. One channel in gives one channel out: what each of those would be.
    - **8 bits inside.** The public code takes 8-bit images, and cuts the first blur off to 8 bits. So the images are
      rounded to multiples of 1/255 first, and the first blur is computed in float64 and in scipy's own order, for on
      flat areas the last bit decides between two levels. The result itself is not cut off to 8 bits.
    """
    check_images(images)
    glass = GLASS_BLUR.at(severity, images)
    return blur(images, glass, random_stream(generator, images))


def blur(images: Tensor, glass: Glass, random: Random) -> Tensor:
    """`glass_blur` with parameters of one's own."""
    displacements = Displacements(images, glass.shift)
    words = check_draws(displacements.draw(random, glass.passes), images)
    weights = gaussian_kernel(glass.sigma)
    compiled = _compiled() if images.device.type == "cpu" else None
    if compiled is not None:
        floats = images.detach().to(torch.float32).contiguous()
        blurred = torch.empty_like(floats)
        arrays = (tensor.numpy() for tensor in (blurred, floats, words.contiguous()))
        compiled.glass_blur(*arrays, displacements.share, displacements.bits, glass.shift, np.array(weights))
        return blurred.to(images.dtype)
    blurred = torch.empty_like(images, memory_format=torch.contiguous_format)
    count = max(1, (_CPU_VALUES if images.device.type == "cpu" else _DEVICE_VALUES) // max(1, images[:1].numel()))
    for start in range(0, len(images), count):
        part = slice(start, start + count)
        choices = displacements.choices(words[part])
        blurred[part] = glass_torch.glass_blur(images[part], choices, glass.shift, weights)
    return blurred


class Displacements:
    """Uniform displacements (dy, dx) in {-d, ..., d - 1}², as their number (dy + d) · 2d + dx + d."""

    def __init__(self, images: Tensor, shift: int) -> None:
        """`shift`: d."""
        height, width = images.shape[-2:]
        self.pixels = max(0, height - 2 * shift) * max(0, width - 2 * shift)
        self.ways = (2 * shift) ** 2
        # With d a power of two, as in all tables, one random word serves several pixels, with `bits` for each.
        shared = self.ways & (self.ways - 1) == 0
        self.bits = self.ways.bit_length() - 1 if shared else WORD
        self.share = WORD // self.bits

    def draw(self, random: Random, passes: int) -> Tensor:
        """Random words for `choices`: `Int64[N, passes, ceil(pixels / share)]`."""
        high = 1 << self.bits * self.share if self.share > 1 else self.ways
        return random.randint(0, high, passes, -(-self.pixels // self.share))

    def choices(self, words: Tensor) -> Tensor:
        """One displacement for each pixel, in reading order: `Int64[N, passes, pixels]`."""
        place = torch.arange(0, self.bits * self.share, self.bits, device=words.device)
        return ((words[..., None] >> place) & ((1 << self.bits) - 1)).flatten(2)[..., : self.pixels]


@cache
def _compiled() -> ModuleType | None:
    """The compiled program, loaded when first asked for; None where numba is missing."""
    try:
        from noiseopt.corruptions import glass_cpu
    except ImportError:
        return None
    return glass_cpu
