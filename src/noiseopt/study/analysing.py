"""`noiseopt study analyse`: gathers answers and networks, and writes the numbers as files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from noiseopt.errors import UserError
from noiseopt.study.analysis import analyse, collect, nobody
from noiseopt.study.beside import ask, rows_of, wanted
from noiseopt.study.folder import Study
from noiseopt.study.store import Store

_COLUMNS = ("who", "title", "role", "set", "level", "distortion", "mean", "low", "high", "units", "method")


def analysed(
    study: Study,
    store: Store,
    *,
    more: Sequence[str],
    people: bool = True,
    networks: bool = True,
    runs_dir: Path,
    data_dir: Path | None,
    device: str | None,
    told: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """See `analysis.analyse`. `more`: runs, besides the recipe's networks. Without `people` the networks are asked
    about all images that the study holds for participants, whoever has seen them.

    Raises:
        UserError: nobody has finished, nobody and no network is asked, or a run or a trained network is missing.
    """
    answers = collect(study, store) if people else nobody(study)
    places: dict[str, Any] = {"runs_dir": runs_dir, "data_dir": data_dir, "device": device}
    entries = [*wanted(study), *(row for name in more for row in rows_of(name, **places))] if networks else []
    if not people and not entries:
        raise UserError("this study names no networks", fix="--network RUN, or networks: in its recipe")
    groups = ask(study, entries, answers.items, told=told, **places)
    return analyse(study, answers, groups, simulated=people and store.simulated)


def files(data: Mapping[str, Any]) -> dict[str, bytes]:
    """The numbers as JSON, and the accuracies as a table; names say so where participants are simulated, or none."""
    return {f"analysis{data['mark']}.json": as_json(data), f"accuracy{data['mark']}.csv": _table(data)}


def as_json(data: Mapping[str, Any]) -> bytes:
    """Readable, with a last newline."""
    return (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode()


def _table(data: Mapping[str, Any]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["simulated", *_COLUMNS], lineterminator="\n")
    writer.writeheader()
    for line in data["lines"]:
        for point in line["points"]:
            row = {**line, **point, "level": data["levels"][point["level"]]["value"], "simulated": data["simulated"]}
            writer.writerow({key: row[key] for key in ("simulated", *_COLUMNS)})
    return text.getvalue().encode()
