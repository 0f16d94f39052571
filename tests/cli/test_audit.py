from __future__ import annotations

import json
from pathlib import Path
from shutil import rmtree

import pytest

from noiseopt.experiments.store import Store
from tests.cli.common import Invoke, last_line
from tests.experiments.conftest import TINY

QUICK = ("--steps", "4", "--queries", "5", "--votes", "9", "--subset", "8", "--draws", "1,3", "--workers", "1")
PLANTED = """
from torch import nn
from noiseopt.models import mlp

class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = mlp(hidden=[8], image_size=8, classes=3)

    def forward(self, images):
        return self.model(images) * (1.0 if self.training else 1e5)
"""
ROWS = "  - {label: Masked, model: 'planted:Masked'}\nsurrogate:"


@pytest.fixture
def run(here: Path, invoke: Invoke) -> Path:
    """Three small networks and a masked one, trained."""
    (here / "planted.py").write_text(PLANTED)
    (here / "tiny.yaml").write_text(TINY.replace("surrogate:", ROWS, 1).replace("epochs: 2", "epochs: 8"))
    status, _, err = invoke("train", "tiny.yaml")
    assert status == 0, err
    return here / "runs" / "tiny"


def test_an_audit_ends_with_its_verdict(run: Path, invoke: Invoke) -> None:
    status, out, err = invoke("audit", "tiny", *QUICK, "--row", "MLP", "--row", "MLP+")
    assert status == 0
    assert "Next: noiseopt report runs/tiny" in out
    assert "MLP+, seed 0 · Square, 5 queries of 3 draws · " in err
    status, out, _ = invoke("audit", "tiny", *QUICK, "--row", "Masked")
    assert status == 3
    assert "masking: Masked, seed 0: The gradient is exactly 0 on" in out
    told = json.loads((run / "audit" / "audit.json").read_text())
    assert [(m["model"], m["masked"]) for m in told["models"]] == [("MLP", False), ("MLP+", False), ("Masked", True)]
    records = Store(run / "audit" / "records.jsonl").records
    assert {r.model for r in records} == {"MLP", "MLP+", "Masked"}
    status, out, err = invoke("report", "tiny")
    assert status == 0
    page = (run / "report.html").read_text()
    assert "Audit" in page
    assert "✗ masking" in page


def test_audits_at_two_radii_stand_beside_one_another(run: Path, invoke: Invoke) -> None:
    for eps in ("25/255", "50/255", "25/255"):
        assert invoke("audit", "tiny", *QUICK, "--row", "MLP", "--eps", eps)[0] == 0
    told = json.loads((run / "audit" / "audit.json").read_text())["models"]
    assert sorted(round(255 * m["settings"]["eps"]) for m in told) == [25, 50]


def test_an_audit_without_the_noise_stands_beside_the_other(run: Path, invoke: Invoke) -> None:
    rows = ("--row", "MLP", "--row", "MLP+")
    assert invoke("audit", "tiny", *QUICK, *rows)[0] == 0
    status, out, err = invoke("audit", "tiny", *QUICK, *rows, "--noise-off")
    assert status == 0, err
    assert "MLP+, noise" in out
    told = json.loads((run / "audit" / "audit.json").read_text())["models"]
    found = {(m["model"], m["noisy"], m["noise_off"]) for m in told}
    assert found == {("MLP", False, False), ("MLP+", True, False), ("MLP+", False, True)}
    assert len(told) == 3
    assert invoke("report", "tiny")[0] == 0
    assert "MLP+, noise off" in (run / "report.html").read_text()


