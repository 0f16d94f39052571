"""The random split into training, validation and test images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch

from noiseopt.data.dataset import Dataset
from noiseopt.errors import UserError


@dataclass(frozen=True)
class Split:
    """Three sets without an image in common, each in random order: its first K images are a random sample."""

    train: Dataset
    validation: Dataset
    test: Dataset


def split(dataset: Dataset, ratios: Sequence[float] = (5, 1, 1), *, seed: int) -> Split:
    """One random split, in the ratio training : validation : test; the same seed gives the same split.

    Sizes are rounded by the largest remainder, so that they add up to N: 70,000 images at 5:1:1 give 50,000,
    10,000 and 10,000. The seed must be recorded with whatever is measured.

    Raises UserError where the ratios are not three positive numbers, a part would be empty, or the seed is
    not an integer in 0..2⁶³-1.
    """
    _check_seed(seed)
    sizes = _sizes(len(dataset), ratios, parts=3)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
    train, validation, test = (dataset.subset(rows) for rows in order.split(sizes))
    return Split(train, validation, test)


def split_off(train: Dataset, test: Dataset, ratios: Sequence[float] = (11, 1), *, seed: int) -> Split:
    """A data set's own test images, in random order, as the test part; the others divided training : validation.

    Raises UserError as `split` does, for two ratios.
    """
    _check_seed(seed)
    sizes = _sizes(len(train), ratios, parts=2)
    order, test_order = (
        torch.randperm(len(part), generator=torch.Generator().manual_seed(seed)) for part in (train, test)
    )
    first, second = (train.subset(rows) for rows in order.split(sizes))
    return Split(first, second, test.subset(test_order))


def _check_seed(seed: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise UserError("seed must be an integer in 0..2⁶³-1", got=seed, fix="pass seed=0")


def _sizes(count: int, ratios: Sequence[float], *, parts: int) -> list[int]:
    """`count` divided in the given ratios, by largest remainder; the first of equals gets the extra image."""
    numbers = [ratio for ratio in ratios if isinstance(ratio, (int, float)) and math.isfinite(ratio) and ratio > 0]
    if len(numbers) != parts or len(ratios) != parts:
        rule, fix = "three positive numbers: training, validation, test", "pass ratios=(5, 1, 1)"
        if parts == 2:
            rule, fix = "two positive numbers: training, validation", "pass ratios=(11, 1)"
        raise UserError(f"ratios must be {rule}", got=list(ratios), fix=fix)
    # Fractions, because 0.1 + 0.2 must not decide where an image goes.
    shares = [Fraction(ratio) * count / sum(map(Fraction, numbers)) for ratio in numbers]
    sizes = [math.floor(share) for share in shares]
    by_remainder = sorted(range(parts), key=lambda part: (sizes[part] - shares[part], part))
    for part in by_remainder[: count - sum(sizes)]:
        sizes[part] += 1
    if 0 in sizes:
        raise UserError(
            f"every part of a split must get an image; {count} images give {sizes}",
            got=list(ratios),
            fix="use more images, or ratios that are closer to each other",
        )
    return sizes
