"""How a document words its numbers: as accuracies, or as errors in percent. Computed are accuracies, always."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from noiseopt.report.export import shown
from noiseopt.report.statistics import Estimate


@dataclass(frozen=True)
class Words:
    """`names`: columns in words, where they are not those of the first paper. `noise_off`: is that state shown, too?"""

    scale: Literal["accuracy", "error"] = "accuracy"
    noise_off: bool = True
    names: Mapping[str, str] = field(default_factory=dict)

    def number(self, accuracy: Estimate) -> str:
        """`0.957 ±0.004`, or `4.3 ±0.4`; "" where there is none."""
        if self.scale == "accuracy":
            return shown(accuracy)
        mean, low, high = (100 * (1 - v) for v in (accuracy.mean, accuracy.high, accuracy.low))
        error = Estimate(mean, low, high, accuracy.seeds)
        return shown(error, digits=_digits(error.mean))

    def printed(self, accuracy: float) -> str:
        """A number as the paper prints it."""
        error = 100 * (1 - accuracy)
        return f"{accuracy:.3f}" if self.scale == "accuracy" else f"{error:.{_digits(error)}f}"

    def difference(self, size: float) -> str:
        """Of two accuracies: `+0.131`; of their errors, in points: `−13.1`. The minus is as wide as the plus."""
        return (f"{size:+.3f}" if self.scale == "accuracy" else f"{-100 * size:+.1f}").replace("-", "−")

    def interval(self, size: Estimate) -> str:
        """`[+0.120, +0.142]`, the lower end first."""
        ends = (size.low, size.high) if self.scale == "accuracy" else (size.high, size.low)
        return f"[{', '.join(map(self.difference, ends))}]"

    def spread(self, sizes: Iterable[float]) -> str:
        """`+0.120 to +0.142`, the lower end first."""
        ends = sorted(sizes, reverse=self.scale == "error")
        return f"{self.difference(ends[0])} to {self.difference(ends[-1])}"


def _digits(error: float) -> int:
    """As the paper prints errors: 0.83, 9.8, 73.6."""
    return 2 if error < 9.5 else 1
