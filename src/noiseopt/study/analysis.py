"""People and networks on the same images: accuracy by level, differences, response times, confusion, as plain values.

A participant is the unit: each contributes one share of right answers for each level (as in the paper), and intervals
are over participants. Only those who have finished are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseopt.errors import UserError
from noiseopt.study.folder import Study
from noiseopt.study.intervals import Interval, over_units
from noiseopt.study.store import Store

DONT_KNOW = -1
Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """What P participants were shown and said, I images each; or what was made for P who were never asked."""

    items: NDArray[np.int64]
    """`Int64[P, I]`."""
    said: NDArray[np.int64] | None
    """`Int64[P, I]`: classes; -1 for “don't know”. None: nobody was asked."""
    times: Shares
    """`Float64[P, I]`: ms; NaN where the browser told none."""
    left_out: int
    """Participants who have not finished."""


@dataclass(frozen=True)
class Group:
    """Networks under one title. `said`: the class that each says to each item, `Int64[networks, M]`; -1: not asked."""

    title: str
    hashes: tuple[str, ...]
    said: NDArray[np.int64]


def collect(study: Study, store: Store) -> Answers:
    """The answers of all who have finished.

    Raises:
        UserError: nobody has.
    """
    people = store.participants()  # before the answers, which may still be coming in: who has finished, has all
    given = store.answers()
    finished = [given[one.id] for one in people if one.answered >= study.length]
    if not finished:
        fix = "wait for them; for a dry run: noiseopt study simulate FOLDER"
        raise UserError("nobody has finished this study yet", got=f"{len(people)} participants", fix=fix)
    return Answers(
        items=np.array([[a.item for a in one] for one in finished]),
        said=np.array([[DONT_KNOW if a.answer is None else a.answer for a in one] for one in finished]),
        times=np.array([[np.nan if a.response_ms is None else a.response_ms for a in one] for one in finished]),
        left_out=sum(one.consented_at is not None for one in people) - len(finished),
    )


def nobody(study: Study) -> Answers:
    """All images that the study holds for participants, shown to none of them: for networks alone."""
    return Answers(items=study.orders, said=None, times=np.full(study.orders.shape, np.nan), left_out=0)


def analyse(study: Study, answers: Answers, groups: Sequence[Group], *, simulated: bool) -> dict[str, Any]:
    """Everything that the figures show and the text says; JSON values. Of people it says nothing if none were asked."""
    items = study.items
    level_of, truth = items.levels[answers.items], items.labels[answers.items]
    people, lines, differences, confusion = None, [], [], []
    if answers.said is not None:
        people = _by_level(study, answers.said == truth, level_of)
        title = "SIMULATED people" if simulated else "People"
        lines = [_line(study, "people", title, key, people, level_of) for key in _sets(study)]
        confusion = [_confusion(study, "people", title, answers.said, truth, level_of)]
    for group in groups:
        networks = [_by_level(study, said[answers.items] == truth, level_of) for said in group.said]
        makers = _makers(study, group, answers.items)
        for key in _sets(study):
            lines += _network_lines(study, group, key, networks, makers, level_of)
            differences += [] if people is None else _differences(study, group, key, people, networks)
        confusion.append(
            _confusion(study, "networks", group.title, group.said[:, answers.items], truth[None], level_of[None])
        )
    return {
        "format": 1,
        "name": study.about["name"],
        "title": study.about["title"],
        "simulated": simulated,
        "participants": 0 if people is None else len(answers.items),
        "places": len(answers.items),
        # In the name of every file that is not of people alone.
        "mark": "-networks-only" if people is None else "-SIMULATED" if simulated else "",
        "left_out": answers.left_out,
        "images": study.length,
        "draw": study.recipe["draw"],
        "shown": study.hash,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "classes": study.classes,
        "levels": [{**asdict(level), "name": level.name} for level in study.levels],
        "lines": lines,
        "differences": differences,
        "contrasts": [] if people is None else _contrasts(study, people),
        "response_ms": _response_times(study, answers, level_of),
        "dont_know": None if answers.said is None else float((answers.said == DONT_KNOW).mean()),
        "confusion": confusion,
    }


def _sets(study: Study) -> list[str]:
    return list(dict.fromkeys(level.key for level in study.levels))


def _levels(study: Study, key: str) -> list[int]:
    return [number for number, level in enumerate(study.levels) if level.key == key]


def _by_level(study: Study, right: NDArray[np.bool_], level_of: NDArray[np.int64]) -> Shares:
    """`Float64[P, levels]`: each participant's share of right answers."""
    shares = [np.where(level_of == n, right, 0).sum(1) / (level_of == n).sum(1) for n in range(len(study.levels))]
    return np.stack(shares, axis=1)


