"""People and networks on the same images, in a run's report: out of the file that `study analyse` wrote there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from noiseopt.report.study_figures import ROLES, SIMULATED, Data, about, accuracy_svg

FILE = "people.json"


def study_section(folder: Path) -> Markup:
    """The section of a run's report; empty where no study was put into the run's folder."""
    try:
        data = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.get("format") != 1:
            return Markup("")
        return _section(data)
    except FileNotFoundError:
        return Markup("")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        text = Markup('<section id="study"><h2>People and networks</h2><p class="missing">{} cannot be read: {}</p>')
        return text.format(FILE, f"{type(error).__name__} {error}") + Markup("</section>")


def _section(data: Data) -> Markup:
    picture = accuracy_svg(data)
    mark = f"{SIMULATED}: " if data["simulated"] else ""
    head = Markup("<tr>") + Markup("").join(
        Markup('<th scope="col"{}>{}</th>').format(Markup(' class="number"') if place else "", words)
        for place, words in enumerate(("Images", "Distortion", *(_column(line) for line in _columns(data))))
    )
    body = Markup("").join(_row(data, number) for number in range(len(data["levels"])))
    lede = f"{about(data)}, {'the same' if data['draw'] == 'same' else 'others'} for each. Bands and brackets are 95 % "
    if data["participants"]:
        lede += "intervals over participants, and over networks; the networks were asked about the same 8-bit images. "
        lede += "“Don't know” counts as wrong."
    else:
        lede += "intervals over networks, which were asked about the 8-bit images that participants would be shown."
    left_out = data["left_out"]
    lede += f" {left_out} who have not finished are left out." if left_out else ""
    return (
        Markup('<section id="study"><h2>{}People and networks on the same images</h2>').format(mark)
        + Markup('<p class="lede">{}</p><div class="panels plots"><figure><figcaption>{}Accuracy by distortion, %')
        .format(lede, mark)
        + Markup("</figcaption>")
        + Markup(picture)
        + Markup("</figure></div>")
        + Markup('<div class="scroll" role="region" tabindex="0" aria-label="Accuracy of people and networks">')
        + Markup('<table class="settings"><caption>{}Accuracy, %</caption><thead>').format(mark)
        + head
        + Markup("</tr></thead><tbody>")
        + body
        + Markup("</tbody></table></div></section>")
    )  # fmt: skip


def _columns(data: Data) -> list[tuple[str, str, str]]:
    """Who looked: (who, title, role), in order."""
    return list(dict.fromkeys((line["who"], line["title"], line["role"]) for line in data["lines"]))


def _column(column: tuple[str, str, str]) -> str:
    _, title, role = column
    return f"{title} ({ROLES[role]})" if role else title


def _row(data: Data, number: int) -> Markup:
    level = data["levels"][number]
    cells = Markup("")
    for column in _columns(data):
        lines = [line for line in data["lines"] if (line["who"], line["title"], line["role"]) == column]
        point = next((p for line in lines for p in line["points"] if p["level"] == number), None)
        cells += Markup('<td class="number">{}</td>').format(Markup("–") if point is None else _cell(point))
    return Markup('<tr><th scope="row">{}</th><td class="number">{:.3f}</td>').format(
        level["name"], level["distortion"]
    ) + cells + Markup("</tr>")  # fmt: skip


def _cell(point: Mapping[str, Any]) -> str:
    if point["low"] is None:
        return f"{100 * point['mean']:.1f}"
    return f"{100 * point['mean']:.1f} [{100 * point['low']:.1f}, {100 * point['high']:.1f}]"
