"""A network that is trained already, measured and audited as it comes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from noiseopt.experiments.store import Store
from noiseopt.models import mlp
from tests.cli.common import Invoke
from tests.experiments.conftest import TINY

MINE = """
from pathlib import Path
from safetensors.torch import load_file
from noiseopt.models import mlp

def make():
    net = mlp(hidden=[8], image_size=8, classes=3)
    net.load_state_dict(load_file(Path(__file__).parent / "mine.safetensors"))
    return net.requires_grad_(False).eval()
"""
ROWS = """
  - {label: Mine, model: 'mine:make', training: {epochs: 0}}
  - {label: Mine with noise, model: 'mine:make', noise: {sigma: 0.5}, training: {epochs: 0}}
surrogate:"""
QUICK = ("--steps", "4", "--queries", "5", "--votes", "9", "--subset", "8", "--draws", "1,3")


@pytest.fixture
def recipe(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delitem(sys.modules, "mine", raising=False)  # another test's
    torch.manual_seed(3)
    save_file(mlp(hidden=[8], image_size=8, classes=3).state_dict(), here / "mine.safetensors")
    (here / "mine.py").write_text(MINE)
    (here / "tiny.yaml").write_text(TINY.replace("\nsurrogate:", ROWS, 1))
    return here / "tiny.yaml"


@pytest.mark.parametrize("executor", ["inprocess", "processes"])
def test_a_network_stays_as_it_comes(recipe: Path, invoke: Invoke, executor: str) -> None:
    here, options = recipe.parent, ("--executor", executor, "--workers", "1" if executor == "inprocess" else "2")
    status, out, err = invoke("reproduce", "tiny.yaml", *options)
    assert status == 0, err
    assert "trained Mine, seed 0: as it comes" in err
    assert "Mine with noise" in out
    found = {m["label"]: m["folder"] for m in json.loads((here / "runs/tiny/run.json").read_text())["models"]}
    kept = load_file(here / "runs/tiny" / found["Mine"] / "checkpoint.safetensors")
    mine = load_file(here / "mine.safetensors")
    assert all(torch.equal(kept[f"model/{name}"], tensor) for name, tensor in mine.items())
    assert "Mine" in (here / "runs/tiny/report.html").read_text()
    before = (here / "runs/tiny/records.jsonl").read_bytes()
    status, _, err = invoke("reproduce", "tiny.yaml", *options)
    assert status == 0, err
    assert "already there: 6 of 6 models" in err
    assert (here / "runs/tiny/records.jsonl").read_bytes() == before
    status, _, err = invoke("audit", "tiny", *QUICK, "--row", "Mine", "--row", "Mine with noise", "--json")
    assert status in (0, 3), err
    audited = {r.model for r in Store(here / "runs/tiny/audit/records.jsonl").records}
    assert audited == {"Mine", "Mine with noise"}


def test_it_wants_its_run_first_and_again_when_its_weights_are_others(recipe: Path, invoke: Invoke) -> None:
    status, _, err = invoke("evaluate", "tiny.yaml")
    assert status == 2
    assert "must be trained first" in err
    assert invoke("train", "tiny.yaml")[0] == 0
    weights = {name: tensor + 0.5 for name, tensor in load_file(recipe.parent / "mine.safetensors").items()}
    save_file(weights, recipe.parent / "mine.safetensors")
    status, _, err = invoke("train", "tiny.yaml")
    assert status == 0
    assert "already there: 4 of 6 models" in err
