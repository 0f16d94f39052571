"""How much noise a method ended with, and whether that still moved: from the published curves."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from noiseopt.report.layout import mapping
from noiseopt.report.models import read_epochs
from noiseopt.report.sources import Source

_STILL = 0.05  # a change by so much over the last fifth of the epochs is a change
_MOST = 4  # layers that are named one by one


@dataclass(frozen=True)
class Levels:
    """Root mean square of σ in every layer after the last epoch, a mean over seeds; `drift`: by what share of itself
    the noise grew over the last fifth of the epochs, a mean over seeds and layers."""

    layers: tuple[float, ...]
    drift: float

    def __str__(self) -> str:
        shown = [f"{level:.2g}" for level in self.layers]
        if len(shown) > _MOST:
            shown = [f"{min(self.layers):.2g} to {max(self.layers):.2g}"]
        moving = "↑" if self.drift > _STILL else "↓" if self.drift < -_STILL else ""
        return " ".join(filter(None, ["; ".join(shown), moving]))


def final_levels(source: Source) -> dict[str, Levels]:
    """Row → its noise at the end of the training; rows without noise, or without curves, are left out."""
    found: dict[str, list[Levels]] = defaultdict(list)
    for curves in read_epochs(source.folder, source.about):
        last, earlier = curves.lines[-1], curves.lines[-1 - len(curves.lines) // 5]
        now, before = _levels(last), _levels(earlier)
        if now and now.keys() == before.keys():
            changes = [now[layer] / before[layer] - 1 if before[layer] > 0 else 0.0 for layer in now]
            found[curves.label].append(Levels(tuple(now.values()), sum(changes) / len(changes)))
    return {
        label: Levels(
            tuple(sum(one) / len(one) for one in zip(*(seed.layers for seed in seeds), strict=True)),
            sum(seed.drift for seed in seeds) / len(seeds),
        )
        for label, seeds in found.items()
        if len({len(seed.layers) for seed in seeds}) == 1
    }


def _levels(line: dict[str, Any]) -> dict[str, float]:
    sigma = mapping(line.get("sigma"))
    return {layer: float(mapping(of).get("rms", 0.0)) for layer, of in sigma.items()}
