"""The leaderboard: who stands where, who beats whom, and the page; from files made up."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noiseopt.errors import UserError
from noiseopt.report.audit import audit_view
from noiseopt.report.leaderboard import verdict, write_leaderboard
from noiseopt.report.pareto import edge
from noiseopt.report.publish import publish
from noiseopt.report.sources import read
from noiseopt.report.standings import Standing, beats, front, highest, is_adversarial, kind_of, standings
from noiseopt.report.statistics import Estimate, estimate
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
    settings: dict[str, Any] = {"label": f"{clean} {audited}", "kind": "learned", "adversarial": False}
    return Standing(clean=estimate([clean] * 3), audited=estimate(audited), **(settings | changes))


def test_what_a_row_does_about_noise() -> None:
    kinds = [kind_of(row) for row in ROWS.values()]
    assert kinds == ["none", "fixed", "allocation", "learned", "paper", "none"]
    assert kind_of({"noise": {"sigma": {"hidden1": 1}}}) == "allocation"
    assert kind_of({"noise": {"kind": "pixels"}}) == "learned"


def test_one_beats_another_by_intervals_apart_and_no_less_clean_accuracy() -> None:
    low, high = standing(0.97, 0.30, 0.31, 0.32), standing(0.97, 0.40, 0.41, 0.42)
    assert beats(high, low)
    assert not beats(low, high)
    assert not beats(standing(0.97, 0.32, 0.33, 0.34), low)  # the intervals overlap
    assert not beats(standing(0.96, 0.40, 0.41, 0.42), low)  # it costs clean accuracy
    assert beats(standing(0.9697, 0.40, 0.41, 0.42), low)  # which nobody would see
    assert not beats(standing(0.97, 0.40, 0.41), low)  # two seeds


points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.booleans()), max_size=12)


@given(points)
def test_the_front_has_what_nothing_is_better_than(found: list[tuple[int, int, bool]]) -> None:
    rows = [standing(x / 10, y / 10, masking={"slope": 1} if masked else {}) for x, y, masked in found]
    leading = front(rows)
    honest = [row for row in rows if not row.masking]
    assert all(row in honest for row in leading)

    def better(a: Standing, b: Standing) -> bool:
        pairs = [(a.clean.mean, b.clean.mean), (a.audited.mean, b.audited.mean)]
        return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)

    for row in leading:
        assert not any(better(other, row) for other in honest)
    places = {(row.clean.mean, row.audited.mean) for row in leading}
    for row in honest:
        covered = (row.clean.mean, row.audited.mean) in places
        assert covered or any(better(other, row) for other in leading)


def test_a_masked_row_leads_nothing() -> None:
    masked, honest = standing(0.9, 0.9, masking={"vanishing": 2}), standing(0.9, 0.2)
    assert highest([masked, honest], "learned") is honest
    assert front([masked, honest]) == [honest]
    assert "vanishing" in list(verdict([masked, honest]))[-1]


def test_standings_are_means_over_seeds_of_audits_and_records(tmp_path: Path) -> None:
    board = standings(read(run_in(tmp_path)))
    rows = {row.label: row for row in board.rows}
    assert list(rows) == list(ROWS)
    assert board.seeds == (0, 1, 2)
    assert board.images == 1000
    assert rows["learned"].audited.mean == pytest.approx(0.401)
    assert rows["learned"].audited.seeds == 3
    assert rows["learned"].clean.mean == pytest.approx(0.7)
    assert [row.label for row in board.group(adversarial=True)] == ["plain, FGSM"]
    assert all(row.cost is None for row in board.rows)


def test_an_audit_made_otherwise_is_left_out_and_named(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    path = run / "audit" / "audit.json"
    found = json.loads(path.read_text())
    found["models"][-1]["settings"]["eps"] = 0.5
    path.write_text(json.dumps(found))
    board = standings(read(run))
    assert board.rows[-1].audited.seeds == 2
    assert any("plain, FGSM, seed 2, was audited otherwise" in note for note in board.notes)


def test_audits_of_networks_that_are_gone_do_not_count(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    about = json.loads((run / "run.json").read_text())
    about["networks"] = [{"label": label, "seed": seed, "hash": f"{seed}abc"} for label in ROWS for seed in range(3)]
    (run / "run.json").write_text(json.dumps(about))
    found = json.loads((run / "audit" / "audit.json").read_text())
    for audited in found["models"]:
        audited["cell"] = "0abc" if audited["model"] == "learned" else f"{audited['model_seed']}abc"
    found["models"].insert(0, entry("renamed", 7, 0.5, images=50))
    (run / "audit" / "audit.json").write_text(json.dumps(found))
    board = standings(read(run))
    assert board.images == 1000
    assert board.seeds == (0, 1, 2)
    assert {row.label: row.audited.seeds for row in board.rows} == dict.fromkeys(ROWS, 3) | {"learned": 1}
    assert any("2 audits of networks that the run no longer has" in note for note in board.notes)
    notes: list[str] = []
    shown = audit_view(run, list(ROWS), notes, about=about)
    assert shown is not None
    assert len(shown["models"]) == 3 * len(ROWS) - 2
    assert notes == ["3 audits of networks that the run no longer has were left out: make them again"]


def test_rows_made_of_others_inherit_how_those_were_trained() -> None:
    recipe: dict[str, Any] = {
        "a": {},
        "b": {"adversary": {"attack": "fgsm"}},
        "c": {"pool": {"attack": "fgsm"}, "after": "a"},
        "d": {"of": ["a", "c"], "defence": "committee"},
        "e": {"after": "a"},
    }
    found = {label: is_adversarial(row, recipe) for label, row in recipe.items()}
    assert found == {"a": False, "b": True, "c": True, "d": True, "e": False}
    assert kind_of(recipe["d"]) == "made"


def test_the_front_is_drawn_along_what_is_attained() -> None:
    rows = [standing(0.98, 0.10), standing(0.90, 0.50)]
    assert edge(front(rows)) == [(0.98, 0.10), (0.90, 0.10), (0.90, 0.50)]
    assert edge([]) == []


def test_a_tie_has_no_winner() -> None:
    rows = [standing(0.9, 0.2, 0.2, label="one"), standing(0.8, 0.2, 0.2, kind="fixed", label="other")]
    said = next(line for line in verdict(rows) if line.startswith("Highest"))
    assert "**one**" in said
    assert "**other**" in said


def test_who_is_not_beaten_is_named() -> None:
    rows = [
        standing(0.965, 0.48, 0.48, 0.48, kind="fixed", label="fixed 5"),
        standing(0.90, 0.50, 0.50, 0.50, kind="fixed", label="fixed 8"),
        standing(0.91, 0.55, 0.55, 0.55, label="learned"),
    ]
    said = list(verdict(rows))
    assert said[0].startswith("Learned σ beats the one fixed σ of highest audited accuracy: **learned**")
    assert "Not beaten by learned" in said[1]
    assert "fixed 5" in said[1]


def test_runs_without_the_strict_protocol_are_refused_by_their_own_reason(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    records = run / "records.jsonl"
    records.write_text("".join(line for line in records.read_text().splitlines(True) if '"paper"' in line))
    publish(run, tmp_path / "results")
    with pytest.raises(UserError, match="column clean under the strict protocol"):
        write_leaderboard(tmp_path / "results", tmp_path / "l.md", command="c")


def test_the_page_ranks_judges_and_names_what_is_missing(tmp_path: Path) -> None:
    run = run_in(tmp_path, leave_out="RSE")
    publish(run, tmp_path / "results")
    (tmp_path / "results" / "leaderboard-made-up" / "cost.json").write_text(
        json.dumps({"rows": [{"row": "learned", "ms / step": 3.0, "time / plain": 1.25}]})
    )
    output = tmp_path / "docs" / "leaderboard.md"
    page = write_leaderboard(tmp_path / "results", output, command="made by a test").read_text()
    assert page.startswith("Made by `made by a test`")
    assert "Learned σ beats the one fixed σ of highest audited accuracy: **learned**, audited 0.401 ±0.002" in page
    assert "Learned σ beats the network without noise of highest audited accuracy: **learned**" in page
    assert "No learned σ beats the fixed σ for each layer of highest audited accuracy: **learned**" in page
    assert "Commands: `noiseopt evaluate leaderboard-made-up`, `noiseopt audit made-up`." in page
    assert "Not measured and audited yet: RSE." in page
    first = page[page.index("### Trained on images") : page.index("### Trained on adversarial")]
    assert re.findall(r"^\| (\w[^|]*) \|", first, re.M)[1:] == ["fixed 3-1-0", "learned", "fixed 1", "plain"]
    assert re.search(r"^\| learned \|.*\| 1\.25 \|$", first, re.M)
    (picture,) = re.findall(r"\((figures/[^)]*)\)", page)
    assert (output.parent / picture).read_bytes().startswith(b"\x89PNG")
    again = write_leaderboard(tmp_path / "results", tmp_path / "again.md", command="made by a test")
    assert again.read_text() == page


def test_what_is_published_beside_a_board_and_not_audited_is_named_and_not_ranked(tmp_path: Path) -> None:
    publish(run_in(tmp_path), tmp_path / "results")
    settings = shutil.copytree(tmp_path / "results" / "leaderboard-made-up", tmp_path / "results" / "settings")
    shutil.rmtree(settings / "audit")
    about = (settings / "run.json").read_text()
    (settings / "run.json").write_text(about.replace('"leaderboard-made-up"', '"settings"'))
    page = write_leaderboard(tmp_path / "results", tmp_path / "page.md", command="a test").read_text()
    assert "Published beside them and not audited, so not ranked: settings." in page
    assert len(re.findall(r"^## ", page, re.M)) == 1


def test_two_seeds_decide_nothing(tmp_path: Path) -> None:
    board = standings(read(run_in(tmp_path, seeds=2)))
    assert "no verdict before three seeds" in " ".join(verdict(board.group(adversarial=False)))


def test_one_seed_has_a_picture_too(tmp_path: Path) -> None:
    publish(run_in(tmp_path, seeds=1), tmp_path / "results")
    assert "figures/" in write_leaderboard(tmp_path / "results", tmp_path / "l.md", command="c").read_text()


@pytest.mark.parametrize("audited", [True, False])
def test_nothing_audited_is_an_error(tmp_path: Path, audited: bool) -> None:
    run = run_in(tmp_path)
    (run / "audit" / "audit.json").write_text("{" if audited else '{"models": []}')
    publish(run, tmp_path / "results")
    with pytest.raises(UserError, match="audited"):
        write_leaderboard(tmp_path / "results", tmp_path / "l.md", command="c")


def test_a_cost_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    (run / "cost.json").write_text('{"rows": [{"row": "plain"}]}')
    assert any("cost.json cannot be read" in note for note in standings(read(run)).notes)


def test_publishing_takes_the_audit_along_and_no_journal(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    (run / "audit" / "audit-abc.jsonl").write_text("{}")
    target = publish(run, tmp_path / "results")
    assert {path.name for path in (target / "audit").iterdir()} == {"audit.json", "records.jsonl"}
    (run / "audit" / "audit.json").unlink()
    publish(run, tmp_path / "results")
    assert {path.name for path in (target / "audit").iterdir()} == {"records.jsonl"}


def test_an_estimate_without_numbers_is_not_placed() -> None:
    assert not standing(0.5).placed
    assert standing(0.5, 0.1).placed
    assert isinstance(standing(0.5, 0.1).audited, Estimate)
