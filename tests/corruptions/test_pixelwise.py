"""Gaussian noise, impulse noise and contrast against the package that made the benchmark."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmarks.corruptions import peer
from PIL import Image
from scipy import stats
from torch import Tensor

from noiseopt.corruptions import contrast, gaussian_noise, impulse_noise
from noiseopt.corruptions.severities import CONTRAST, GAUSSIAN_NOISE, IMPULSE_NOISE, Table

SIZES = {"small": 32, "large": 64}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def column(table: Table[float], size: str) -> tuple[float, ...]:
    return table.small if size == "small" else table.large


def to_floats(image: np.ndarray) -> Tensor:
    """`UInt8[H, W, C]` → `Float32[1, C, H, W]`."""
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def grey(count: int, size: int, value: float = 0.5) -> Tensor:
    return torch.full((count, 3, size, size), value)


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("size", SIZES)
def test_contrast_is_the_benchmarks(size: str, severity: int) -> None:
    rng = np.random.default_rng(severity)
    image = (rng.random((SIZES[size], SIZES[size], 3)) ** [0.3, 1, 4] * 255).astype(np.uint8)
    theirs = peer("contrast", column(CONTRAST, size))(Image.fromarray(image), severity)
    ours = contrast(to_floats(image), severity=severity)[0].permute(1, 2, 0).numpy() * 255
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    assert np.abs(theirs - image).max() > 5  # there was something to get right


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("size", SIZES)
def test_gaussian_noise_is_normal_with_the_tables_deviation(size: str, severity: int) -> None:
    std = column(GAUSSIAN_NOISE, size)[severity - 1]
    noise = (gaussian_noise(grey(8, SIZES[size]), severity=severity, generator=generator()) - 0.5).flatten()
    noise = noise[noise.abs() < 0.5]  # clipping takes 0.5 % at the most
    law = stats.truncnorm(-0.5 / std, 0.5 / std, scale=std)
    assert stats.kstest(noise.numpy(), law.cdf).pvalue > 1e-3


@pytest.mark.parametrize("value", [0.0, 0.1, 0.97])
def test_gaussian_noise_has_the_peers_law_where_it_is_clipped(value: float) -> None:
    level = round(value * 255)
    image = Image.fromarray(np.full((32, 32, 3), level, np.uint8))
    np.random.seed(0)  # noqa: NPY002 (it is what the peer draws from)
    theirs = np.concatenate([peer("gaussian_noise")(image, 5).ravel() for _ in range(8)])
    ours = gaussian_noise(grey(8, 32, level / 255), severity=5, generator=generator()).numpy().ravel() * 255
    assert stats.ks_2samp(np.round(ours, 3), np.round(theirs, 3)).pvalue > 1e-3
    for edge in (0, 255):
        share = np.mean(theirs == edge)
        if 0 < share < 1:
            assert stats.binomtest(int((ours == edge).sum()), ours.size, share).pvalue > 1e-3


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("size", SIZES)
def test_impulse_noise_sets_the_tables_fraction_half_to_each_end(size: str, severity: int) -> None:
    fraction = column(IMPULSE_NOISE, size)[severity - 1]
    images = 0.2 + 0.6 * torch.rand(30, 3, SIZES[size], SIZES[size], generator=generator())
    noisy = impulse_noise(images, severity=severity, generator=generator(1))
    pepper, salt = noisy == 0, noisy == 1
    assert torch.equal(noisy[~(pepper | salt)], images[~(pepper | salt)])
    for hits in (pepper, salt):
        assert stats.binomtest(int(hits.sum()), hits.numel(), fraction / 2).pvalue > 1e-3


def test_impulse_noise_hits_each_channel_for_itself_as_the_peer_does() -> None:
    image = np.full((60, 60, 3), 100, np.uint8)
    theirs = peer("impulse_noise")(Image.fromarray(image), 5, seed=0)
    ours = impulse_noise(to_floats(image), severity=5, generator=generator())[0].permute(1, 2, 0).numpy() * 255
    for noisy in (theirs, ours):
        hit = np.abs(noisy - 100) > 50
        grey_hits = hit.all(-1).mean()
        assert grey_hits < 0.01  # 0.07³ if the channels are independent, 0.07 if they are not
        assert abs(hit.mean() - 0.07) < 0.01


def test_noise_is_unrelated_between_values_and_images() -> None:
    noise = gaussian_noise(grey(16, 32), severity=1, generator=generator()) - 0.5
    bound = 4.5 * noise.var().item() / noise.numel() ** 0.5
    for axis in range(4):
        assert abs((noise * noise.roll(1, axis)).mean().item()) < bound


def test_contrast_takes_the_mean_of_each_channel_of_each_image() -> None:
    images = torch.rand(5, 3, 9, 7, generator=generator())
    low = contrast(images, severity=5)
    torch.testing.assert_close(low.mean((2, 3)), images.mean((2, 3)))
    torch.testing.assert_close(low.std((2, 3)), 0.15 * images.std((2, 3)))
