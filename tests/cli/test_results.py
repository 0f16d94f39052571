from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from noiseopt.cli.commands import app
from noiseopt.errors import UserError
from tests.report.synthetic import MLPS, about_of, as_printed, epochs_of, records_of, write_published

COLUMNS = ["clean", "fgsm", "contrast"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """results/mnist with three seeds of table3."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    curves = {(row, 0): epochs_of(row, 0) for row in MLPS}
    about = about_of("table3", MLPS, COLUMNS, range(3))
    write_published(tmp_path / "results" / "mnist", about, records_of(MLPS, COLUMNS, range(3), as_printed), curves)
    return Path("results/mnist")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def refused(*arguments: object) -> str:
    """The message of the one-line error that the command ends with."""
    result = invoke(*arguments)
    assert isinstance(result.exception, UserError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_the_table_is_the_default(folder: Path) -> None:
    result = invoke("results", folder, "--where", "protocol=paper", "--where", "noise=on")
    assert result.exit_code == 0, result.output
    assert "MLPN (sigmoid)  paper     on     0.95" in result.stdout
    assert "strict" not in result.stdout
    assert "95% t-interval" in result.stdout


@pytest.mark.parametrize(
    ("form", "holds"),
    [("csv", "clean_half_width"), ("markdown", "| ---: |"), ("latex", "\\toprule"), ("json", '"mean": 0.9')],
)
def test_every_format(folder: Path, form: str, holds: str) -> None:
    result = invoke("results", folder / "table3", "--format", form)
    assert result.exit_code == 0, result.output
    assert holds in result.stdout


def test_long_is_a_line_a_record_and_goes_to_a_file(folder: Path) -> None:
    result = invoke("results", folder, "--long", "--where", "column=contrast", "-o", "out/long.csv")
    assert (result.exit_code, result.stdout) == (0, "")
    rows = list(csv.DictReader(io.StringIO(Path("out/long.csv").read_text())))
    assert len(rows) == 5 * 3 * (2 * 2 + 4 * 4)
    assert len(json.loads(invoke("results", folder, "--long", "--format", "json").stdout)) > len(rows)


def test_errors_say_what_to_do(folder: Path) -> None:
    assert "did you mean protocol?" in refused("results", folder, "--where", "protokol=paper")
    assert "did you mean MLPN (sigmoid)?" in refused("results", folder, "--where", "model=MLPN (sigmoyd)")
    assert "csv or json" in refused("results", folder, "--long", "--format", "latex")
    assert "a run directory must exist" in refused("results", "results/nowhere")
    (folder / "table3" / "records.jsonl").write_text("")
    assert "must hold Records" in refused("results", folder)
    assert "must hold Records" in refused("results", folder / "table3")
    assert invoke("results", folder, "--format", "html").exit_code == 2


def test_a_broken_line_is_noted_on_stderr(folder: Path) -> None:
    with (folder / "table3" / "records.jsonl").open("a") as file:
        file.write('{"torn":')
    result = invoke("results", folder)
    assert result.exit_code == 0
    assert "last line is torn" in result.stderr
    assert "torn" not in result.stdout


def test_replication_writes_the_page_and_names_its_command(folder: Path) -> None:
    result = invoke("replication", folder, "-o", "docs/page.md")
    assert result.exit_code == 0, result.output
    first = Path("docs/page.md").read_text().splitlines()[0]
    assert first.startswith("Made by `noiseopt replication results/mnist -o docs/page.md`")
    assert Path("docs/figures/figure3-relu.png").is_file()
    assert "table3/" in refused("replication", "docs")


def test_publish_copies_a_run(folder: Path) -> None:
    result = invoke("publish", folder / "table3", "elsewhere")
    assert result.stdout == "Published: elsewhere/table3\n"
    assert Path("elsewhere/table3/records.jsonl").read_bytes() == (folder / "table3" / "records.jsonl").read_bytes()
    assert len(list(Path("elsewhere/table3/curves").iterdir())) == 6
    assert "a run directory must exist" in refused("publish", "runs/none", "elsewhere")


@pytest.mark.parametrize("command", ["results", "publish", "replication"])
def test_help_teaches_by_example(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"noiseopt {command} " in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
