"""The search for a σ of every layer: it can be interrupted, gives up early, and ends in a row for a recipe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from noiseopt.errors import Diverged, UserError
from noiseopt.experiments.recipe import Recipe, load, loads
from noiseopt.experiments.rows import Row
from noiseopt.experiments.search import search
from noiseopt.train import train
from tests.experiments.conftest import write_images

pytest.importorskip("optuna")

TEXT = """
name: small
data: {path: images, split: [4, 1, 1], split_seed: 0}
training: {epochs: 3, batch_size: 8, lr: 1e-2}
rows:
  - {label: Plain, model: mlp, options: {hidden: [8]}}
  - {label: Noisy, model: mlp, options: {hidden: [8]}, noise: {sigma: 1.0, per: layer}, training: {lr: 2e-2}}
columns:
  - {key: clean, perturbations: [clean]}
  - {key: fgsm, perturbations: [{attack: fgsm, eps: 0.1}]}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    write_images(tmp_path / "images")
    path = tmp_path / "small.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return load(path)


def test_a_search_goes_on_where_it_was_and_ends_in_a_row(recipe: Recipe, tmp_path: Path) -> None:
    said: list[str] = []
    options: dict[str, Any] = {"runs_dir": tmp_path / "runs", "device": "cpu", "images": 8, "say": said.append}

    class Killed(BaseException):
        pass

    def kill(line: str) -> None:
        said.append(line)
        if len(said) == 3:
            raise Killed

    with pytest.raises(Killed):
        search(recipe, trials=9, **{**options, "say": kill})
    found = search(recipe, trials=9, **options)
    assert [line.split("]")[0] for line in said] == [f"[{i}/9" for i in range(1, 10)]
    assert said[0].startswith("[1/9] hidden1 0, output 0: ")
    assert said[1].startswith("[2/9] hidden1 1, output 1: ")
    assert len({line.split("]")[1].split(":")[0] for line in said}) > 5
    assert found.trials == 9
    assert 9 < found.epochs <= 27
    assert any("given up" in line for line in said) == (found.epochs < 27)
    finished = [float(line.split(": ")[1].split(" ")[0]) for line in said if "given up" not in line]
    assert found.accuracy == pytest.approx(max(finished), abs=1e-3)

    assert (found.folder / "best.yaml").read_text(encoding="utf-8").endswith(found.row)
    rows = [*yaml.safe_load(TEXT)["rows"], *yaml.safe_load(found.row)]
    again = loads(yaml.safe_dump({**yaml.safe_load(TEXT), "rows": rows}))
    last, given = again.rows[-1], recipe.rows[1]
    assert isinstance(last, Row)
    assert isinstance(given, Row)
    assert last.label == "Noisy (found)"
    assert (last.options, last.training) == (given.options, given.training)
    with pytest.raises(UserError, match="other settings"):
        search(recipe, trials=10, **{**options, "highest": 2.0})


def test_a_trial_that_ctrl_c_stopped_is_made_again(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def stopped(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    options: dict[str, Any] = {"runs_dir": tmp_path / "runs", "device": "cpu", "images": 8}
    with monkeypatch.context() as patch:
        patch.setattr("noiseopt.experiments.search.train", stopped)
        with pytest.raises(KeyboardInterrupt):
            search(recipe, trials=2, **options)
    assert "Traceback" not in capfd.readouterr().err
    said: list[str] = []
    search(recipe, trials=2, **options, say=said.append)
    assert sorted(line.split("] ")[1].split(": ")[0] for line in said) == ["hidden1 0, output 0", "hidden1 1, output 1"]


def test_a_trial_that_diverges_is_given_up_and_the_search_goes_on(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = train, []

    def diverge(*args: Any, **options: Any) -> object:
        calls.append(options)
        if len(calls) == 2:
            raise Diverged("the loss must stay finite", got=float("nan"), fix="lower lr")
        return real(*args, **options)

    monkeypatch.setattr("noiseopt.experiments.search.train", diverge)
    said: list[str] = []
    options: dict[str, Any] = {"runs_dir": tmp_path / "runs", "device": "cpu", "images": 8, "say": said.append}
    assert search(recipe, trials=3, **options).trials == 3
    assert said[1].endswith(": given up after epoch 0")
    calls[:] = [{}]
    with pytest.raises(UserError, match="every trial was given up"):
        search(recipe, trials=1, **{**options, "runs_dir": tmp_path / "other"})


def test_a_row_is_trained_as_the_grid_would(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []

    def look(model: Any, data: Any, training: Any, **options: Any) -> None:
        told.append(options)
        raise Diverged("seen", fix="none")

    monkeypatch.setattr("noiseopt.experiments.search.train", look)
    values = {**yaml.safe_load(TEXT), "precision": "bf16", "seeds": [3]}
    values["rows"][1]["member"] = 2
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(UserError, match="every trial was given up"):
        search(load(path), trials=1, runs_dir=tmp_path / "runs", device="cpu", images=8)
    assert (told[0]["seed"], told[0]["precision"]) == (3 + 2 * 1_000_003, "bf16")


def test_a_row_that_goes_on_after_another_is_not_searched(tmp_path: Path) -> None:
    values = yaml.safe_load(TEXT)
    values["rows"][1]["after"] = "Plain"
    with pytest.raises(UserError, match="from random weights; got Noisy, which goes on after Plain"):
        search(loads(yaml.safe_dump(values)), trials=1, runs_dir=tmp_path)


def test_a_network_that_stays_as_it_comes_is_not_searched(tmp_path: Path) -> None:
    text = re.sub(r"epochs: \d+", "epochs: 0", TEXT)
    assert text != TEXT
    with pytest.raises(UserError, match=r"must be trained.*epochs: 0"):
        search(loads(text), trials=1, runs_dir=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row": "Plain"}, "got Plain; fix: choose among Noisy"),
        ({"row": "Nosy"}, "did you mean 'Noisy'"),
        ({"column": "clean"}, "got clean; fix: choose among fgsm"),
        ({"trials": 0}, "at least 1"),
        ({"highest": 0.0}, "above 0"),
    ],
)
def test_what_cannot_be_searched_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        search(loads(TEXT), **{"trials": 1, "runs_dir": tmp_path, **change})
