"""Curves of error by distortion (Eq. 2 of Uličný et al.), from the Records of curve columns."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from noiseopt.concepts import Record
from noiseopt.report.layout import Column, Layout, column_key, row_label
from noiseopt.report.sources import Cell, Numbers
from noiseopt.report.statistics import estimate
from noiseopt.report.table import PROTOCOLS, attack_draws, distortion


@dataclass(frozen=True)
class Point:
    """The error at a distortion, with its 95 % interval; shares in [0, 1]."""

    distortion: float
    error: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """A row at one state of the noise. `seeds`: the trainings that it is the mean of."""

    name: str
    row: str
    noise: bool
    seeds: tuple[int, ...]
    points: tuple[Point, ...]

    @property
    def mean(self) -> float:
        """The mean error over the distortions."""
        return math.fsum(point.error for point in self.points) / len(self.points)

    def at(self, wanted: float) -> Point:
        """The point nearest to a distortion."""
        return min(self.points, key=lambda point: abs(point.distortion - wanted))


@dataclass(frozen=True)
class Panel:
    """One curve column under one protocol. `draws`: noise draws averaged in each of the attack's gradients."""

    column: Column
    protocol: str
    title: str
    lines: tuple[Line, ...]
    draws: int
    images: int

    @property
    def furthest(self) -> float:
        return max(line.points[-1].distortion for line in self.lines)


@dataclass(frozen=True)
class Drawing:
    """A figure: its panels that have a line."""

    title: str
    panels: tuple[Panel, ...]


def drawings(records: Iterable[Record], layout: Layout) -> list[Drawing]:
    """The figures of a run, as far as they are measured."""
    by_column = _by_column(records, layout)
    titled = {curve.key: curve for curve in layout.curves}
    found = []
    for figure in layout.figures:
        columns = [titled[key] for key in figure.columns if key in titled]
        panels = [panel for column in columns for panel in _panels(by_column[column.key], column, figure.rows)]
        if panels:
            found.append(Drawing(figure.title, tuple(panels)))
    return found


def all_panels(records: Iterable[Record], layout: Layout) -> list[Panel]:
    """Every curve with every row, whatever the figures show."""
    by_column = _by_column(records, layout)
    return [panel for curve in layout.curves for panel in _panels(by_column[curve.key], curve, layout.rows)]


def _by_column(records: Iterable[Record], layout: Layout) -> dict[str, list[Record]]:
    by_column: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if layout.is_curve(record) and record.metric == "accuracy" and distortion(record) is not None:
            by_column[column_key(record)].append(record)
    return by_column


def _panels(records: Sequence[Record], column: Column, rows: Sequence[str]) -> list[Panel]:
    named = {record.protocol for record in records}
    protocols = [p for p in PROTOCOLS if p in named] + sorted(named - set(PROTOCOLS))
    panels = []
    for protocol in protocols:
        chosen = [record for record in records if record.protocol == protocol and row_label(record) in rows]
        lines = [line for row in rows for line in _lines([r for r in chosen if row_label(r) == row], row)]
        if lines:
            title = f"{column.title} ({protocol})" if len(protocols) > 1 and protocol else column.title
            draws = max((k for k in map(attack_draws, chosen) if k is not None), default=1)
            panels.append(Panel(column, protocol, title, tuple(lines), draws, max(r.count for r in chosen)))
    return panels


def _lines(records: Sequence[Record], row: str) -> list[Line]:
    states = sorted({record.noise for record in records}, reverse=True)
    named = {state: row if len(states) == 1 else f"{row}, noise {'on' if state else 'off'}" for state in states}
    lines = [_line([r for r in records if r.noise is state], row, name) for state, name in named.items()]
    return [line for line in lines if line.points]


def _line(records: Sequence[Record], row: str, name: str) -> Line:
    seeds = _by_seed(records)
    # A seed that is still being measured would make the mean jump where it ends.
    most = max(map(len, seeds.values()), default=0)
    whole = {seed: points for seed, points in sorted(seeds.items()) if len(points) == most}
    levels = sorted(set.intersection(*(set(points) for points in whole.values()))) if whole else []
    points = tuple(_point(level, [points[level] for points in whole.values()]) for level in levels)
    return Line(name, row, records[0].noise, tuple(whole), points)


def _by_seed(records: Iterable[Record]) -> dict[int, dict[float, Record]]:
    """Training seed → distortion → Record. Measured again, the later Record counts."""
    seeds: dict[int, dict[float, Record]] = defaultdict(dict)
    for record in records:
        level = distortion(record)
        if level is not None and not math.isnan(record.value):
            seeds[record.model_seed or 0][round(level, 9)] = record
    return seeds


def _point(level: float, records: Sequence[Record]) -> Point:
    """The mean over seeds with its t-interval; of one seed the Record's own, for the choice of test images."""
    if len(records) == 1:
        (record,) = records
        return Point(level, 1 - record.value, 1 - record.high, 1 - record.low)
    mean = estimate([1 - record.value for record in records])
    return Point(level, mean.mean, max(mean.low, 0.0), min(mean.high, 1.0))


@dataclass(frozen=True)
class Span:
    """Part of a curve, written as `sign:0-0.15`: its number is the mean accuracy over the distortions in it."""

    column: str
    first: float
    last: float

    @classmethod
    def of(cls, key: str) -> Span | None:
        """None where `key` names a plain column."""
        column, sign, range_ = key.partition(":")
        first, dash, last = range_.partition("-")
        return cls(column, float(first), float(last)) if sign and dash else None


def span_numbers(records: Iterable[Record], layout: Layout, keys: Iterable[str]) -> Numbers:
    """The numbers of the spans in `keys`, for every row, protocol, state of the noise and training seed.

    A seed is left out while distortions are missing that others have.
    """
    curves: dict[Cell, list[Record]] = defaultdict(list)
    for record in records:
        if layout.is_curve(record) and record.metric == "accuracy":
            curves[Cell(row_label(record), record.protocol, record.noise, column_key(record))].append(record)
    seeds = {cell: _by_seed(found) for cell, found in curves.items()}
    levels: dict[tuple[str, str], set[float]] = defaultdict(set)
    for cell, by_seed in seeds.items():
        levels[cell.column, cell.protocol].update(level for points in by_seed.values() for level in points)
    numbers: Numbers = {}
    for key in dict.fromkeys(keys):
        span = Span.of(key)
        for cell, by_seed in seeds.items() if span else ():
            if span and span.column == cell.column:
                inside = {x for x in levels[cell.column, cell.protocol] if span.first <= x <= span.last}
                found = {
                    seed: _mean(points, inside) for seed, points in by_seed.items() if inside and inside <= set(points)
                }
                if found:
                    numbers[cell._replace(column=key)] = dict(sorted(found.items()))
    return numbers


def _mean(points: Mapping[float, Record], levels: Iterable[float]) -> float:
    values = [points[level].value for level in levels]
    return math.fsum(values) / len(values)
