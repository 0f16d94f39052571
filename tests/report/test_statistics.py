from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from noiseopt.chances import student_quantile, two_sided
from noiseopt.report.statistics import estimate, paired, relative

DEGREES = st.one_of(st.integers(1, 200), st.floats(0.5, 500))
VALUES = st.lists(st.floats(0, 1), min_size=2, max_size=12)


@given(t=st.floats(-1e4, 1e4), df=DEGREES)
def test_the_distribution_is_scipys(t: float, df: float) -> None:
    assert two_sided(t, df) == pytest.approx(2 * stats.t.sf(abs(t), df), rel=1e-8, abs=1e-300)


@settings(max_examples=50)
@given(p=st.floats(1e-4, 1 - 1e-4), df=DEGREES)
def test_the_quantile_is_scipys(p: float, df: float) -> None:
    assert student_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-7, abs=1e-9)


@pytest.mark.parametrize(("df", "printed"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042)])
def test_the_quantiles_of_every_textbook(df: int, printed: float) -> None:
    assert round(student_quantile(0.975, df), 3) == printed


@given(values=VALUES)
def test_the_interval_is_scipys(values: list[float]) -> None:
    assume(np.std(values) > 1e-6)
    found = estimate(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), low, high), abs=1e-9)
    assert found.seeds == len(values)
    assert found.half == pytest.approx((high - low) / 2, abs=1e-9)
    assert found.deviation == pytest.approx(np.std(values, ddof=1), abs=1e-9)


@given(pairs=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=10))
def test_the_paired_test_is_scipys(pairs: list[tuple[float, float]]) -> None:
    a, b = zip(*pairs, strict=True)
    assume(np.std(np.subtract(a, b)) > 1e-6)
    found = paired(dict(enumerate(a)), dict(enumerate(b)))
    there = stats.ttest_rel(a, b)
    bounds = there.confidence_interval(0.95)
    assert found.p == pytest.approx(there.pvalue, rel=1e-7, abs=1e-12)
    assert (found.size.low, found.size.high) == pytest.approx((bounds.low, bounds.high), abs=1e-9)
    back = paired(dict(enumerate(b)), dict(enumerate(a)))
    assert (back.size.mean, back.p) == pytest.approx((-found.size.mean, found.p))


def test_only_seeds_of_both_are_compared() -> None:
    found = paired({0: 0.5, 1: 0.6, 7: 0.9}, {1: 0.4, 0: 0.2, 3: 0.0})
    assert found.seeds == (0, 1)
    assert found.size.mean == pytest.approx(0.25)
    assert paired({0: 1.0}, {1: 1.0}).seeds == ()


def test_one_seed_has_a_mean_and_no_interval() -> None:
    found = estimate([0.7])
    assert math.isnan(found.deviation)
    assert (found.mean, found.seeds, found.known, found.has_interval) == (0.7, 1, True, False)
    alone = paired({3: 0.7}, {3: 0.5})
    assert alone.size.mean == pytest.approx(0.2)
    assert not alone.size.has_interval
    assert math.isnan(alone.p)


def test_no_value_has_nothing() -> None:
    found = estimate([])
    assert (found.known, found.has_interval, found.seeds) == (False, False, 0)


def test_equal_differences_have_an_interval_of_no_width() -> None:
    same = estimate([0.25, 0.25, 0.25])
    assert (same.low, same.mean, same.high) == (0.25, 0.25, 0.25)
    assert paired({0: 0.5, 1: 0.7}, {0: 0.5, 1: 0.7}).p == 1.0
    ahead = paired({0: 0.75, 1: 1.0}, {0: 0.5, 1: 0.75})
    assert (ahead.p, ahead.size.low) == (0.0, 0.25)


def test_rounding_is_no_difference() -> None:
    found = paired(dict.fromkeys(range(3), 0.1 + 0.2), dict.fromkeys(range(3), 0.3))
    assert (found.size.mean, found.size.low, found.size.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_relative_increase_by_seed() -> None:
    found = relative({0: 0.6, 1: 0.9, 2: 0.3}, {0: 0.5, 1: 0.6, 2: 0.2, 3: 1.0})
    assert found.mean == pytest.approx((0.2 + 0.5 + 0.5) / 3)
    assert found.seeds == 3
    assert not relative({0: 0.6, 1: 0.9}, {0: 0.5, 1: 0.0}).known
