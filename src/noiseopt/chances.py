"""The binomial law and Student's t, exactly and with no library: tails, quantiles, confidence limits, the sign test."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache


def incomplete_beta(x: float, a: float, b: float, *, rest: float | None = None) -> float:
    """The regularised incomplete beta function I_x(a, b), x in [0, 1], a and b > 0.

    `rest`: 1 - x, where it is known to more digits than x leaves.
    """
    rest = 1.0 - x if rest is None else rest
    if x <= 0:
        return 0.0
    if rest <= 0:
        return 1.0
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side only
        return 1.0 - incomplete_beta(rest, b, a, rest=x)
    front = a * math.log(x) + b * math.log(rest) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(front) * _fraction(x, a, b) / a


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function (Abramowitz & Stegun 26.5.8), by Lentz's method."""
    tiny = 1e-300
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1)
    d = 1.0 / (d if abs(d) > tiny else tiny)
    value = d
    for m in range(1, 100_000):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1.0 + step * d, 1.0 + step / c
            d, c = 1.0 / (d if abs(d) > tiny else tiny), c if abs(c) > tiny else tiny
            value *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return value


@lru_cache(maxsize=65536)
def lower_limit(successes: int, trials: int, *, alpha: float) -> float:
    """The Clopper–Pearson (1934) lower limit of a probability: it is too high with probability `alpha` at most.

    The p at which so many successes, or more, have probability `alpha`; by bisection.
    """
    if successes == 0:
        return 0.0
    # P(X ≥ k) = I_p(k, n - k + 1) rises with p.
    rest = trials - successes + 1
    return _bisect(lambda p: incomplete_beta(p, successes, rest) < alpha, 0.0, successes / trials)[0]


def clopper_pearson(successes: int, trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a probability, from `successes` of `trials`."""
    alpha = (1.0 - level) / 2
    upper = 1.0 - lower_limit(trials - successes, trials, alpha=alpha)
    return lower_limit(successes, trials, alpha=alpha), upper


@lru_cache(maxsize=65536)
def sign_test(more: int, fewer: int) -> float:
    """P(X ≥ `more`) where X of `more + fewer` fair coins fall heads: the one-sided sign test, exact.

    Of two answers to the same questions, `more` went one way and `fewer` the other: McNemar's (1947) exact test.
    """
    total = more + fewer
    return sum(math.comb(total, k) for k in range(more, total + 1)) / 2**total


def two_sided(t: float, df: float) -> float:
    """P(|T| ≥ |t|) = I_x(df/2, 1/2) at x = df / (df + t²)."""
    if math.isinf(t):
        return 0.0
    squared = t * t
    return incomplete_beta(df / (df + squared), df / 2, 0.5, rest=squared / (df + squared))


def student_quantile(p: float, df: float) -> float:
    """The t with P(T ≤ t) = p, 0 < p < 1, by bisection."""
    if p < 0.5:
        return -student_quantile(1 - p, df)
    wanted = 2 * (1 - p)  # of two_sided, which falls from 1 at t = 0; its small values are exact
    low, high = 0.0, 1.0
    while two_sided(high, df) > wanted:
        low, high = high, 2 * high
    return _bisect(lambda t: two_sided(t, df) > wanted, low, high)[1]


def _bisect(below: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """The two neighbouring numbers between which `below` turns false."""
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if below(middle) else (low, middle)
    return low, high