def test_what_is_published_of_an_audit_is_of_the_latest(run: Path, invoke: Invoke) -> None:
    rows = ("--row", "MLP", "--row", "MLP+")
    assert invoke("audit", "tiny", *QUICK, *rows)[0] == 0
    assert invoke("audit", "tiny", *QUICK, *rows, "--queries", "6")[0] == 0
    assert invoke("audit", "tiny", *QUICK, *rows, "--noise-off")[0] == 0
    for images, draws in (("6", "100"), ("6", "200"), ("8", "200")):
        options = ("--sigma", "0.2", "--images", images, "--draws", draws, "--row", "MLP")
        assert invoke("certify", "tiny", *options)[0] == 0
    assert invoke("publish", "runs/tiny", "published")[0] == 0
    folder = run.parent.parent / "published" / "tiny" / "audit"
    told = json.loads((folder / "audit.json").read_text())["models"]
    entries = sorted((m["model"], m["settings"]["queries"], m["audited"]["value"]) for m in told)
    records = Store(folder / "records.jsonl").records
    audited = [r for r in records if r.metric == "audited accuracy"]
    assert sorted((r.model, r.parameters["queries"], r.value) for r in audited) == entries
    assert [(name, queries) for name, queries, _ in entries] == [("MLP", 5), ("MLP+", 5), ("MLP+", 6)]
    steps = sum(len(m["attacks"]) for m in told)
    assert sum(r.column == "audit" for r in records) > steps  # every attack's number is there, too
    assert {r.draws for r in records if r.column == "certified"} == {200}
    assert {r.count for r in records if r.column == "certified"} == {8}
    assert len(records) < len(Store(run / "audit" / "records.jsonl").records)


def test_records_of_an_audit_that_cannot_be_read_are_published_as_they_are(run: Path, invoke: Invoke) -> None:
    assert invoke("audit", "tiny", *QUICK, "--row", "MLP")[0] == 0
    (run / "audit" / "audit.json").write_text("{")
    assert invoke("publish", "runs/tiny", "published")[0] == 0
    lines = (run / "audit" / "records.jsonl").read_bytes()
    assert lines
    assert (run.parent.parent / "published" / "tiny" / "audit" / "records.jsonl").read_bytes() == lines


def test_models_audited_at_once_come_to_the_same_verdicts(run: Path, invoke: Invoke) -> None:
    def attacks(*more: str) -> list[tuple[str, object]]:
        status, out, err = invoke("audit", "tiny", *QUICK, "--json", *more)
        assert status == 3, err
        found = json.loads(out)["models"]
        timed = [[{**line, "seconds": 0} for line in m["attacks"]] for m in found]
        return [(m["model"], lines) for m, lines in zip(found, timed, strict=True)]

    alone = attacks()
    told = json.loads((run / "audit" / "audit.json").read_text())["models"]
    rmtree(run / "audit")
    assert attacks("--workers", "2") == alone
    ours = {m["model"]: m["cell"] for m in json.loads((run / "audit" / "audit.json").read_text())["models"]}
    assert ours == {m["model"]: m["cell"] for m in told}


def test_rows_that_share_a_network_are_audited_under_their_own_names(here: Path, invoke: Invoke) -> None:
    twin = "  - {label: Twin, model: mlp, options: {hidden: [8]}}\nsurrogate:"
    (here / "tiny.yaml").write_text(TINY.replace("surrogate:", twin, 1))
    assert invoke("train", "tiny.yaml")[0] == 0
    status, out, err = invoke("audit", "tiny", *QUICK, "--json", "--row", "MLP", "--row", "Twin")
    assert status in (0, 3), err
    one, other = json.loads(out)["models"]
    assert (one["model"], other["model"]) == ("MLP", "Twin")
    assert one["audited"] == other["audited"]
    kept = json.loads((here / "runs/tiny/audit/audit.json").read_text())["models"]
    assert len({m["cell"] for m in kept}) == 1
    records = Store(here / "runs/tiny/audit/records.jsonl").records
    assert sum(r.model == "MLP" for r in records) == sum(r.model == "Twin" for r in records) > 5


def test_every_seed_is_audited_with_draws_of_its_own(here: Path, invoke: Invoke) -> None:
    (here / "tiny.yaml").write_text(TINY.replace("seeds: [0]", "seeds: [0, 3]"))
    assert invoke("train", "tiny.yaml")[0] == 0
    status, out, err = invoke("audit", "tiny", *QUICK, "--json", "--row", "MLP+", "--seeds", "0,3")
    assert status in (0, 3), err
    assert [m["settings"]["seed"] for m in json.loads(out)["models"]] == [0, 3]


def test_rows_that_are_not_shown_are_audited_by_name_alone(here: Path, invoke: Invoke) -> None:
    (here / "tiny.yaml").write_text(TINY.replace("label: MLP,", "label: MLP, shown: false,"))
    assert invoke("train", "tiny.yaml")[0] == 0

    def audited(*rows: str) -> list[str]:
        status, out, err = invoke("audit", "tiny", *QUICK, "--json", *rows)
        assert status in (0, 3), err
        return [model["model"] for model in json.loads(out)["models"]]

    assert audited() == ["MLP+", "MLPN"]
    assert audited("--row", "MLP") == ["MLP"]


