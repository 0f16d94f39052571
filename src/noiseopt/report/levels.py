"""How much noise a method ended with, and whether that still moved: from the published curves."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from noiseopt.report.layout import mapping
from noiseopt.report.models import read_epochs
from noiseopt.report.sources import Source

_STILL = 0.05  # a change by so much over the last fifth of the epochs is a change
_MOST = 4  # layers that are named one by one


@dataclass(frozen=True)
class Levels:
    """Root mean square of σ in every layer after the last epoch, a mean over seeds; 0 where a row asks for none.

    `drift`: by what share of itself the noise grew over the last fifth of the epochs, one at least: a mean over layers
    and seeds. A layer that went to and fro counts 0, as a σ of nearly 0 jitters, and so do seeds that do not agree.
    """

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
        back = min(max(1, len(curves.lines) // 5), len(curves.lines) - 1)
        lately = [_levels(line) for line in curves.lines[-1 - back :]]
        now = lately[-1]
        if now and all(one.keys() == now.keys() for one in lately):
            changes = [_steady([one[layer] for one in lately]) for layer in now]
            found[curves.label].append(Levels(tuple(now.values()), sum(changes) / len(changes)))
    rows = map(mapping, mapping(source.about.get("recipe")).get("rows") or [])
    asked = {str(row.get("label")): mapping(row.get("noise")).get("sigma") for row in rows}
    levels = {}
    for label, seeds in found.items():
        if len({len(seed.layers) for seed in seeds}) == 1:
            drifts = [seed.drift for seed in seeds]
            agreed = min(drifts) > 0 or max(drifts) < 0
            layers = [sum(one) / len(one) for one in zip(*(seed.layers for seed in seeds), strict=True)]
            levels[label] = Levels(_with_zeros(layers, asked.get(label)), sum(drifts) / len(drifts) if agreed else 0.0)
    return levels


def _with_zeros(layers: list[float], asked: object) -> tuple[float, ...]:
    """The layers that were asked for 0 as well, where every layer was given a number; they have no noise to measure."""
    if isinstance(asked, list) and sum(level != 0 for level in asked) == len(layers):
        left = iter(layers)
        return tuple(next(left) if level != 0 else 0.0 for level in asked)
    return tuple(layers)


def _steady(values: list[float]) -> float:
    """By what share of the first the last differs; 0 if that is less than half of the way that was gone."""
    way = sum(abs(after - before) for before, after in pairwise(values))
    change = values[-1] - values[0]
    return change / values[0] if values[0] > 0 and abs(change) > way / 2 else 0.0


def _levels(line: dict[str, Any]) -> dict[str, float]:
    sigma = mapping(line.get("sigma"))
    return {layer: float(mapping(of).get("rms", 0.0)) for layer, of in sigma.items()}
