"""Random crops and flips of a whole batch at once, on the device that it is on."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor
from torch.nn.functional import pad

from noiseopt.errors import UserError
from noiseopt.streams import SampleRandom

PADDING = 4


def augment(images: Tensor, *, samples: Tensor, seed: int, epoch: int) -> Tensor:
    """Each image shifted by up to 4 pixels both ways, black moving in, and flipped left to right every other time.

    The usual augmentation of CIFAR-10 and ImageNet: a crop of the image's size at a random place of the image padded
    with four zeros on every side, all 81 places and both orientations alike likely. What happens to an image is a
    function of (seed, epoch, sample) alone: not of the batch, its order or the device.

    Args:
        images: `[N, C, H, W]` of any type, 8-bit integers or [0, 1]; not changed.
        samples: identities of the images in [0, 2³²), `Int64[N]`.
        seed: in [0, 2⁶³).
        epoch: from 0 on; every epoch has its own crops.

    Returns the same shape and type, contiguous.

    Raises:
        UserError: `images` are no batch, or `samples` not one for each.
    """
    if images.dim() != 4:
        raise UserError("images must be [N, C, H, W]", got=list(images.shape), fix="add the missing axes")
    if samples.shape != images.shape[:1] or samples.dtype != torch.int64:
        got = f"{samples.dtype} of shape {list(samples.shape)} for {len(images)} images"
        raise UserError("samples must be int64, one for each image", got=got, fix="pass the images' ids")
    count, channels, height, width = images.shape
    draw = SampleRandom(_derived(seed, epoch), samples.to(images.device))
    top, left = draw.randint(0, 2 * PADDING + 1, 2).unbind(dim=1)
    flipped = draw.randint(0, 2, 1).bool()
    rows, columns = (torch.arange(length, device=images.device) for length in (height, width))
    rows = rows + top[:, None]
    columns = torch.where(flipped, columns.flip(0), columns) + left[:, None]
    # Places in a flattened channel: `gather` is thirty times as fast on CPUs as indexing with rows and columns.
    places = (rows[:, :, None] * (width + 2 * PADDING) + columns[:, None, :]).view(count, 1, height * width)
    padded = pad(images, [PADDING] * 4).flatten(2)
    return padded.gather(2, places.expand(count, channels, -1)).view_as(images)


def _derived(seed: int, epoch: int) -> int:
    """A seed in [0, 2⁶³) for every epoch, unlike those that anything else derives."""
    digest = hashlib.sha256(repr((seed, "augment", epoch)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
