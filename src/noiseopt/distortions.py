"""How far images were moved (Uličný et al., Eq. 2), and how strong noise must be to move them that far."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from noiseopt.errors import UserError

# Pixels at a time: what is computed of them then stays in the processor's cache.
_AT_ONCE = 1 << 17
_STEPS = 200


def distortion(images: Tensor, perturbed: Tensor) -> float:
    """Eq. 2: the mean of |x̃ - x| over the pixels and channels of all images of the set, in [0, 1].

    `images`, `perturbed`: `Float[N, C, H, W]` in [0, 1]. Raises `UserError` where their shapes differ or there is no
    image.
    """
    _check_pair(images, perturbed)
    moved = (after.sub(before).abs_().sum(dtype=torch.float64) for before, after in _parts(images, perturbed))
    return _mean(moved, images)


def strength(asked: float, images: Tensor, direction: Tensor) -> float:
    """The smallest s for which `clip(x + s·direction, 0, 1)` has the distortion `asked` over the whole set (Eq. 2).

    That distortion is a rising, concave, piecewise linear function of s: a pixel moves until it meets 0 or 1. On such a
    function Newton's method climbs to s from the left and never passes it. So s is exact, whatever the images are.

    Args:
        asked: in [0, 1).
        images: `Float[N, C, H, W]` in [0, 1].
        direction: of the same shape, such as normal draws.

    Raises:
        UserError: no strength moves the images that far along `direction`.
    """
    _check_asked(asked)
    _check_pair(images, direction)
    if asked == 0:
        return 0.0
    parts = _parts(images, direction)
    _check_reach(
        asked, _mean((torch.where(d > 0, 1 - x, x * (d < 0)).sum(dtype=torch.float64) for x, d in parts), images)
    )
    # Were nothing clipped, this would be it: with clipping it takes more.
    s = asked / _mean((d.abs().sum(dtype=torch.float64) for _, d in _parts(images, direction)), images)
    for _ in range(_STEPS):
        reached, slope = _moved(s, images, direction)
        missing = asked - reached
        if missing <= 1e-7 * asked or slope == 0:
            break
        s += missing / slope
    return s


def sign_strengths(asked: Sequence[float], images: Tensor, signs: Tensor) -> list[float]:
    """`strength` for many distortions along one direction of -1, 0 and 1, solved in closed form.

    Only the room of each pixel to the wall ahead matters, and 8-bit images have few rooms: with n_v pixels of room v,
    the distortion is `Σ_v n_v min(s, v) / n`, linear between one v and the next.

    Args:
        asked: each in [0, 1).
        images: `Float[N, C, H, W]` in [0, 1].
        signs: of the same shape and any real type.

    Raises:
        UserError: no strength moves the images as far as one of `asked`.
    """
    for each in asked:
        _check_asked(each)
    _check_pair(images, signs)
    found = [torch.where(d > 0, 1 - x, x)[d != 0].unique(return_counts=True) for x, d in _parts(images, signs)]
    rooms, index = torch.cat([room for room, _ in found]).double().unique(return_inverse=True)
    counts = torch.zeros_like(rooms).index_add_(0, index, torch.cat([count for _, count in found]).double())
    stopped, moving = (counts * rooms).cumsum(0), counts.sum() - counts.cumsum(0)
    reached = (stopped + moving * rooms) / images.numel()
    walls, heights = ([0.0, *t.tolist()] for t in (rooms, reached))
    for each in asked:
        _check_reach(each, heights[-1])
    return [float(s) for s in np.interp(list(asked), heights, walls)]


def _moved(s: float, images: Tensor, direction: Tensor) -> tuple[float, float]:
    """The distortion at s > 0, and its derivative to the right."""
    sums = torch.zeros(2, dtype=torch.float64, device=images.device)
    for x, d in _parts(images, direction):
        d = d.to(x.dtype)
        at = torch.add(x, d, alpha=s)
        moving = d.abs().mul_((at > 0) & (at < 1))
        sums[0] += at.clamp_(0.0, 1.0).sub_(x).abs_().sum(dtype=torch.float64)
        sums[1] += moving.sum(dtype=torch.float64)
    reached, slope = (sums / images.numel()).tolist()
    return reached, slope


def _parts(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same entries of all tensors, some at a time."""
    return zip(*(tensor.detach().reshape(-1).split(_AT_ONCE) for tensor in tensors), strict=True)


def _mean(sums: Iterator[Tensor], images: Tensor) -> float:
    return float(math.fsum(torch.stack(list(sums)).tolist())) / images.numel()


def _check_asked(asked: float) -> None:
    if isinstance(asked, bool) or not isinstance(asked, int | float) or not 0 <= asked < 1:
        raise UserError("a distortion is a number in [0, 1), in pixel units", got=asked, fix="pass distortion=0.1")


def _check_reach(asked: float, furthest: float) -> None:
    if asked > furthest:
        raise UserError(
            "the distortion must be within reach: pixels stop at 0 and 1, and where the direction is 0",
            got=f"{asked:g}, of at most {furthest:g}",
            fix="ask for less",
        )


def _check_pair(images: Tensor, other: Tensor) -> None:
    if images.shape != other.shape or images.numel() == 0:
        got = f"{tuple(images.shape)} and {tuple(other.shape)}"
        raise UserError("distortion is that of one set of images, not empty", got=got, fix="pass two equal shapes")
