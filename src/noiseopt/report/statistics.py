"""Means over seeds with 95 % intervals, and paired comparisons, by Student's t.

A seed is one training. An interval over seeds says how much a number would move if the same recipe were trained again;
it does not hold the choice of test images, which all seeds share.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from noiseopt.chances import student_quantile, two_sided

LEVEL = 0.95
_SAME = 1e-12  # values nearer than this differ by rounding only


@dataclass(frozen=True)
class Estimate:
    """A mean over `seeds` values with its interval; NaN where it cannot be had (no value; one value: no interval)."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def half(self) -> float:
        """Half the interval's width; NaN with fewer than two seeds."""
        return (self.high - self.low) / 2

    @property
    def deviation(self) -> float:
        """The standard deviation of the values; NaN with fewer than two."""
        if not self.has_interval:
            return math.nan
        return self.half * math.sqrt(self.seeds) / student_quantile((1 + LEVEL) / 2, self.seeds - 1)

    @property
    def known(self) -> bool:
        return not math.isnan(self.mean)

    @property
    def has_interval(self) -> bool:
        return not math.isnan(self.low + self.high)


@dataclass(frozen=True)
class Difference:
    """A minus B over the seeds that both were trained from; `p`: two-sided, of the hypothesis that it is 0."""

    size: Estimate
    p: float
    seeds: tuple[int, ...]


def estimate(values: Iterable[float], *, level: float = LEVEL) -> Estimate:
    """Mean and t-interval, mean ± t(n-1) s/√n, of one value a seed. Equal values give an interval of no width."""
    values = list(values)
    n = len(values)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, math.nan, math.nan, 1)
    half = student_quantile((1 + level) / 2, n - 1) * _error(values)
    return Estimate(mean, mean - half, mean + half, n)


def paired(a: Mapping[int, float], b: Mapping[int, float], *, level: float = LEVEL) -> Difference:
    """The paired t-test of A (seed → value) against B, over the seeds of both.

    Where every seed gives the same difference, the interval has no width, and p is 1 for a difference of 0, else 0.
    With fewer than two shared seeds interval and p are NaN.
    """
    seeds = tuple(sorted(a.keys() & b.keys()))
    differences = [a[seed] - b[seed] for seed in seeds]
    # 0.3 - 0.2 - 0.1 is not 0: rounding must not pass for a difference.
    differences = [0.0 if abs(d) < _SAME else d for d in differences]
    size = estimate(differences, level=level)
    if not size.has_interval:
        return Difference(size, math.nan, seeds)
    error = _error(differences)
    if error == 0:
        return Difference(size, 1.0 if size.mean == 0 else 0.0, seeds)
    return Difference(size, two_sided(size.mean / error, len(seeds) - 1), seeds)


def relative(a: Mapping[int, float], b: Mapping[int, float], *, level: float = LEVEL) -> Estimate:
    """The relative increase A/B - 1 of each shared seed: mean and interval; all NaN where a B is 0."""
    seeds = sorted(a.keys() & b.keys())
    if any(b[seed] == 0 for seed in seeds):
        return Estimate(math.nan, math.nan, math.nan, len(seeds))
    return estimate([a[seed] / b[seed] - 1 for seed in seeds], level=level)


def _error(values: list[float]) -> float:
    """The standard error of the mean, s/√n; 0 where the values are equal up to rounding."""
    if max(values) - min(values) < _SAME:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
