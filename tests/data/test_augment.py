"""Every augmented image is one of 162 crops of its original, all alike likely, and always the same one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from noiseopt.data.augment import augment
from noiseopt.errors import UserError


def all_crops(image: Tensor) -> Tensor:
    """`[C, H, W]` → `[162, C, H, W]`, number 18 top + 2 left + flipped, cut out one by one."""
    channels, height, width = image.shape
    padded = torch.zeros(channels, height + 8, width + 8, dtype=image.dtype)
    padded[:, 4 : 4 + height, 4 : 4 + width] = image
    crops = []
    for top in range(9):
        for left in range(9):
            crop = padded[:, top : top + height, left : left + width]
            crops += [crop, crop.flip(2)]
    return torch.stack(crops)


def which(image: Tensor, augmented: Tensor) -> Tensor:
    """The number of the crop that each of `augmented` is: `Int64[N]`. There must be one, and one alone."""
    same = (augmented.flatten(1)[:, None] == all_crops(image).flatten(1)[None]).all(dim=2)
    assert (same.sum(dim=1) == 1).all()
    return same.int().argmax(dim=1)


# No two pixels alike, and none black, so that all crops differ; neither square nor of one channel.
IMAGE = torch.arange(1, 2 * 6 * 7 + 1, dtype=torch.uint8).view(2, 6, 7)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_all_shifts_and_flips_occur_alike_often(dtype: torch.dtype) -> None:
    count = 162 * 100
    image = IMAGE.to(dtype)
    images = image.expand(count, -1, -1, -1)
    augmented = augment(images, samples=torch.arange(count), seed=1, epoch=0)
    assert augmented.dtype == dtype
    assert augmented.shape == images.shape
    counts = torch.bincount(which(image, augmented), minlength=162)
    # χ² with 161 degrees of freedom: mean 161, standard deviation 18.
    assert ((counts - 100.0) ** 2 / 100).sum() < 161 + 4 * 18


def test_epochs_and_seeds_are_independent() -> None:
    images = IMAGE.expand(4000, -1, -1, -1)
    ids = torch.arange(4000)
    numbers = [which(IMAGE, augment(images, samples=ids, seed=s, epoch=e)) for s, e in ((0, 0), (0, 1), (1, 0), (1, 1))]
    for i, one in enumerate(numbers):
        for other in numbers[:i]:
            assert (one == other).float().mean() < 0.02  # 1/162 by chance, standard deviation .0012
            for part in (lambda n: n // 18, lambda n: n // 2 % 9, lambda n: n % 2):
                pair = torch.stack([part(one), part(other)]).float()
                assert torch.corrcoef(pair)[0, 1].abs() < 0.08  # five standard deviations


def test_an_image_is_augmented_alike_in_any_batch() -> None:
    images = torch.rand(50, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    ids = torch.randperm(1000, generator=torch.Generator().manual_seed(1))[:50]
    augmented = augment(images, samples=ids, seed=3, epoch=7)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(2))
    assert torch.equal(augment(images[order], samples=ids[order], seed=3, epoch=7), augmented[order])
    for n in (0, 49):
        assert torch.equal(augment(images[n : n + 1], samples=ids[n : n + 1], seed=3, epoch=7)[0], augmented[n])
    channels_last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(augment(channels_last, samples=ids, seed=3, epoch=7), augmented)
    assert torch.equal(images, before)
    for image, found in zip(images, augmented, strict=True):
        which(image, found[None])  # a crop of its own original


def test_an_empty_batch_stays_empty() -> None:
    assert augment(torch.rand(0, 3, 8, 8), samples=torch.arange(0), seed=0, epoch=0).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    ("images", "samples", "message"),
    [
        (torch.rand(3, 8, 8), torch.arange(3), "images must be"),
        (torch.rand(2, 3, 8, 8), torch.arange(3), "one for each image"),
        (torch.rand(2, 3, 8, 8), torch.arange(2).int(), "samples must be int64"),
    ],
)
def test_what_it_refuses(images: Tensor, samples: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        augment(images, samples=samples, seed=0, epoch=0)
