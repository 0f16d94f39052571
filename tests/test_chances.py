from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from noiseopt.chances import clopper_pearson, incomplete_beta, lower_limit, sign_test


@given(st.floats(0, 1), st.floats(0.5, 2000), st.floats(0.5, 2000))
def test_the_incomplete_beta_function_is_scipys(x: float, a: float, b: float) -> None:
    assert incomplete_beta(x, a, b) == pytest.approx(special.betainc(a, b, x), rel=1e-8, abs=1e-12)


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_clopper_and_pearsons_interval_is_scipys(counts: tuple[int, int]) -> None:
    successes, trials = counts
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="exact")
    assert clopper_pearson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (999, 1000), (99_990, 100_000), (1, 100_000)])
def test_lower_limits_hold_at_the_ends_and_for_many_trials(successes: int, trials: int) -> None:
    expected = stats.binomtest(successes, trials, alternative="greater").proportion_ci(0.999, method="exact").low
    assert lower_limit(successes, trials, alpha=0.001) == pytest.approx(expected, rel=1e-7)


@given(st.integers(0, 300), st.integers(0, 300))
def test_the_sign_test_is_scipys(more: int, fewer: int) -> None:
    total = more + fewer
    expected = stats.binomtest(more, total, alternative="greater").pvalue if total else 1.0
    assert sign_test(more, fewer) == pytest.approx(expected, rel=1e-9)
