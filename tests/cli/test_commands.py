from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from noiseopt import cli
from noiseopt.experiments import work
from noiseopt.experiments.store import Store
from tests.cli.common import Invoke, last_line, model_folder
from tests.experiments.conftest import TINY


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("demo",),
        ("train",),
        ("evaluate",),
        ("reproduce",),
        ("report",),
        ("data",),
        ("data", "info"),
        ("data", "fetch"),
    ],
)
def test_help_fits_80_columns_and_teaches_by_example(invoke: Invoke, command: tuple[str, ...]) -> None:
    status, out, err = invoke(*command, "--help")
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    if command not in ((), ("data",)):
        assert "Example" in out
        assert f"noiseopt {' '.join(command)} " in out


def test_nothing_heavy_is_loaded_for_help() -> None:
    # The package's own __init__ is left out of this: what it loads is not for the command line to decide.
    source = Path(cli.__file__).parents[1]
    code = f"""
import sys, types
package = types.ModuleType("noiseopt"); package.__path__ = [{str(source)!r}]; sys.modules["noiseopt"] = package
sys.argv = ["noiseopt", "--help"]
from noiseopt.cli import main
try: main()
except SystemExit as end: assert end.code == 0
heavy = {{"torch", "numpy", "matplotlib", "pydantic", "numba", "yaml"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_no_arguments_show_the_help(invoke: Invoke) -> None:
    for command in ((), ("data",)):
        status, out, _ = invoke(*command)
        assert status == 0
        assert "Usage" in out
    status, out, _ = invoke("--version")
    assert (status, out.split()[0]) == (0, "noiseopt")


def test_a_recipe_is_trained_measured_and_shown(invoke: Invoke, here: Path) -> None:
    status, out, err = invoke("--debug", "train", "tiny.yaml", "--device", "cpu")
    assert status == 0, err
    assert "[4/4] trained MLPN, seed 0: loss" in err
    assert "Next: noiseopt evaluate tiny.yaml --device cpu" in out
    status, out, err = invoke("evaluate", "tiny.yaml", "--device", "cpu")
    assert status == 0, err
    assert "measured white box PGD (paper): 5 numbers" in err
    assert "MLPN" in out
    assert "Next: noiseopt report runs/tiny" in out
    again = invoke("evaluate", "runs/tiny", "--device", "cpu")  # a run holds its recipe
    assert again[:2] == (0, out)
    for arguments, path in ((("tiny",), "runs/tiny/report.html"), (("runs/tiny", "-o", "x.html"), "x.html")):
        status, out, err = invoke("report", *arguments)
        assert status == 0, err
        assert out.endswith(f"Report: {path}\n")
        assert (here / path).read_text(encoding="utf-8").lstrip().startswith("<!")
    (here / "runs/tiny").rename(here / "runs/renamed")
    assert invoke("evaluate", "renamed", "--device", "cpu")[0] == 0
    about = json.loads((here / "runs/renamed/run.json").read_text())
    assert about["command"] == "noiseopt evaluate renamed --device cpu"
    assert not (here / "runs/tiny").exists()


def test_a_seed_has_its_own_folder(invoke: Invoke, here: Path) -> None:
    assert invoke("train", "tiny.yaml", "--seed", "3", "--runs-dir", "out", "--device", "cpu")[0] == 0
    assert (model_folder(here / "out/tiny-seed3", "MLPN", seed=3) / "checkpoint.safetensors").exists()
    assert not (here / "out/tiny").exists()


def test_the_demo_is_the_bundled_recipe_and_a_report(
    invoke: Invoke, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from noiseopt.experiments import recipe as recipes

    tiny = here / "demo.yaml"
    tiny.write_text(TINY.replace("name: tiny", "name: demo"), encoding="utf-8")
    monkeypatch.setattr(recipes, "bundled", lambda: {"demo": tiny})
    (here / "demo").mkdir()  # a folder of this name is in nobody's way
    status, out, err = invoke("demo", "--device", "cpu")
    assert status == 0, err
    assert "MLPN" in out
    assert out.endswith("Report: runs/demo/report.html\n")
    assert (here / "runs/demo/report.html").exists()
    first = (here / "runs/demo/records.jsonl").read_bytes()
    status, _, err = invoke("demo", "--device", "cpu")
    assert "already there: 4 of 4 models and 25 of 25 numbers" in err
    status, _, err = invoke("demo", "--device", "cpu", "--fresh")
    assert "already there" not in err
    assert (here / "runs/demo/records.jsonl").read_bytes() == first


def test_whole_tables_are_reproduced(invoke: Invoke, here: Path) -> None:
    other = TINY.replace("name: tiny", "name: other").replace("seeds: [0]", "seeds: [0, 1]")
    (here / "other.yaml").write_text(other, encoding="utf-8")
    options = ("--device", "cpu", "--executor", "inprocess")
    status, out, err = invoke("reproduce", "tiny.yaml", "other.yaml", "--only-training", "--seeds", "0", *options)
    assert status == 0, err
    assert out == "Trained: runs/tiny\nTrained: runs/other\n"
    assert "already there: 4 of 4 models" in err  # the other recipe's, trained for the first
    status, out, err = invoke("reproduce", "tiny.yaml", "other.yaml", *options)
    assert status == 0, err
    assert out.count("MLPN") >= 2
    assert out.endswith("Report: runs/other/report.html\n")
    assert len(Store(here / "runs/other/records.jsonl")) == 2 * len(Store(here / "runs/tiny/records.jsonl")) == 50


def test_the_data_sets_are_shown(invoke: Invoke) -> None:
    status, out, _ = invoke("data", "list")
    assert status == 0
    assert {"mnist", "mnist-mini", "cifar10", "usps"} <= {line.split()[0] for line in out.splitlines()}
    status, out, _ = invoke("data", "info", "images")
    assert status == 0
    assert "48 of 8×8 pixels, grey" in out
    assert "3: bottom (16), middle (16), top (16)" in out
    assert invoke("data", "fetch", "images")[0] == 0


MISTAKES = [
    (("demo", "--sed", "1"), "No such option: --sed"),
    (("dem",), "No such command 'dem'. Did you mean 'demo'?"),
    (("train",), "Missing argument 'RECIPE'; fix: see noiseopt train --help"),
    (("demo", "--seed", "x"), "Invalid value for '--seed'"),
    (("train", "tiny.yaml", "--seed", "-1"), "a seed must be an integer in [0, 2⁶³); got -1"),
    (("train", "tiny.yaml", "--seed", str(2**63)), "a seed must be an integer in [0, 2⁶³)"),
    (("train", "tiny.yml"), "there is no recipe file tiny.yml; fix: did you mean tiny.yaml?"),
    (("train", "images"), "images is a folder, not a recipe file; fix: name the .yaml file inside it"),
    (("train", "images/top/00.png"), "is not UTF-8 text"),
    (("train", ""), "is a folder"),
    (("train", "a\0b"), "cannot be read"),
    (("train", "tiny.yaml", "--device", "cuda:99"), "--device must be one this machine has"),
    (("train", "tiny.yaml", "--runs-dir", "tiny.yaml"), "must be writable"),
    (("train", "tiny.yaml", "--runs-dir", "/proc/nowhere"), "must be writable"),
    (("evaluate", "tiny.yaml"), "must be trained first; got 0 of 1 epochs"),
    (("train", "tiny.yaml", "--workers", "0"), "Invalid value for '--workers'"),
    (("train", "tiny.yaml", "--executor", "inprocess", "--workers", "2"), "inprocess is one worker; got 2"),
    (("train", "tiny.yaml", "--gpus-per-cell", "0.5"), "--gpus-per-cell is for a Ray cluster"),
    (("reproduce", "tiny.yaml", "nowhere"), "there is no recipe of this name; got nowhere"),
    (("reproduce", "tiny.yaml", "--seeds", "0,x"), "--seeds must be whole numbers with commas; got 0,x"),
    (("reproduce", "tiny.yaml", "--seeds", "1"), "tiny has the seeds 0; got 1"),
    (("evaluate", "nowhere"), "there is no recipe of this name; got nowhere"),
    (("report", "nowhere"), "there is no run nowhere; fix: run `noiseopt demo` first"),
    (("report", "images"), "there is no run images"),
    (("data", "info", "mnits"), "did you mean 'mnist'?"),
    (("data", "info", "mnist", "--data-dir", "images"), "images must hold mnist"),
    (("data", "fetch"), "Missing argument"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_a_mistake_is_one_line_with_a_fix(invoke: Invoke, arguments: tuple[str, ...], message: str) -> None:
    status, out, err = invoke(*arguments)
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1, err
    assert message in err
    assert "; fix: " in err


def test_a_wrong_key_is_named_with_its_line(invoke: Invoke, here: Path) -> None:
    (here / "tiny.yaml").write_text(TINY.replace("epochs: 2", "epoch: 2"), encoding="utf-8")
    status, _, err = invoke("train", "tiny.yaml")
    assert status == 2
    assert err.startswith("tiny.yaml:5: training.epoch is not a known key; fix: did you mean 'epochs'?")


def test_a_failed_cell_is_told_after_the_rest_was_done(invoke: Invoke, here: Path) -> None:
    text = TINY.replace("noise: {sigma: 1.0}", "noise: {sigma: 1.0}, training: {lr: 1e+30, optimizer: sgd}")
    (here / "tiny.yaml").write_text(text, encoding="utf-8")
    status, _, err = invoke("train", "tiny.yaml", "--device", "cpu")
    assert status == 2
    assert "trained MLPN, seed 0" in err
    assert last_line(err).startswith("MLP+, seed 0: the loss must stay finite")


def test_a_bug_is_an_apology_and_a_traceback_only_on_demand(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **options: object) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(work, "load", broken)
    status, _, err = invoke("train", "tiny.yaml")
    assert status == 1
    expected = "sorry, this is a bug of ours: ZeroDivisionError: division by zero; run with --debug for the traceback"
    assert last_line(err) == expected
    assert "Traceback" not in err
    for arguments in (("train", "tiny.yaml", "--debug"), ("--debug", "train", "tiny.yaml")):
        status, _, err = invoke(*arguments)
        assert status == 1
        assert "Traceback" in err
        assert "in broken" in err


def test_colour_only_where_it_is_wanted(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    cli._say("wrong", 2)
    assert capsys.readouterr().err == "\x1b[31mwrong\x1b[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    cli._say("wrong", 2)
    assert capsys.readouterr().err == "wrong\n"
