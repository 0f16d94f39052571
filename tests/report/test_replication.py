from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from noiseopt.errors import UserError
from noiseopt.report.models import Epochs, curve_files, file_name, model_folders, read_epochs
from noiseopt.report.pictures import curves_picture, lines_of, sigma_picture
from noiseopt.report.publish import publish, whole_lines
from noiseopt.report.replication import write_replication
from tests.report.synthetic import (
    CNNS,
    MLPS,
    WHY,
    about_of,
    as_printed,
    epochs_of,
    records_of,
    write_all,
    write_published,
)

COMMAND = "noiseopt replication results/mnist -o docs/replication.md"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All recipes published, and the page of them beside."""
    folder = tmp_path_factory.mktemp("whole")
    write_all(folder / "mnist")
    write_replication(folder / "mnist", folder / "docs" / "replication.md", command=COMMAND)
    return folder


def page_of(folder: Path) -> str:
    return (folder / "docs" / "replication.md").read_text(encoding="utf-8")


def section(page: str, title: str) -> str:
    return page.partition(f"\n## {title}")[2].partition("\n## ")[0]


def test_the_page_begins_with_the_command_that_made_it(whole: Path) -> None:
    assert page_of(whole).startswith(f"Made by `{COMMAND}`")


def test_numbers_stand_beside_the_papers(whole: Path) -> None:
    for title, rows in (("Table 3", MLPS), ("Table 4", CNNS)):
        table = section(page_of(whole), title)
        for row in rows:
            ours, printed = table.partition(f"| {row} | ours, ")[2].splitlines()[:2]
            there = [float(cell) for cell in printed.split("|")[3:-1]]
            here = [float(cell.split("±")[0]) for cell in ours.split("|")[1:-1]]
            assert here == pytest.approx(there, abs=0.0041)
            assert ours.count("±") == 10
        assert re.findall("### (.*)", table) == [
            f"Protocol {protocol}, noise {state}" for protocol in ("paper", "strict") for state in ("on", "off")
        ]
        assert "not measured yet" not in table


def test_it_says_how_it_was_measured(whole: Path) -> None:
    how = section(page_of(whole), "How it was measured")
    assert "10,000 test images; with noise on, a prediction averages 1 draw." in how
    assert "1,000 test images; with noise on, a prediction averages 20 draws." in how
    assert "6 models, each trained from 5 seeds (0, 1, 2, 3, 4)" in how
    assert "noiseopt evaluate table4" in how
    assert "so far" not in how
    assert "amiss" not in how


def test_every_claim_has_a_verdict_and_its_size(whole: Path) -> None:
    claims = section(page_of(whole), "The paper's claims")
    assert len(re.findall(r"^\| \d+[a-l]? \|", claims, re.M)) == 41
    details = section(page_of(whole), "Claim by claim")
    assert "stated 75 % is within" in details
    assert "p < 0.001, 5 seeds" in details
    line = next(line for line in details.splitlines() if line.startswith("| 5b |"))
    assert "**holds**" in line
    assert "+0.24" in line
    assert details.count("<details>") == details.count("</details>") > 10


def test_every_picture_is_linked_and_there(whole: Path) -> None:
    linked = re.findall(r"!\[[^\]]+\]\(figures/([^)]+)\)", page_of(whole))
    assert linked == ["figure3-relu.png", "figure3-sigmoid.png", "sigma.png"]
    for name in linked:
        with Image.open(whole / "docs" / "figures" / name) as picture:
            assert min(picture.size) > 300


def test_the_why_table_has_one_draw_beside_many_and_sigma_by_layer(whole: Path) -> None:
    why = section(page_of(whole), "Why")
    header = next(line for line in why.splitlines() if line.startswith("|  |"))
    for title in ("Original, 1 draw", "FGSM, 1 draw", "FGSM, EOT-20", "PGD, EOT-20", "σ of hidden1", "σ of output"):
        assert f"| {title} |" in header
    assert [row for row in WHY if f"| {row} | 0.8" in why or f"| {row} | 0.9" in why] == WHY
    assert next(line for line in why.splitlines() if line.startswith("| MLP |")).endswith(" |  |  |  |")


def test_the_same_records_give_the_same_page(whole: Path, tmp_path: Path) -> None:
    write_replication(whole / "mnist", tmp_path / "other.md", command=COMMAND)
    assert (tmp_path / "other.md").read_bytes() == (whole / "docs" / "replication.md").read_bytes()


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    columns = ["clean", "fgsm", "contrast"]
    records = records_of(MLPS[:3], columns, [0, 1], as_printed)
    records = [r for r in records if not (r.protocol == "strict" or (r.model == MLPS[2] and r.column == "fgsm"))]
    about = about_of("table3", MLPS, columns, range(5)) | {"seconds": None}
    write_published(tmp_path / "mnist", about, records)
    write_replication(tmp_path / "mnist", tmp_path / "docs" / "replication.md", command=COMMAND)
    page = page_of(tmp_path)
    for title in ("Table 4", "Figure 3", "Why"):
        assert section(page, title).strip().endswith("Not measured yet.")
    how = section(page, "How it was measured")
    assert "Seeds measured so far: MLP (ReLU): 2; " in how
    assert "MLPN (sigmoid): 0" in how
    assert "Protocol strict: not measured yet." in how
    assert "has not finished" in how
    table = section(page, "Table 3")
    assert "Blank: 52 of 60 numbers are not measured yet." in table
    assert "| MLP+ (ReLU) | ours, 2 seeds | 0.8" in table
    assert "| MLPN (ReLU) | not measured yet |  |" in table
    assert "**not measured**" in page
    assert not (tmp_path / "docs" / "figures").exists()
    assert "nan" not in page


def test_one_seed_is_said_to_have_no_interval(tmp_path: Path) -> None:
    write_published(
        tmp_path / "mnist", about_of("table3", MLPS, ["clean"], [0]), records_of(MLPS, ["clean"], [0], as_printed)
    )
    write_replication(tmp_path / "mnist", tmp_path / "docs" / "replication.md", command=COMMAND)
    page = page_of(tmp_path)
    assert "from a single seed: there is no interval" in section(page, "Table 3")
    assert "**not decided**" in page
    assert "(1 seed: no interval)" in page


def test_a_folder_without_these_recipes_is_an_error(tmp_path: Path) -> None:
    write_published(tmp_path, about_of("demo", MLPS, ["clean"], [0]), records_of(MLPS, ["clean"], [0], as_printed))
    with pytest.raises(UserError, match="with demo"):
        write_replication(tmp_path, tmp_path / "page.md", command=COMMAND)


def as_run(folder: Path, *, shared: bool) -> Path:
    """A run that is still at work, its models in the shared folder or in its own."""
    run = folder / "runs" / "table3"
    run.mkdir(parents=True)
    about = about_of("table3", MLPS[:2], ["clean"], [0])
    models = {
        ("MLP (ReLU)", 0): "../models/0af1",
        ("MLP (sigmoid)", 0): "../models/77c0",
        ("surrogate", 1000): "../models/9",
    }
    if not shared:
        models = {key: f"models/{name}" for key, name in zip(
            models, ("mlp-relu-s0", "mlp-sigmoid-s0", "surrogate-s1000"), strict=True)}  # fmt: skip
    else:
        about["models"] = [{"label": label, "seed": seed, "folder": path} for (label, seed), path in models.items()]
        about["models"].append({"label": "MLP (ReLU)", "seed": 1, "folder": "../models/to-come"})
    for (label, seed), path in models.items():
        (run / path).mkdir(parents=True)
        (run / path / "curves.jsonl").write_text(epochs_of(label, seed, epochs=2))
    (run / "run.json").write_text(json.dumps(about))
    lines = "".join(r.model_dump_json() + "\n" for r in records_of(MLPS[:2], ["clean"], [0], as_printed))
    (run / "records.jsonl").write_text(lines + lines[:50])
    return run


@pytest.mark.parametrize("shared", [True, False])
def test_a_run_is_published_without_its_torn_line(tmp_path: Path, shared: bool) -> None:
    run = as_run(tmp_path, shared=shared)
    about = json.loads((run / "run.json").read_text())
    assert [(p.label, p.seed) for p in model_folders(run, about)] == [
        ("MLP (ReLU)", 0),
        ("MLP (sigmoid)", 0),
        ("surrogate", 1000),
    ]
    target = publish(run, tmp_path / "mnist")
    assert target == tmp_path / "mnist" / "table3"
    names = ["mlp-relu-s0.jsonl", "mlp-sigmoid-s0.jsonl", "surrogate-s1000.jsonl"]
    assert sorted(path.name for path in (target / "curves").iterdir()) == names
    assert (target / "run.json").read_bytes() == (run / "run.json").read_bytes()
    text = (target / "records.jsonl").read_text()
    assert len(text.splitlines()) == 4
    assert (run / "records.jsonl").read_text().startswith(text)
    curves = {(c.label, c.seed): c.lines for c in read_epochs(target, about)}
    assert (
        curves[("MLP (sigmoid)", 0)]
        == {(c.label, c.seed): c.lines for c in read_epochs(run, about)}[("MLP (sigmoid)", 0)]
    )
    assert len(curves) == 3


def test_publishing_again_brings_the_copy_up_to_date(tmp_path: Path) -> None:
    run = as_run(tmp_path, shared=False)
    target = publish(run, tmp_path / "mnist")
    shutil.rmtree(run / "models" / "mlp-sigmoid-s0")
    (run / "models" / "mlp-relu-s0" / "curves.jsonl").write_text(epochs_of("MLP (ReLU)", 0, epochs=3))
    assert publish(run, tmp_path / "mnist") == target
    assert sorted(path.name for path in (target / "curves").iterdir()) == ["mlp-relu-s0.jsonl", "surrogate-s1000.jsonl"]
    assert len((target / "curves" / "mlp-relu-s0.jsonl").read_text().splitlines()) == 3


def test_a_seed_of_which_nothing_is_measured_yet_is_not_published(tmp_path: Path) -> None:
    run = as_run(tmp_path, shared=False)
    shutil.copytree(run / "models" / "mlp-relu-s0", run / "models" / "mlp-relu-s7")
    target = publish(run, tmp_path / "mnist")
    assert "mlp-relu-s7.jsonl" not in {path.name for path in (target / "curves").iterdir()}
    (run / "records.jsonl").unlink()
    publish(run, tmp_path / "mnist")
    assert "mlp-relu-s7.jsonl" in {path.name for path in (target / "curves").iterdir()}


def test_curves_alone_can_be_published_and_nothing_cannot(tmp_path: Path) -> None:
    run = as_run(tmp_path, shared=False)
    (run / "records.jsonl").unlink()
    target = publish(run, tmp_path / "mnist")
    assert not (target / "records.jsonl").exists()
    shutil.rmtree(run / "models")
    with pytest.raises(UserError, match="Records or curves"):
        publish(run, tmp_path / "mnist")
    with pytest.raises(UserError, match="another folder"):
        publish(target, tmp_path / "mnist")


def test_a_last_record_that_lacks_only_its_newline_is_whole() -> None:
    line = records_of(["MLP (ReLU)"], ["clean"], [0], as_printed)[0].model_dump_json().encode()
    assert whole_lines(line) == line + b"\n"
    assert whole_lines(line + b"\n" + line[:-1]) == line + b"\n"
    assert whole_lines(b'{"epoch": 1}\n{"epoch": 2}', of_records=False) == b'{"epoch": 1}\n'
    assert whole_lines(b"") == b""


def test_labels_come_back_from_file_names(tmp_path: Path) -> None:
    about = about_of("table3", MLPS, [], [0])
    write_published(tmp_path, about, [], {(row, 3): epochs_of(row, 3, epochs=1) for row in MLPS})
    found = curve_files(tmp_path / "table3", about)
    assert sorted(place.label for place in found) == sorted(MLPS)
    assert {place.seed for place in found} == {3}
    assert [file_name(place) for place in found] == [place.path.name for place in found]


def epochs(row: str, seed: int, values: list[float]) -> Epochs:
    return Epochs(row, seed, tuple({"epoch": e, "train_loss": v} for e, v in enumerate(values, start=1)))


def test_lines_are_means_over_seeds_that_are_trained_as_long() -> None:
    models = [epochs("a", 0, [1.0, 3.0]), epochs("a", 1, [2.0, 5.0]), epochs("a", 2, [9.0]), epochs("b", 0, [7.0])]
    assert lines_of(models, {"a": "A", "c": "C"}, ["train_loss"]) == {"A": [(1, 1.5, 1.0, 2.0), (2, 4.0, 3.0, 5.0)]}


def test_pictures_of_odd_curves() -> None:
    assert curves_picture([], {"a": "A"}) == b""
    assert sigma_picture([epochs("a", 0, [1.0])], {"a": "A"}) == b""
    one = curves_picture([epochs("a", 0, [1.0])], {"a": "A"})
    with Image.open(io.BytesIO(one)) as picture:
        assert picture.format == "PNG"
        assert len(set(picture.convert("L").getdata())) > 10
    assert curves_picture([epochs("a", 0, [1.0])], {"a": "A"}) == one
