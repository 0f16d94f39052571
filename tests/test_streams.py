"""Random numbers that belong to their sample."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from noiseopt import streams
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


@pytest.mark.parametrize("seed", [0, 2**63 + 12345, -1])
@pytest.mark.parametrize("count", [1, 5, 67, 4096])
def test_the_compiled_loops_draw_what_torch_draws(seed: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.tensor([4, 9, 2**32 - 1, 0]).repeat(10)  # the last count is shared out to several threads

    def draws() -> list[torch.Tensor]:
        random = SampleRandom(seed, ids)
        return [random.rand(count), random.randint(-3, 1 << 24, count), random.randn(count), random.rand(2, count)]

    assert streams._cpu_kernels() is not None
    compiled = draws()
    monkeypatch.setattr(streams, "_cpu_kernels", lambda: None)
    monkeypatch.setattr(streams, "_AT_ONCE", 7 * count)  # several parts, the last one smaller
    for mine, torchs, exact in zip(compiled, draws(), (True, True, False, True), strict=True):
        assert torch.equal(mine, torchs) if exact else (mine - torchs).abs().max() < 1e-5


@pytest.mark.parametrize("draw", ["rand", "randn"])
def test_threads_draw_alike(draw: str) -> None:
    whole = getattr(SampleRandom(1, torch.arange(70)), draw)(2001)  # enough for several threads, and an odd number
    for row in (0, 33, 69):
        assert torch.equal(whole[row], getattr(SampleRandom(1, torch.tensor([row])), draw)(2001)[0])
