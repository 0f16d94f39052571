"""The leaderboard's page: what is said, ranked and named; from files made up."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from noiseopt.errors import UserError
from noiseopt.report.leaderboard import write_leaderboard
from noiseopt.report.publish import publish
from noiseopt.report.ranking import front, highest, verdict
from noiseopt.report.sources import read
from noiseopt.report.standings import standings
from tests.report.boards import run_in, standing


def test_a_masked_row_leads_nothing() -> None:
    masked, honest = standing(0.9, 0.9, masking={"vanishing": 2}), standing(0.9, 0.2)
    assert highest([masked, honest], "learned") is honest
    assert front([masked, honest]) == [honest]
    assert "vanishing" in list(verdict([masked, honest]))[-1]


def test_a_tie_has_no_winner() -> None:
    rows = [standing(0.9, 0.2, 0.2, label="one"), standing(0.8, 0.2, 0.2, kind="fixed", label="other")]
    said = next(line for line in verdict(rows) if line.startswith("Highest"))
    assert "**one**" in said
    assert "**other**" in said


def test_rows_are_compared_with_partners_of_the_same_adversary() -> None:
    rows = [
        standing(0.98, 0.88, 0.88, 0.88, label="PGD", kind="none", adversary="PGD-7"),
        standing(0.95, 0.86, 0.87, 0.86, label="TRADES", kind="none", adversary="TRADES-7"),
        standing(0.96, 0.89, 0.90, 0.89, label="learned", adversary="TRADES-7"),
    ]
    said = list(verdict(rows))
    assert said[0].startswith(
        "**TRADES-7.** Learned σ beats the network without noise of highest audited accuracy: **le"
    )
    assert "**learned**" in said[1]
    assert said[2].endswith("the median of these rows: 0.006.")
    assert len(said) == 3


def test_rows_are_compared_with_those_that_train_as_long(tmp_path: Path) -> None:
    rows = [
        standing(0.98, 0.70, 0.70, 0.70, label="plain", kind="none"),
        standing(0.98, 0.95, 0.95, 0.95, label="dropout", kind="none", length="40,000 steps"),
        standing(0.98, 0.87, 0.87, 0.87, label="learned"),
    ]
    said = list(verdict(rows))
    assert said[0].startswith("Learned σ beats the network without noise of highest audited accuracy: **learned**")
    assert "against **plain**" in said[0]
    run = run_in(tmp_path)
    about = json.loads((run / "run.json").read_text())
    for row, epochs in zip(about["recipe"]["rows"], (120, 30), strict=False):
        row["training"] = {"epochs": epochs}
    (run / "run.json").write_text(json.dumps(about))
    board = {row.label: row.length for row in standings(read(run)).rows}
    assert board == dict.fromkeys(board, "") | {"plain": "120 epochs"}
    publish(run, tmp_path / "results")
    page = write_leaderboard(tmp_path / "results", tmp_path / "page.md", command="made by a test").read_text()
    assert "trained for 30 epochs; plain for 120 epochs, and compared only with rows as long." in page
    assert "Learned σ beats the network without noise" not in page


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
    assert "Not audited yet: RSE." in page
    first = page[page.index("### Trained on images") : page.index("### Trained on adversarial")]
    assert re.findall(r"^\| (\w[^|]*) \|", first, re.M)[1:] == ["fixed 3-1-0", "learned", "fixed 1", "plain"]
    assert re.search(r"^\| learned \|.*\| 1\.25 \|$", first, re.M)
    (picture,) = re.findall(r"\((figures/[^)]*)\)", page)
    assert (output.parent / picture).read_bytes().startswith(b"\x89PNG")
    again = write_leaderboard(tmp_path / "results", tmp_path / "again.md", command="made by a test")
    assert again.read_text() == page


def test_what_is_published_beside_a_board_and_not_audited_is_shown_and_not_ranked(tmp_path: Path) -> None:
    publish(run_in(tmp_path), tmp_path / "results")
    settings = shutil.copytree(tmp_path / "results" / "leaderboard-made-up", tmp_path / "results" / "settings")
    shutil.rmtree(settings / "audit")
    about = (settings / "run.json").read_text()
    (settings / "run.json").write_text(about.replace('"leaderboard-made-up"', '"settings"'))
    page = write_leaderboard(tmp_path / "results", tmp_path / "page.md", command="a test").read_text()
    ranked, beside = page.split("## Not audited, so not ranked: ")
    assert len(re.findall(r"^## ", ranked, re.M)) == 1
    assert "test images; 3 seeds; the strict protocol" in beside
    assert re.search(r"^\| learned \| learned σ \| 0.700 ±0.000 \| 0.700 ±0.000 \|", beside, re.M)


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


def test_publishing_leaves_out_audits_of_networks_that_are_gone(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    about = json.loads((run / "run.json").read_text())
    about["networks"] = [{"label": "learned", "seed": seed, "hash": "abc"} for seed in range(3)]
    (run / "run.json").write_text(json.dumps(about))
    target = publish(run, tmp_path / "results")
    kept = json.loads((target / "audit" / "audit.json").read_text())["models"]
    assert [(entry["model"], entry["model_seed"]) for entry in kept] == [("learned", seed) for seed in range(3)]


def test_publishing_takes_the_audit_along_and_no_journal(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    (run / "audit" / "audit-abc.jsonl").write_text("{}")
    target = publish(run, tmp_path / "results")
    assert {path.name for path in (target / "audit").iterdir()} == {"audit.json", "records.jsonl"}
    (run / "audit" / "audit.json").unlink()
    publish(run, tmp_path / "results")
    assert {path.name for path in (target / "audit").iterdir()} == {"records.jsonl"}