def test_json_is_all_there_is_on_stdout(run: Path, invoke: Invoke) -> None:
    status, out, _ = invoke("audit", "tiny", *QUICK, "--json", "--row", "Masked", "--row", "MLP")
    assert status == 3
    told = json.loads(out)
    assert [m["model"] for m in told["models"]] == ["MLP", "Masked"]
    first = told["models"][0]
    assert first["settings"]["eps"] == pytest.approx(25 / 255)
    assert 0 <= first["audited"]["low"] <= first["audited"]["value"] <= first["audited"]["high"] <= 1
    asked = ("audit", "tiny", *QUICK, "--json", "--row", "Masked", "--row", "MLP", "--eps", "25/255")
    again = json.loads(invoke(*asked)[1])
    assert again == told, "what is known is not attacked again"


MISTAKES = [
    ("audit nothing", "there is no run nothing"),
    ("audit tiny --row MLX", "a row must be one of the run's; got MLX"),
    ("audit tiny --seeds 7", "the run has the seeds 0; got 7"),
    ("audit tiny --draws 1,x", "--draws must be whole numbers"),
    ("audit tiny --eps 25", "divide by 255"),
    ("audit tiny --eps 8/x", "such as 8/255; got 8/x"),
    ("certify tiny --row MLP", "MLP, seed 0: a certificate needs noise on the images"),
    ("certify tiny --sigma -1", "sigma must be a positive"),
]


def test_mistakes_are_one_line_and_status_2(run: Path, invoke: Invoke) -> None:
    for line, message in MISTAKES:
        status, _, err = invoke(*line.split())
        assert status == 2, line
        assert message in last_line(err)


def test_a_model_that_is_not_trained_is_named(here: Path, invoke: Invoke) -> None:
    assert invoke("train", "tiny.yaml")[0] == 0
    about = json.loads((here / "runs" / "tiny" / "run.json").read_text())
    folder = next(m["folder"] for m in about["models"] if m["label"] == "MLPN")
    (here / "runs" / "tiny" / folder / "checkpoint.safetensors").unlink()
    status, _, err = invoke("audit", "tiny", *QUICK)
    assert status == 2
    assert "MLPN, seed 0 must be trained first" in last_line(err)


def test_certificates_are_printed_and_kept(run: Path, invoke: Invoke) -> None:
    status, out, _ = invoke("certify", "tiny", "--sigma", "0.2", "--draws", "100", "--row", "MLP", "--json")
    assert status == 0
    records = json.loads(out)["models"]
    assert [r["parameters"]["radius"] for r in records][:2] == [0.0, 0.1]
    assert records[0]["metric"] == "certified accuracy"
    assert {r.metric for r in Store(run / "audit" / "records.jsonl").records} == {"certified accuracy"}
    assert invoke("report", "tiny")[0] == 0
    assert "Certificates" in (run / "report.html").read_text()


def test_certificates_by_a_models_own_noise_and_by_more_stand_beside_one_another(here: Path, invoke: Invoke) -> None:
    smoothed = TINY.replace("noise: {sigma: 1.0}", "noise: {kind: smoothing, sigma: 0.2}")
    assert smoothed != TINY
    (here / "tiny.yaml").write_text(smoothed)
    assert invoke("train", "tiny.yaml")[0] == 0
    for more in ((), ("--sigma", "0.2"), ()):
        assert invoke("certify", "tiny", "--draws", "100", "--row", "MLP+", *more)[0] == 0
    kept = json.loads((here / "runs/tiny/audit/certificates.json").read_text())["models"]
    assert sorted(entry["in_front"] for entry in kept) == [False, True]
    records = Store(here / "runs/tiny/audit/records.jsonl").records
    assert {record.parameters["in_front"] for record in records} == {False, True}


def test_help_fits_80_columns_and_teaches_by_example(invoke: Invoke) -> None:
    for command in ("audit", "certify"):
        status, out, _ = invoke(command, "--help")
        assert status == 0
        assert max(map(len, out.splitlines())) <= 80
        assert f"noiseopt {command} demo" in out
