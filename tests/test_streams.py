"""Random numbers that belong to their sample."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from noiseopt.streams import BatchRandom, SampleRandom


@pytest.mark.parametrize("kind", ["sample", "batch"])
def test_the_three_draws_have_their_laws(kind: str) -> None:
    random = (
        SampleRandom(7, torch.arange(200))
        if kind == "sample"
        else BatchRandom(torch.Generator().manual_seed(7), 200, torch.device("cpu"))
    )
    uniform, normal, integers = random.rand(3, 400), random.randn(1201), random.randint(-3, 5, 1000)
    assert uniform.shape == (200, 3, 400)
    assert normal.shape == (200, 1201)
    assert integers.shape == (200, 1000)
    assert stats.kstest(uniform.flatten().numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(normal.flatten().numpy(), "norm").pvalue > 1e-3
    assert uniform.min() >= 0
    assert uniform.max() < 1
    counts = torch.bincount(integers.flatten() + 3)
    assert len(counts) == 8
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_a_sample_draws_alike_in_any_batch() -> None:
    ids = torch.tensor([4, 9, 2**32 - 1, 0])

    def draws(which: list[int]) -> list[torch.Tensor]:
        random = SampleRandom(3, ids[which])
        return [random.rand(5), random.randn(5), random.randint(0, 9, 5), random.rand(5)]

    whole = draws([0, 1, 2, 3])
    for which in ([3, 0], [1], [2, 1, 0, 3]):
        for part, full in zip(draws(which), whole, strict=True):
            assert torch.equal(part, full[which])
    assert not torch.equal(whole[0], whole[3])  # every call draws anew


def test_samples_and_seeds_are_unrelated() -> None:
    a = SampleRandom(1, torch.arange(100)).randn(5000)
    for b in (SampleRandom(2, torch.arange(100)).randn(5000), a.roll(1, 0), a.roll(1, 1)):
        assert abs((a * b).double().mean().item()) < 4.5 / math.sqrt(a.numel())
