"""The headline of a run that has curves and no table: one sentence, by a rule fixed before any number is seen.

The rule: of the white-box curves (or, without any, of all), the one whose gradients average over the most noise draws;
there, the row with the lowest error averaged over the distortions, beside the first row that was measured; of rows
that were measured at all of them, or in an unfinished run at the most.
"""

from __future__ import annotations

from collections.abc import Sequence

from noiseopt.report.bydistortion import Line, Panel
from noiseopt.report.layout import WHITE


def finding(panels: Sequence[Panel]) -> tuple[str, str]:
    """(the sentence, how it was chosen); there is at least one panel."""
    panel = max([p for p in panels if p.column.group == WHITE] or panels, key=lambda panel: panel.draws)
    most = max(len(line.points) for line in panel.lines)
    lines = [line for line in panel.lines if len(line.points) == most]
    first, best = lines[0], min(lines, key=lambda line: line.mean)
    against = f", against {_percent(first)} for {first.name}" if best is not first else ""
    sentence = (
        f"Under “{panel.title}”, {best.name} has the lowest error averaged over distortions of 0 to "
        f"{panel.furthest:.3g}: {_percent(best)}{against}."
    )
    if best.noise and panel.draws == 1:
        sentence += " Gradients averaged over its noise (EOT) were not measured, so this may not be robustness."
    basis = (
        "By a fixed rule, this sentence is about the white-box curve whose gradients average over the most noise "
        f"draws, and names the row of {len(lines)} with the lowest mean error."
    )
    if any(len(line.seeds) == 1 for line in (first, best)):
        basis += " It rests on one training seed of each: another seed may order the rows otherwise."
    return sentence, basis


def _percent(line: Line) -> str:
    return f"{100 * line.mean:.1f} %"
