"""Who beats whom on a leaderboard, who leads, and the sentences that say so."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence

from noiseopt.report.export import shown
from noiseopt.report.kinds import KINDS
from noiseopt.report.standings import Standing

MARGIN = 0.005
"""So much clean accuracy counts as none: about the standard error of one network's on 1,000 images."""
ENOUGH = 3  # seeds without which nothing is decided

_RIVALS = {
    "none": "the network without noise",
    "fixed": "the one fixed σ",
    "allocation": "the fixed σ for each layer",
    "paper": "the noise of another paper",
}


def front(rows: Iterable[Standing]) -> list[Standing]:
    """The Pareto front of the means, by falling clean accuracy: no other row has more of one and not less of the other.

    Rows with signs of masking are not on it, as their audited accuracy is not to be believed.
    """
    order = sorted((r for r in rows if r.placed and not r.masking), key=lambda r: (-r.clean.mean, -r.audited.mean))
    best: list[Standing] = []
    for row in order:
        if not best or row.audited.mean > best[-1].audited.mean:
            best.append(row)
    return best


def highest(rows: Iterable[Standing], kind: str) -> Standing | None:
    """The row of a kind with the greatest mean audited accuracy, of those that can be believed."""
    placed = [row for row in rows if row.kind == kind and row.placed and not row.masking]
    return max(placed, key=lambda row: row.audited.mean, default=None)


def beats(one: Standing, other: Standing) -> bool:
    """Is `one` better by the rule of the leaderboard?

    The audited intervals do not overlap, each over three seeds at least, and its clean accuracy is not less by more
    than `MARGIN`.
    """
    enough = min(one.audited.seeds, other.audited.seeds) >= ENOUGH
    as_clean = one.clean.mean > other.clean.mean - MARGIN - 1e-9
    return enough and one.audited.low > other.audited.high and as_clean


def verdict(rows: Sequence[Standing]) -> Iterator[str]:
    """What the comparison comes to, in sentences: learned against fixed noise, and the row that leads.

    Rows are compared with those that were trained on the examples of the same adversary, as long.
    """
    for alike in dict.fromkeys((row.adversary, row.length) for row in rows):
        same = [row for row in rows if (row.adversary, row.length) == alike]
        adversary = ", ".join(filter(None, alike))
        for kind, words in _RIVALS.items():
            for said in _against(same, kind, words):
                yield f"**{adversary}.** {said}" if adversary else said
    known = [row for kind in KINDS if (row := highest(rows, kind)) is not None]
    if known:
        top = max(row.audited.mean for row in known)
        leaders = [_place(row) for row in known if row.audited.mean == top]
        yield f"Highest audited accuracy: {'; '.join(leaders)}."
    masked = [f"{r.label} ({', '.join(r.masking)})" for r in rows if r.masking]
    if masked:
        yield f"Signs of masking, so not compared: {'; '.join(masked)}."
    deviations = [row.audited.deviation for row in rows if row.audited.has_interval and not row.masking]
    if len(deviations) > 1:
        middle = statistics.median(deviations)
        yield f"Standard deviation of audited accuracy over seeds, the median of these rows: {middle:.3f}."


def _against(rows: Sequence[Standing], kind: str, words: str) -> Iterator[str]:
    """Learned σ against the row of another kind that has the highest audited accuracy; `words` for that kind."""
    learned, rival = highest(rows, "learned"), highest(rows, kind)
    if learned is None or rival is None:
        return
    if min(learned.audited.seeds, rival.audited.seeds) < ENOUGH:
        yield f"Learned σ against {words}: no verdict before three seeds."
        return
    winners = [row for row in rows if row.kind == "learned" and row.placed and not row.masking and beats(row, rival)]
    if not winners:
        yield f"No learned σ beats {words} of highest audited accuracy: {_place(learned)}, against {_place(rival)}."
        return
    leader = max(winners, key=lambda row: row.audited.mean)
    yield f"Learned σ beats {words} of highest audited accuracy: {_place(leader)}, against {_place(rival)}."
    if others := [row.label for row in winners if row is not leader]:
        yield f"So {'do' if len(others) > 1 else 'does'} {', '.join(others)}."
    unbeaten = [r for r in rows if r.kind == kind and r.placed and not r.masking and not beats(leader, r)]
    if unbeaten:
        listed = "; ".join(f"{row.label} ({shown(row.clean)}, audited {shown(row.audited)})" for row in unbeaten)
        yield f"Not beaten by {leader.label}, for their clean accuracy or their interval: {listed}."


def _place(row: Standing) -> str:
    return f"**{row.label}**, audited {shown(row.audited)}, clean {shown(row.clean)}"
