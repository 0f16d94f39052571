"""Glass blur against the package that made the benchmark, given the same displacements."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from benchmarks.corruptions import peer
from imagecorruptions import corruptions as imagecorruptions
from PIL import Image
from torch import Tensor

from noiseopt.corruptions import glass, glass_blur
from noiseopt.corruptions.severities import GLASS_BLUR, Glass
from noiseopt.streams import SampleRandom

TABLES = {32: GLASS_BLUR.small, 64: GLASS_BLUR.large}
LARGER_SHIFTS = (Glass(0.3, 3, 1), Glass(1.5, 4, 2))  # not in the tables, but harder


@pytest.fixture(params=["compiled", "torch"])
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both programs: the one for CPUs and the one for every device."""
    if request.param == "torch":
        monkeypatch.setattr(glass, "_compiled", lambda: None)
    return str(request.param)


def pictures(height: int, width: int) -> np.ndarray:
    """`UInt8[3, H, W, 3]`: noise, a gradient, flat areas. In the last two, the last bit of a float64 decides."""
    rng = np.random.default_rng(0)
    gradient = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)[..., None] + [0, 50, 90]
    flat = np.repeat(np.repeat(rng.integers(0, 256, (height // 5 + 1, width // 5 + 1, 3)), 5, 0), 5, 1)
    return np.stack([rng.integers(0, 256, (height, width, 3)), gradient % 256, flat[:height, :width]]).astype(np.uint8)


def to_floats(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def walks(images: Tensor, parameters: Glass) -> Iterator[list[tuple[int, int]]]:
    """The displacements (dx, dy) that the stream of sample 0, 1, ... takes, in the order of the public code's walk."""
    displacements, d = glass.Displacements(images, parameters.shift), parameters.shift
    random = SampleRandom(11, torch.arange(len(images)))
    choices = displacements.choices(displacements.draw(random, parameters.passes))
    for choice in choices.flip(-1):
        yield [(number % (2 * d) - d, number // (2 * d) - d) for number in choice.flatten().tolist()]


def walked_by_the_peer(
    monkeypatch: pytest.MonkeyPatch, image: np.ndarray, parameters: Glass, walk: list[tuple[int, int]]
) -> np.ndarray:
    """The peer's result in [0, 255], with its loop run by Python and its draws replaced by `walk`."""
    steps = iter(walk)
    loop = imagecorruptions._shuffle_pixels_njit_glass_blur
    python = getattr(loop, "py_func", loop)
    with monkeypatch.context() as patch:
        patch.setattr(imagecorruptions, "_shuffle_pixels_njit_glass_blur", python)
        patch.setattr(np.random, "randint", lambda *_, **__: next(steps))
        blurred = peer("glass_blur", [parameters] * 5)(Image.fromarray(image), 1, seed=0)
    assert next(steps, None) is None  # the walk was as long as we think
    return blurred


@pytest.mark.parametrize(
    ("size", "parameters"),
    [(size, row) for size, rows in TABLES.items() for row in rows] + [(33, row) for row in LARGER_SHIFTS],
    ids=str,
)
def test_the_images_are_the_benchmarks(
    size: int, parameters: Glass, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures(size, size + size % 2)
    floats = to_floats(images)
    ours = glass.blur(floats, parameters, SampleRandom(11, torch.arange(3))).permute(0, 2, 3, 1).numpy() * 255
    for image, mine, walk in zip(images, ours, walks(floats, parameters), strict=True):
        theirs = walked_by_the_peer(monkeypatch, image, parameters, walk)
        np.testing.assert_allclose(mine, theirs, atol=1e-3)
        assert np.abs(theirs - image).max() >= 5


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (3, 3), (2, 5), (28, 28), (7, 40)])
@pytest.mark.parametrize("parameters", [GLASS_BLUR.small[4], GLASS_BLUR.large[4], LARGER_SHIFTS[1]], ids=str)
def test_any_size_and_both_programs(
    height: int, width: int, parameters: Glass, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures(height, width)
    floats = to_floats(images)
    compiled = glass.blur(floats, parameters, SampleRandom(11, torch.arange(3)))
    monkeypatch.setattr(glass, "_compiled", lambda: None)
    monkeypatch.setattr(glass, "_CPU_VALUES", 2 * floats[0].numel())  # parts of two images and of one
    assert torch.equal(compiled, glass.blur(floats, parameters, SampleRandom(11, torch.arange(3))))
    for image, ours, walk in zip(images, compiled, walks(floats, parameters), strict=True):
        theirs = walked_by_the_peer(monkeypatch, image, parameters, walk)
        np.testing.assert_allclose(ours.permute(1, 2, 0).numpy() * 255, theirs, atol=1e-3)


def distinct(image: np.ndarray) -> int:
    """How many different pixels the image has."""
    return len(np.unique(np.round(image).astype(np.int64).reshape(-1, image.shape[-1]), axis=0))


def test_pixels_are_copied_and_not_swapped_as_by_the_peer(program: str) -> None:
    # 1024 different pixels and no blur: a swap would keep them all, a copy keeps 1 - (3/4)⁴ = 68 % of those inside.
    number = np.arange(1024).reshape(32, 32)
    image = np.stack([number % 256, number // 256 * 60, number % 7], -1).astype(np.uint8)
    theirs = [distinct(peer("glass_blur")(Image.fromarray(image), 1, seed=seed)) for seed in range(40)]
    ours = glass_blur(to_floats(np.stack([image] * 40)), severity=1, generator=torch.Generator().manual_seed(0))
    ours_distinct = [distinct(blurred.permute(1, 2, 0).numpy() * 255) for blurred in ours]
    assert max(theirs + ours_distinct) < 800
    spread = (np.var(theirs) / 40 + np.var(ours_distinct) / 40) ** 0.5
    assert abs(np.mean(theirs) - np.mean(ours_distinct)) < 4 * spread


def test_greyscale_is_what_each_of_three_equal_channels_would_be(program: str) -> None:
    image = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(4)
    one = glass_blur(image, severity=5, generator=SampleRandom(0, ids))
    three = glass_blur(image.expand(4, 3, 28, 28), severity=5, generator=SampleRandom(0, ids))
    assert torch.equal(one.expand_as(three), three)


def test_displacements_are_uniform_and_leave_the_upper_end_out() -> None:
    for shift in (1, 2, 3):
        displacements = glass.Displacements(torch.zeros(1, 1, 32, 32), shift)
        choices = displacements.choices(displacements.draw(SampleRandom(0, torch.arange(50)), 2))
        assert choices.shape == (50, 2, (32 - 2 * shift) ** 2)
        counts = torch.bincount(choices.flatten()).double()
        assert len(counts) == 4 * shift**2  # {-d, ..., d - 1}²
        expected = counts.mean()
        assert ((counts - expected) ** 2 / expected).sum() < 4 * shift**2 + 5 * (8 * shift**2) ** 0.5


def test_borders_and_flat_images_stay(program: str) -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).mul(255).round().div(255)
    blurred = glass_blur(images, severity=1)  # a blur of one pixel: only the displacements show
    torch.testing.assert_close(blurred[:, :, :2], images[:, :, :2])
    torch.testing.assert_close(blurred[..., :2], images[..., :2])
    assert (blurred != images).any()
    # 8 bits inside: at most one level lost on a flat area, to rounding in float64.
    flat = torch.full((1, 1, 64, 64), 200 / 255)
    assert (glass_blur(flat, severity=5) - flat).abs().max() <= 1.001 / 255
