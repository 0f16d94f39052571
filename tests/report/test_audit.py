"""The page's section on audits, from files made up."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from noiseopt.report import write_report
from noiseopt.report.audit import audit_view
from tests.report.synthetic import about_of

ENTRY: dict[str, Any] = {
    "model": "MLP+",
    "model_seed": 0,
    "settings": {"eps": 25 / 255, "votes": 100},
    "noisy": True,
    "images": 200,
    "clean": {"value": 0.97, "low": 0.93, "high": 0.99},
    "audited": {"value": 0.125, "low": 0.09, "high": 0.18, "undecided": 3},
    "subset": 100,
    "attacks": [
        {"key": "clean", "title": "no attack", "tried": 200, "fell": 6, "left": 194, "subset": 97, "seconds": 0.1},
        {"key": "far", "title": "<far>", "tried": 97, "fell": 97, "left": None, "subset": 0, "seconds": 1234.5},
    ],
    "checks": [
        {"name": "gradient", "found": False, "masking": True, "sentence": "The loss has a gradient."},
        {"name": "black-box", "found": True, "masking": True, "sentence": "The black box <wins>."},
        {"name": "steps-converged", "found": True, "masking": False, "sentence": "It keeps falling."},
    ],
    "masked": True,
}
CERTIFIED: dict[str, Any] = {
    "model": "MLP+",
    "model_seed": 0,
    "images": 50,
    "sigma": 0.25,
    "draws": 1000,
    "alpha": 0.001,
    "abstained": 5,
    "certified": [{"radius": 0.0, "value": 0.9, "low": 0.8, "high": 0.95}],
}


def write(folder: Path, name: str, *entries: dict[str, Any]) -> None:
    (folder / "audit").mkdir(exist_ok=True)
    (folder / "audit" / name).write_text(json.dumps({"format": 1, "models": entries}))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run.json").write_text(json.dumps(about_of("made-up", ["MLP+", "MLP"], ["clean"], [0])))
    return tmp_path


def page_of(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


def test_a_run_that_was_not_audited_has_no_such_section(run: Path) -> None:
    assert audit_view(run, [], []) is None
    assert 'id="audit"' not in page_of(run)


def test_the_page_shows_the_verdict_and_every_sentence(run: Path) -> None:
    write(run, "audit.json", ENTRY, {**ENTRY, "model": "MLP", "masked": False, "checks": [], "noisy": False})
    write(run, "certificates.json", CERTIFIED)
    page = page_of(run)
    for text in ("0.125", "0.090 to 0.180", "✗ found", "none found", "100 votes of the noise", "25/255", "1,234.5"):
        assert text in page
    assert page.count("The black box &lt;wins&gt;.") == 2, "among the findings and among the checks"
    assert "&lt;far&gt;" in page
    assert page.count("<details") == 2
    assert page.count('<details class="audit" open>') == 1
    assert "1,000 draws for each of 50 images; each certificate is wrong with a probability of at most 0.001" in page
    assert '<a href="#audit">' in page
    assert ">Radius<" not in page


def test_audits_at_two_radii_say_which_is_which(run: Path) -> None:
    far = copy.deepcopy(ENTRY)
    far["settings"]["eps"] = 51 / 255
    write(run, "audit.json", far, ENTRY)
    page = page_of(run)
    assert "L∞ radius 0.098 (25/255) or 0.2 (51/255) on 200 test images" in page
    assert ">Radius<" in page
    assert page.index(">25/255</td>") < page.index(">51/255</td>")
    assert "seed 0, radius 51/255:" in page


def test_a_model_without_its_noise_stands_behind_itself(run: Path) -> None:
    write(run, "audit.json", {**ENTRY, "noisy": False, "noise_off": True}, ENTRY)
    view = audit_view(run, [], [])
    assert view is not None
    name = ENTRY["model"]
    assert [m["label"] for m in view["models"]] == [name, f"{name}, noise off"]


def test_models_stand_in_the_order_of_the_table(run: Path) -> None:
    write(
        run,
        "audit.json",
        *({**ENTRY, "model": name, "model_seed": seed} for name, seed in (("B", 1), ("A", 0), ("B", 0))),
    )
    view = audit_view(run, ["B", "A"], [])
    assert view is not None
    assert [(m["label"], m["seed"]) for m in view["models"]] == [("B", 0), ("B", 1), ("A", 0)]


def test_radii_of_all_models_share_the_columns(run: Path) -> None:
    other = {**CERTIFIED, "model": "MLP", "certified": [{"radius": 0.5, "value": 0.4, "low": 0.3, "high": 0.5}]}
    write(run, "certificates.json", CERTIFIED, other)
    view = audit_view(run, [], [])
    assert view is not None
    assert view["certificates"]["radii"] == ["0", "0.5"]
    values = {line["label"]: [cell["value"] for cell in line["cells"]] for line in view["certificates"]["lines"]}
    assert values == {"MLP+": ["0.900", ""], "MLP": ["", "0.400"]}


@pytest.mark.parametrize("missing", ["audited", "checks", "attacks", "images", "settings", "masked"])
def test_what_cannot_be_read_becomes_a_note(run: Path, missing: str) -> None:
    broken = copy.deepcopy(ENTRY)
    del broken[missing]
    write(run, "audit.json", broken)
    notes: list[str] = []
    assert audit_view(run, [], notes) is None
    assert len(notes) == 1
    assert "audit/audit.json cannot be read" in notes[0]
    assert "audit/audit.json cannot be read" in page_of(run)


def test_a_torn_file_becomes_a_note(run: Path) -> None:
    (run / "audit").mkdir()
    (run / "audit" / "audit.json").write_text('{"models": [')
    notes: list[str] = []
    assert audit_view(run, [], notes) is None
    assert notes
