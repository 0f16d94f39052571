"""What holds for every corruption: shapes, ranges, seeds, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import noiseopt
from noiseopt.corruptions import CORRUPTIONS
from noiseopt.corruptions.severities import GAUSSIAN_NOISE, IMPULSE_NOISE
from noiseopt.errors import UserError
from noiseopt.streams import BatchRandom, SampleRandom

RANDOM = [name for name in CORRUPTIONS if name != "contrast"]
names = pytest.mark.parametrize("name", CORRUPTIONS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(
    name=st.sampled_from(list(CORRUPTIONS)),
    severity=st.integers(1, 5),
    shape=st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 70), st.integers(1, 70)),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
    seed=st.integers(0, 2**63 - 1),
)
@settings(max_examples=80, deadline=None)
def test_any_image_stays_an_image(
    name: str, severity: int, shape: tuple[int, int, int, int], dtype: torch.dtype, seed: int
) -> None:
    images = torch.rand(shape, generator=generator(), dtype=torch.float64).to(dtype)
    before = images.clone()
    corrupted = CORRUPTIONS[name](images, severity=severity, generator=generator(seed))
    assert corrupted.shape == images.shape
    assert corrupted.dtype == dtype
    assert corrupted.device == images.device
    assert corrupted.isfinite().all()
    assert ((corrupted >= 0) & (corrupted <= 1)).all()
    assert torch.equal(images, before)
    assert corrupted.data_ptr() != images.data_ptr() or not images.numel()
    assert torch.equal(corrupted, CORRUPTIONS[name](images, severity=severity, generator=generator(seed)))


@names
def test_it_is_in_the_public_name_space_and_changes_the_images(name: str) -> None:
    waves = torch.sin(torch.arange(32) / 1.5)
    images = (0.5 + 0.4 * waves[:, None] * waves).expand(2, 3, 32, 32)
    corrupt = getattr(noiseopt.corruptions, name)
    assert corrupt is CORRUPTIONS[name]
    distances = [(corrupt(images, severity=s, generator=generator()) - images).norm().item() for s in range(1, 6)]
    assert distances[0] > 0.5
    assert distances[4] > distances[0]


@names
def test_layout_and_gradients_do_not_matter(name: str) -> None:
    images = torch.rand(3, 3, 16, 18, generator=generator())
    expected = CORRUPTIONS[name](images, severity=3, generator=generator())
    for variant in (images.to(memory_format=torch.channels_last), images.clone().requires_grad_()):
        corrupted = CORRUPTIONS[name](variant, severity=3, generator=generator())
        assert not corrupted.requires_grad
        torch.testing.assert_close(corrupted, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", RANDOM)
def test_seeds_say_everything(name: str) -> None:
    def corrupt(random: object) -> torch.Tensor:
        return CORRUPTIONS[name](torch.full((2, 1, 20, 20), 0.5) * ramp, severity=2, generator=random)

    ramp = torch.linspace(0.5, 1, 20)
    assert torch.equal(corrupt(generator(3)), corrupt(generator(3)))
    assert not torch.equal(corrupt(generator(3)), corrupt(generator(4)))
    both = corrupt(generator(3))
    assert not torch.equal(both[0], both[1])
    running = generator(3)
    assert not torch.equal(corrupt(running), corrupt(running))
    torch.manual_seed(5)
    first = corrupt(None)
    torch.manual_seed(5)
    assert torch.equal(first, corrupt(None))
    assert not torch.equal(first, corrupt(None))
    device = torch.device("cpu")
    assert torch.equal(corrupt(BatchRandom(generator(1), 2, device)), corrupt(BatchRandom(generator(1), 2, device)))


@pytest.mark.parametrize(("height", "width", "row"), [(63, 64, "small"), (64, 63, "small"), (64, 64, "large")])
def test_severities_go_by_the_shorter_side(height: int, width: int, row: str) -> None:
    images = torch.full((20, 1, height, width), 0.5)
    std = getattr(GAUSSIAN_NOISE, row)[4]
    noise = CORRUPTIONS["gaussian_noise"](images, severity=5, generator=generator()) - 0.5
    assert noise.std().item() == pytest.approx(std, rel=0.03)
    fraction = getattr(IMPULSE_NOISE, row)[4]
    hits = CORRUPTIONS["impulse_noise"](images, severity=5, generator=generator()) != 0.5
    assert hits.float().mean().item() == pytest.approx(fraction, rel=0.1)


@names
@pytest.mark.parametrize("severity", [0, 6, -1, 2.5, 3.0, True, "3", None])
def test_severity_is_a_whole_number_from_1_to_5(name: str, severity: object) -> None:
    with pytest.raises(UserError, match=r"severity must be a whole number from 1 to 5; .*fix: "):
        CORRUPTIONS[name](torch.rand(1, 1, 8, 8), severity=severity)


@names
@pytest.mark.parametrize(
    ("images", "rule"),
    [
        (torch.full((1, 1, 8, 8), 1.001), r"\[0, 1\] .*got values from 1.001 to 1.001"),
        (torch.full((1, 1, 8, 8), -1e-4), r"\[0, 1\]"),
        (torch.tensor([0.5] * 63 + [float("nan")]).view(1, 1, 8, 8), r"NaN; got values from nan to nan"),
        (torch.tensor([0.5] * 63 + [float("inf")]).view(1, 1, 8, 8), r"\[0, 1\]"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), r"floating-point.*uint8.*divide"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.bool), r"floating-point"),
        (torch.zeros(1, 8, 8), r"\[N, C, H, W\].*\[1, 8, 8\]"),
        (torch.zeros(8), r"\[N, C, H, W\]"),
        (torch.zeros(1, 1, 0, 8), r"1 or more"),
        (np.zeros((1, 1, 8, 8), np.float32), r"must be a tensor .*ndarray"),
    ],
    ids=["above", "below", "nan", "inf", "uint8", "bool", "3-d", "1-d", "empty", "numpy"],
)
def test_images_must_be_images(name: str, images: torch.Tensor, rule: str) -> None:
    with pytest.raises(UserError, match=rule):
        CORRUPTIONS[name](images, severity=3, generator=generator())


@pytest.mark.parametrize("name", RANDOM)
def test_the_random_stream_must_be_one_for_this_batch(name: str) -> None:
    images = torch.rand(3, 1, 8, 8)
    with pytest.raises(UserError, match="2 samples for 3 images"):
        CORRUPTIONS[name](images, severity=3, generator=SampleRandom(0, torch.arange(2)))
    with pytest.raises(UserError, match=r"generator must be a torch\.Generator"):
        CORRUPTIONS[name](images, severity=3, generator=0)


@names
def test_both_ends_and_minus_zero_are_in_range(name: str) -> None:
    images = torch.tensor([0.0, 1.0, -0.0, 0.5]).repeat(16).view(1, 1, 8, 8)
    assert ((corrupted := CORRUPTIONS[name](images, severity=1)) >= 0).all()
    assert (corrupted <= 1).all()
