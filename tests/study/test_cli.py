from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from noiseopt.cli.commands import app
from noiseopt.errors import UserError
from noiseopt.study import serving
from noiseopt.study.folder import Study
from noiseopt.study.store import Store
from tests.study.conftest import SMALL


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """studies/small, made by the command."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NOISEOPT_STUDY_DATABASE", raising=False)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL))
    assert "Next: noiseopt study serve studies/small" in invoke("create", "small.yaml", "--participants", 3).output
    return Path("studies/small")


def invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["study", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, UserError | SystemExit):
        raise result.exception
    return result


def refused(*arguments: object) -> str:
    result = invoke(*arguments)
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


def test_a_dry_run_from_the_recipe_to_the_figures(folder: Path) -> None:
    assert Study(folder).places == 3
    assert invoke("simulate", folder, "--participants", 9).output == "3 SIMULATED participants\n"
    assert "answers-SIMULATED.csv" in invoke("export", folder, "-o", "out").output
    with open("out/answers-SIMULATED.csv") as file:
        assert len(list(csv.DictReader(file))) == 3 * 6
    assert "Wrote studies/small/analysis/figure8-SIMULATED.png" in invoke("analyse", folder).output
    code = re.search(r"\w{4}-\w{4}", Path("out/participants-SIMULATED.csv").read_text())
    assert code is not None
    assert "with 6 answers" in invoke("delete", folder, "--participant", code[0]).output
    assert "no participant of this code" in refused("delete", folder, "--participant", code[0])


def test_analysis_goes_into_the_report_of_a_run(folder: Path, run: Path) -> None:
    invoke("simulate", folder)
    output = invoke("analyse", folder, "--runs-dir", run, "--network", "tiny", "--into", "tiny").output
    assert f"Next: noiseopt report {run / 'tiny'}" in output
    assert (run / "tiny" / "people.json").exists()
    (run / "tiny" / "people.json").unlink()
    assert "there is no run elsewhere" in refused("analyse", folder, "--runs-dir", run, "--into", "elsewhere")


def test_networks_alone_need_no_participant(folder: Path, run: Path) -> None:
    assert "nobody has finished" in refused("analyse", folder, "--runs-dir", run)
    output = invoke(
        "analyse", folder, "--runs-dir", run, "--networks-only", "--network", "tiny", "--into", "tiny"
    ).output
    assert "figure8-networks-only.png" in output
    from noiseopt.report.study import study_section

    section = str(study_section(run / "tiny"))
    assert "nobody asked" in section
    assert "over participants" not in section
    (run / "tiny" / "people.json").unlink()
    assert "leave out one" in refused("analyse", folder, "--networks-only", "--people-only")


def test_invitations_are_links_that_open(folder: Path) -> None:
    lines = invoke("invite", folder, "--count", 2, "--address", "https://study.example/").output.splitlines()
    study = Study(folder)
    store = Store(study.database, study=study.hash, places=study.places)
    for line in lines:
        code, link = line.split()
        assert link.startswith("https://study.example/p/")
        found = store.find(link.rpartition("/")[2])
        assert found is not None
        assert found.code == code
    store.close()
    assert "no place left; fix: ask for fewer: 1 were made" in refused(
        "invite", folder, "--count", 2, "--address", "https://study.example"
    )
    assert "must begin with http" in refused("invite", folder, "--address", "study.example")
    assert "people have taken part" in refused("simulate", folder)


def test_the_server_is_told_what_was_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def listens(study: Study, store: Store, *, listening: Callable[[], None], **given: Any) -> None:
        asked.update(given)
        listening()

    monkeypatch.setattr(serving, "serve", listens)
    output = invoke("serve", folder, "--port", 9000, "--dry-run").output
    assert asked == {"host": "127.0.0.1", "port": 9000, "dry_run": True, "behind_proxy": False}
    assert "http://127.0.0.1:9000/organiser" in output
    assert Study(folder).secrets["organiser"] not in output


def test_a_port_that_is_taken_is_told(folder: Path, free_port: int) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port))
        taken.listen()
        result = invoke("serve", folder, "--port", free_port)
        assert result.output == "", "no address is printed that is not this server's"
        said = str(result.exception)
        assert "a port of its own" in said
        assert "in use" in said
        assert f"--port {free_port + 1}" in said


def test_a_study_of_simulated_participants_is_served_as_a_dry_run_alone(folder: Path) -> None:
    invoke("simulate", folder)
    assert "this study holds simulated participants" in refused("serve", folder)


def test_size_tells_how_many_people_it_takes(tmp_path: Path) -> None:
    output = invoke("size", "--difference", 0.05, "--accuracy", 0.9, "--images", 15).output
    assert "0.110 (chance alone" in output
    assert "40 participants for a difference of 0.05" in output
    assert "as given" in invoke("size", "--sd", 0.2).output
    assert "accuracy must be between 0 and 1" in refused("size", "--accuracy", 90)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("create", "nothing.yaml"), "there is no recipe file"),
        (
            ("create", "nothing"),
            "got nothing; fix: use a YAML file, or a bundled one: digits, figure8",
        ),
        (("create", "small.yaml"), "there is a study in studies/small"),
        (("create", "figure8"), "there is no run ulicny-figure8 in runs; fix: train it first"),
        (("serve", "nowhere"), "must be the folder of a study"),
        (("export", "studies/small", "--database", "mysql://x"), "SQLite or PostgreSQL"),
        (("analyse", "studies/small"), "nobody has finished"),
        (("export", "studies/small", "-o", "small.yaml"), "must be writable"),
    ],
)
def test_what_goes_wrong_is_told_in_a_line(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in refused(*arguments)


def test_what_is_not_installed_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noiseopt.cli.study.find_spec", lambda name: None if name == "pyarrow" else True)
    assert 'got no pyarrow; fix: pip install "noiseopt[study]"' in refused("size")


def test_every_command_shows_an_example() -> None:
    listed = invoke("--help").output
    for name in ("create", "serve", "invite", "simulate", "export", "analyse", "delete", "size"):
        assert name in listed
        assert f"noiseopt study {name}" in invoke(name, "--help").output
