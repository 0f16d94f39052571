"""A leaderboard made up: a run of six rows as the runner and the audit leave it, and rows with given numbers."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from noiseopt.report.standings import Standing
from noiseopt.report.statistics import estimate
from tests.report.synthetic import about_of, records_of
from tests.report.test_audit import ENTRY

ROWS: dict[str, dict[str, Any]] = {
    "plain": {"noise": None},
    "fixed 1": {"noise": {"sigma": 1.0}},
    "fixed 3-1-0": {"noise": {"sigma": [3, 1, 0]}},
    "learned": {"noise": {"sigma": "learned"}},
    "RSE": {"noise": {"kind": "rse"}},
    "plain, FGSM": {"noise": None, "adversary": {"attack": "fgsm"}},
}
AUDITED = {"plain": 0.1, "fixed 1": 0.3, "fixed 3-1-0": 0.5, "learned": 0.4, "RSE": 0.2, "plain, FGSM": 0.8}


def entry(row: str, seed: int, value: float, **changes: Any) -> dict[str, Any]:
    made = copy.deepcopy(ENTRY) | {
        "model": row,
        "model_seed": seed,
        "images": 1000,
        "command": "noiseopt audit made-up",
    }
    made["settings"] |= {"draws": [1, 20, 100]}
    made["audited"]["value"] = value
    made["checks"] = [check | {"found": False} for check in made["checks"]]
    return made | changes


def run_in(folder: Path, *, seeds: int = 3, leave_out: str = "") -> Path:
    """A run of ROWS as the runner and `noiseopt audit` leave it."""
    about = about_of("leaderboard-made-up", list(ROWS), ["clean", "pgd"], range(seeds))
    about["recipe"] |= {"rows": [{"label": label} | row for label, row in ROWS.items()], "training": {"epochs": 30}}
    run = folder / "run"
    (run / "audit").mkdir(parents=True)
    records = records_of(list(ROWS), ["clean", "pgd"], range(seeds), lambda row, column, *_: AUDITED[row] / 2 + 0.5)
    records = [r.model_copy(update={"noise": ROWS[r.model or ""]["noise"] is not None}) for r in records]
    (run / "run.json").write_text(json.dumps(about))
    (run / "records.jsonl").write_text("".join(record.model_dump_json() + "\n" for record in records))
    entries = [
        entry(row, seed, value + 0.001 * seed)
        for row, value in AUDITED.items()
        for seed in range(seeds)
        if row != leave_out
    ]
    (run / "audit" / "audit.json").write_text(json.dumps({"format": 1, "models": entries}))
    (run / "audit" / "records.jsonl").write_text(records[0].model_dump_json() + "\n")
    return run


def standing(clean: float, *audited: float, **changes: Any) -> Standing:
    settings: dict[str, Any] = {"label": f"{clean} {audited}", "kind": "learned", "adversary": "", "length": ""}
    return Standing(clean=estimate([clean] * 3), audited=estimate(audited), **(settings | changes))
