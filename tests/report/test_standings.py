"""The standings of a leaderboard: what a row is, who beats whom, which audits count; from files made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noiseopt.report.audit import audit_view
from noiseopt.report.kinds import adversary_of, kind_of
from noiseopt.report.levels import Levels, final_levels
from noiseopt.report.pareto import edge
from noiseopt.report.ranking import beats, front
from noiseopt.report.sources import read
from noiseopt.report.standings import Standing, standings
from tests.report.boards import ROWS, entry, run_in, standing


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
    assert not beats(standing(0.964, 0.40, 0.41, 0.42), low)  # it costs clean accuracy
    assert beats(standing(0.965, 0.40, 0.41, 0.42), low)  # which these images can hardly tell
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


def test_standings_are_means_over_seeds_of_audits_and_records(tmp_path: Path) -> None:
    board = standings(read(run_in(tmp_path)))
    rows = {row.label: row for row in board.rows}
    assert list(rows) == list(ROWS)
    assert board.seeds == (0, 1, 2)
    assert board.images == 1000
    assert rows["learned"].audited.mean == pytest.approx(0.401)
    assert rows["learned"].audited.seeds == 3
    assert rows["learned"].clean.mean == pytest.approx(0.97), "of the images that were audited"
    assert rows["learned"].close == pytest.approx(3 / 1000)
    assert rows["learned"].measured("pgd", noise=True).mean == pytest.approx(0.7)
    assert rows["plain"].measured("pgd", noise=True).known
    assert not rows["plain"].measured("pgd", noise=False).known
    assert [row.label for row in board.group(adversarial=True)] == ["plain, FGSM"]
    assert all(row.cost is None for row in board.rows)


def test_an_audit_without_the_noise_is_another_number(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    path = run / "audit" / "audit.json"
    found = json.loads(path.read_text())
    found["models"] += [entry("learned", seed, 0.3, noise_off=True) for seed in (1, 2, 3)]  # seed 3 has no other
    path.write_text(json.dumps(found))
    board = standings(read(run))
    rows = {row.label: row for row in board.rows}
    assert rows["learned"].audited.mean == pytest.approx(0.401)
    assert rows["learned"].audited_off.mean == pytest.approx(0.3)
    assert rows["learned"].worth.mean == pytest.approx((0.101 + 0.102) / 2)
    assert rows["learned"].worth.seeds == 2
    assert rows["learned"].clean_off.mean == rows["learned"].clean.mean
    assert not rows["fixed 1"].audited_off.known
    assert not board.notes
    path.write_text(json.dumps({"format": 1, "models": found["models"][-3:]}))
    assert not any(row.placed for row in standings(read(run)).rows), "with their noise they are what is ranked"


def test_an_audit_made_otherwise_is_left_out_and_named(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    path = run / "audit" / "audit.json"
    found = json.loads(path.read_text())
    found["models"][-1]["settings"]["eps"] = 0.5
    path.write_text(json.dumps(found))
    board = standings(read(run))
    assert board.rows[-1].audited.seeds == 2
    assert board.notes[-1] == "Audits made otherwise than most do not count here: plain, FGSM, seed 2"


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
        "b": {"adversary": {"attack": "fgsm", "eps": 25 / 255}},
        "c": {"pool": {"attack": "sign_then_gradient", "eps": 0.4}, "after": "a"},
        "d": {"of": ["a", "b", "c"], "defence": "committee"},
        "e": {"after": "a"},
    }
    found = {label: adversary_of(row, recipe) for label, row in recipe.items()}
    sign = "SIGN THEN GRADIENT, 102/255"
    assert found == {"a": "", "b": "FGSM, 25/255", "c": sign, "d": f"FGSM, 25/255 and {sign}", "e": ""}
    assert kind_of(recipe["d"]) == "made"


def test_partners_of_one_adversary_have_one_name() -> None:
    fgsm, pgd = {"attack": "fgsm", "eps": 25 / 255}, {"attack": "pgd", "eps": 25 / 255, "steps": 7}
    assert adversary_of({"adversary": fgsm | {"loss": None, "share": None}}, {}) == "FGSM, 25/255"
    assert adversary_of({"adversary": fgsm | {"loss": "mixed"}}, {}) == "50% FGSM, 25/255"
    assert adversary_of({"adversary": fgsm | {"loss": "mixed", "share": 0.25}}, {}) == "25% FGSM, 25/255"
    assert adversary_of({"adversary": pgd}, {}) == "PGD-7, 25/255"
    assert adversary_of({"adversary": pgd | {"loss": "trades", "beta": 6.0}}, {}) == "TRADES-7 with β 6, 25/255"


def test_the_front_is_drawn_along_what_is_attained() -> None:
    rows = [standing(0.98, 0.10), standing(0.90, 0.50)]
    assert edge(front(rows)) == [(0.98, 0.10), (0.90, 0.10), (0.90, 0.50)]
    assert edge([]) == []


def test_a_cost_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    (run / "cost.json").write_text('{"rows": [{"row": "plain"}]}')
    assert any("cost.json cannot be read" in note for note in standings(read(run)).notes)


def test_an_estimate_without_numbers_is_not_placed() -> None:
    assert not standing(0.5).placed
    assert standing(0.5, 0.1).placed


def test_the_noise_at_the_end_is_that_of_the_last_epochs(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    (run / "curves").mkdir()
    for seed, end in ((0, 4.0), (1, 6.0)):
        levels = [1.0] * 8 + [end / 2, end]
        lines = [
            {"epoch": i + 1, "sigma": {"hidden": {"rms": level}, "output": {"rms": 0.5}}}
            for i, level in enumerate(levels)
        ]
        (run / "curves" / f"learned-s{seed}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "curves" / "plain-s0.jsonl").write_text('{"epoch": 1}\n')
    placed = {"epoch": 1, "sigma": {"hidden": {"rms": 3.0}, "output": {"rms": 1.0}}}
    (run / "curves" / "fixed-3-1-0-s0.jsonl").write_text(json.dumps(placed) + "\n")
    rows = {row.label: row for row in standings(read(run)).rows}
    assert str(rows["learned"].levels) == "5; 0.5 ↑"
    assert str(rows["fixed 3-1-0"].levels) == "3; 1; 0"
    assert rows["plain"].levels is None
    assert str(Levels((1.0, 2.0, 3.0, 4.0, 5.0), -0.2)) == "1 to 5 ↓"


@pytest.mark.parametrize(
    ("seeds", "drift"),
    [
        ([[0.5, 0.6, 0.75, 0.9]], 0.2),  # few epochs: the last one
        ([[0.5]], 0.0),
        ([[1.0] * 8 + [0.8, 0.4], [1.0] * 8 + [0.9, 0.8]], -0.4),
        ([[1.0] * 8 + [1.2, 1.5], [1.0] * 8 + [0.9, 0.8]], 0.0),  # two seeds that do not agree
        ([[1e-3] * 8 + [4e-3, 1.5e-3]], 0.0),  # to and fro
        ([[1.0, 0.0]], -1.0),
        ([[0.0, 1.0]], 0.0),
    ],
)
def test_noise_moved_where_every_seed_went_one_way(tmp_path: Path, seeds: list[list[float]], drift: float) -> None:
    run = run_in(tmp_path)
    (run / "curves").mkdir()
    for seed, levels in enumerate(seeds):
        lines = [{"epoch": i + 1, "sigma": {"hidden": {"rms": level}}} for i, level in enumerate(levels)]
        (run / "curves" / f"learned-s{seed}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = final_levels(read(run))["learned"]
    assert found.drift == pytest.approx(drift)