def _line(
    study: Study,
    who: str,
    title: str,
    key: str,
    shares: Shares,
    level_of: NDArray[np.int64],
    *,
    role: str = "",
    seen: int = 1,
) -> dict[str, Any]:
    """One curve: a set's levels, a share for each unit, `Float64[units, levels]`, of `seen` participants' images."""
    points = []
    for number in _levels(study, key):
        trials = int((level_of[0] == number).sum()) * seen
        found = over_units(shares[:, number], trials=trials, bounds=(0, 1), seed=number)
        if found is not None:
            points.append({"level": number, "distortion": study.levels[number].distortion, **asdict(found)})
    set_title = next(level.title for level in study.levels if level.key == key)
    return {"who": who, "title": title, "role": role, "set": key, "set_title": set_title, "points": points}


def _makers(study: Study, group: Group, items: NDArray[np.int64]) -> NDArray[np.bool_]:
    """`Bool[networks, P, I]`: was this image's noise made against this very network?"""
    hashes = [maker["hash"] for maker in study.about["makers"]]
    made = study.items.makers[items]
    own = [[number for number, known in enumerate(hashes) if known == network] for network in group.hashes]
    return np.stack([np.isin(made, numbers) for numbers in own])


def _network_lines(
    study: Study,
    group: Group,
    key: str,
    networks: Sequence[Shares],
    makers: NDArray[np.bool_],
    level_of: NDArray[np.int64],
) -> list[dict[str, Any]]:
    """One line; or, of a set whose noise was made against some of them, one for these and one for all others."""
    # Of images that are the same for all, a network sees each once, however many participants do.
    same = study.recipe["draw"] == "same"
    at = np.isin(level_of, _levels(study, key))
    # [networks, P]: all noise that a participant sees was made against one network.
    own: NDArray[np.bool_] = np.any(makers & at, axis=2)
    if not own.any():
        means = np.stack([shares.mean(0) for shares in networks])
        return [_line(study, "networks", group.title, key, means, level_of, seen=1 if same else len(level_of))]
    lines = []
    for role, chosen in (("attacked", own), ("transfer", np.logical_not(own))):
        means = np.stack(
            [
                shares[mine].mean(0) if mine.any() else np.full(shares.shape[1], np.nan)
                for shares, mine in zip(networks, chosen, strict=True)
            ]
        )
        if not np.isnan(means).all():
            seen = 1 if same else int(chosen.sum(1).max())
            lines.append(_line(study, "networks", group.title, key, means, level_of, role=role, seen=seen))
    return lines


def _differences(
    study: Study, group: Group, key: str, people: Shares, networks: Sequence[Shares]
) -> list[dict[str, Any]]:
    """People minus networks, for each participant on their own images: what the same images are for."""
    mean = np.mean(networks, axis=0)
    found = []
    for number in _levels(study, key):
        interval = over_units(people[:, number] - mean[:, number], bounds=(-1, 1), seed=number)
        assert interval is not None, "somebody has finished"
        found.append({"title": group.title, "set": key, "level": number, **asdict(interval)})
    return found


def _contrasts(study: Study, people: Shares) -> list[dict[str, Any]]:
    """For people: one set minus another, over the levels of each; for sets of as many levels, from two on."""
    several = [key for key in _sets(study) if len(_levels(study, key)) > 1]
    found = []
    for place, first in enumerate(several):
        for second in several[place + 1 :]:
            if len(_levels(study, first)) == len(_levels(study, second)):
                a, b = (people[:, _levels(study, key)].mean(1) for key in (first, second))
                interval = over_units(a - b, bounds=(-1, 1))
                assert interval is not None, "somebody has finished"
                found.append({"set": first, "minus": second, **asdict(interval)})
    return found


def _response_times(study: Study, answers: Answers, level_of: NDArray[np.int64]) -> list[dict[str, Any]]:
    """The mean over participants of each one's median, in ms."""
    found = []
    for number, level in enumerate(study.levels):
        own = [times[(row == number) & ~np.isnan(times)] for times, row in zip(answers.times, level_of, strict=True)]
        interval: Interval | None = over_units([float(np.median(t)) for t in own if len(t)], seed=number)
        if interval is not None:
            found.append({"set": level.key, "level": number, "distortion": level.distortion, **asdict(interval)})
    return found


def _confusion(
    study: Study,
    who: str,
    title: str,
    said: NDArray[np.int64],
    truth: NDArray[np.int64],
    level_of: NDArray[np.int64],
) -> Mapping[str, Any]:
    """For each set: counts [true class][answer], “don't know” last."""
    classes = len(study.classes)
    truth, level_of = np.broadcast_to(truth, said.shape), np.broadcast_to(level_of, said.shape)
    counts = {}
    for key in _sets(study):
        at = np.isin(level_of, _levels(study, key))
        table = np.zeros((classes, classes + 1), dtype=np.int64)
        np.add.at(table, (truth[at], np.where(said[at] == DONT_KNOW, classes, said[at])), 1)
        counts[key] = table.tolist()
    return {"who": who, "title": title, "counts": counts}
