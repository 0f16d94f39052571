from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from noiseopt.data import Dataset, split
from noiseopt.errors import UserError


def numbered(count: int) -> Dataset:
    images = torch.zeros(count, 1, 1, 1, dtype=torch.uint8)
    return Dataset(images, torch.arange(count) % 10, tuple("0123456789"), "n", torch.arange(count))


@pytest.mark.parametrize(
    ("count", "ratios", "sizes"),
    [
        (70_000, (5, 1, 1), (50_000, 10_000, 10_000)),
        (60_000, (4, 1, 1), (40_000, 10_000, 10_000)),
        (110_000, (10, 1, 1), (91_667, 9_167, 9_166)),
        (10, (1, 1, 1), (4, 3, 3)),
        (10, (0.1, 0.2, 0.7), (1, 2, 7)),
    ],
)
def test_sizes_follow_the_protocol(count: int, ratios: tuple[float, ...], sizes: tuple[int, ...]) -> None:
    parts = split(numbered(count), ratios, seed=0)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == sizes


@given(
    st.integers(30, 300),
    st.lists(st.integers(1, 9), min_size=3, max_size=3),
    st.integers(0, 2**63 - 1),
)
def test_a_split_is_a_partition_near_the_ratios(count: int, ratios: list[int], seed: int) -> None:
    parts = split(numbered(count), ratios, seed=seed)
    ids = torch.cat([parts.train.ids, parts.validation.ids, parts.test.ids])
    assert ids.sort().values.tolist() == list(range(count))
    for part, ratio in zip((parts.train, parts.validation, parts.test), ratios, strict=True):
        assert abs(len(part) - Fraction(count * ratio, sum(ratios))) < 1
        assert torch.equal(part.labels, part.ids % 10)


def test_the_seed_decides() -> None:
    data = numbered(1000)
    assert torch.equal(split(data, seed=3).test.ids, split(data, seed=3).test.ids)
    assert not torch.equal(split(data, seed=3).test.ids, split(data, seed=4).test.ids)
    # A recorded seed must give the same split for ever.
    assert split(data, seed=0).test.ids[:5].tolist() == [908, 351, 999, 162, 502]


def test_the_split_does_not_touch_the_global_generator() -> None:
    state = torch.random.get_rng_state()
    split(numbered(100), seed=1)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("ratios", [(1, 1), (1, 1, 1, 1), (1, 0, 1), (1, -1, 1), (1, float("nan"), 1), ("5", 1, 1)])
def test_wrong_ratios(ratios: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="three positive numbers"):
        split(numbered(100), ratios, seed=0)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, True, None])
def test_wrong_seed(seed: object) -> None:
    with pytest.raises(UserError, match="seed"):
        split(numbered(100), seed=seed)  # type: ignore[arg-type]


def test_no_part_is_empty() -> None:
    with pytest.raises(UserError, match="every part"):
        split(numbered(4), (10, 1, 1), seed=0)
