from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from noiseopt import checkpoint
from noiseopt.errors import UserError
from noiseopt.experiments import work
from noiseopt.experiments.events import Began, Ended, EpochDone, Event, Failed, Note, Planned
from noiseopt.experiments.recipe import Recipe
from noiseopt.experiments.run import Outcome, Runner
from noiseopt.experiments.store import Store
from tests.experiments.running import MODELS, models, records, run


class Interrupt:
    """Raises KeyboardInterrupt at the n-th event of a kind."""

    def __init__(self, kind: type, count: int) -> None:
        self.kind, self.left = kind, count

    def __call__(self, event: Event) -> None:
        self.left -= isinstance(event, self.kind)
        if self.left == 0:
            self.left = -1
            raise KeyboardInterrupt


@pytest.mark.parametrize(("kind", "count"), [(EpochDone, 1), (EpochDone, 4), (Began, 3), (Began, 9), (Ended, 12)])
def test_an_interrupted_run_goes_on_to_the_same_numbers(
    tiny: Recipe, tmp_path: Path, done: tuple[Path, Outcome, list[Event]], kind: type, count: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        Runner(tiny, runs_dir=tmp_path, device="cpu", listener=Interrupt(kind, count)).run()
    assert json.loads((tmp_path / "tiny" / "run.json").read_text())["seconds"] is None
    outcome, _ = run(tiny, tmp_path)
    assert outcome.failures == {}
    assert records(tmp_path) == records(done[0])
    for name in MODELS:
        ours, theirs = (checkpoint.load(models(f)[name] / "checkpoint.safetensors")[0] for f in (tmp_path, done[0]))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert json.loads((tmp_path / "tiny" / "run.json").read_text())["seconds"] > 0


def test_what_is_done_is_not_done_again(tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tiny, tmp_path)
    folders = (tmp_path / "tiny", tmp_path / "models")
    before = {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(work, "evaluate", None)  # would fail if it were called
    monkeypatch.setattr(work, "train", None)
    outcome, events = run(tiny, tmp_path)
    assert (outcome.trained, outcome.measured, outcome.failures) == (0, 0, {})
    assert not any(isinstance(e, EpochDone | Failed | Note) for e in events)
    for path, content in before.items():
        assert path.name == "run.json" or path.read_bytes() == content


def test_a_torn_record_is_measured_again(tiny: Recipe, tmp_path: Path, done: tuple[Path, Outcome, list[Event]]) -> None:
    run(tiny, tmp_path)
    path = tmp_path / "tiny" / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    outcome, events = run(tiny, tmp_path)
    assert outcome.measured == 1
    assert any(isinstance(e, Note) and "torn" in e.text for e in events)
    assert records(tmp_path) == records(done[0])


def test_a_changed_recipe_keeps_what_still_holds_and_sets_the_rest_aside(
    tiny: Recipe, changed: Callable[..., Recipe], tmp_path: Path
) -> None:
    run(tiny, tmp_path)
    outcome, events = run(changed(("noise: {sigma: 1.0}", "noise: {sigma: 2.0}")), tmp_path)
    assert (outcome.trained, outcome.measured) == (1, 10)
    assert any(isinstance(e, Note) and "10 numbers of another recipe" in e.text for e in events)
    assert len(records(tmp_path)) == 25
    assert len(Store(tmp_path / "tiny" / "set-aside" / "records.jsonl")) == 10
    assert len(list((tmp_path / "models").glob("*/checkpoint.safetensors"))) == 5  # every one that was trained


def test_the_gallery_is_of_the_protocol_that_the_recipe_has(changed: Callable[..., Recipe], tmp_path: Path) -> None:
    said = []
    for protocol in ("paper", "strict"):
        run(changed(("seeds: [0]", f"seeds: [0]\nprotocol: {protocol}")), tmp_path)
        said.append(json.loads((tmp_path / "tiny" / "gallery.json").read_text())["made_of"])
    assert said[0] != said[1]


def test_training_and_measuring_apart(tiny: Recipe, tmp_path: Path, done: tuple[Path, Outcome, list[Event]]) -> None:
    with pytest.raises(UserError, match=r"surrogate, seed 1000 must be trained .*0 of 1 epochs.*noiseopt train"):
        run(tiny, tmp_path, training=False)
    outcome, _ = run(tiny, tmp_path, measuring=False)
    assert (outcome.trained, outcome.measured) == (4, 0)
    assert records(tmp_path) == []
    outcome, _ = run(tiny, tmp_path, training=False)
    assert (outcome.trained, outcome.measured) == (0, 25)
    assert records(tmp_path) == records(done[0])


def test_measuring_needs_the_models_of_this_recipe(
    tiny: Recipe, changed: Callable[..., Recipe], tmp_path: Path
) -> None:
    run(tiny, tmp_path)
    with pytest.raises(UserError, match=r"MLP\+, seed 0 must be trained first; got one from other settings"):
        run(changed(("noise: {sigma: 1.0}", "noise: {sigma: 2.0}")), tmp_path, training=False)
    assert len(records(tmp_path)) == 25  # nothing was moved


def test_copies_that_a_crash_left_behind_the_checkpoint_are_written_again(tiny: Recipe, tmp_path: Path) -> None:
    run(tiny, tmp_path, measuring=False)
    model = models(tmp_path)[("MLPN", 0)]
    curves = (model / "curves.jsonl").read_bytes()
    for left in (b"", curves[:-1], curves.splitlines(keepends=True)[0]):
        (model / "sigma.safetensors").unlink()
        (model / "curves.jsonl").write_bytes(left)
        assert run(tiny, tmp_path, measuring=False)[0].trained == 1
        assert (model / "curves.jsonl").read_bytes() == curves
        assert (model / "sigma.safetensors").exists()
    (model / "curves.jsonl").write_bytes(curves[:-1])
    assert run(tiny, tmp_path, measuring=False)[0].trained == 1


def test_a_run_that_was_copied_is_as_complete(tiny: Recipe, tmp_path: Path) -> None:
    run(tiny, tmp_path, measuring=False)
    for model in models(tmp_path).values():
        os.utime(model / "curves.jsonl", (0, 0))  # a copy may have its files in any order
    assert run(tiny, tmp_path, measuring=False)[0].trained == 0


def test_some_seeds_of_a_recipe_are_run_in_the_same_folder(changed: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = changed(("seeds: [0]", "seeds: [0, 1, 2]"))
    outcome, events = run(recipe, tmp_path, seeds=[1])
    assert (outcome.trained, outcome.measured) == (4, 25)
    assert isinstance(events[0], Planned)
    assert (events[0].trainings, events[0].measurements) == (4, 25)
    outcome, events = run(recipe, tmp_path, seeds=[0])
    assert (outcome.trained, outcome.measured) == (3, 25)
    assert not any(isinstance(e, Note) for e in events)  # nothing was set aside
    assert {r.model_seed for r in records(tmp_path)} == {0, 1}
    outcome, _ = run(recipe, tmp_path)
    assert (outcome.trained, outcome.measured) == (3, 25)
    with pytest.raises(UserError, match="seeds 0, 1, 2; got 3"):
        run(recipe, tmp_path, seeds=[3])


def test_a_model_that_another_noiseopt_trains_is_waited_for(tiny: Recipe, tmp_path: Path) -> None:
    run(tiny, tmp_path, measuring=False)
    folder = models(tmp_path)[("MLP", 0)]
    (folder / "curves.jsonl").unlink()  # so that there is something left to do
    held, noticed = threading.Event(), threading.Event()
    events: list[Event] = []

    def other() -> None:
        with FileLock(folder / ".lock"):
            held.set()
            noticed.wait(60)
            events.append(Note("released"))

    def listener(event: Event) -> None:
        events.append(event)
        if isinstance(event, Note):
            noticed.set()

    holder = threading.Thread(target=other)
    holder.start()
    held.wait(60)
    Runner(tiny, runs_dir=tmp_path, device="cpu", listener=listener).run(measuring=False)
    holder.join()
    notes = [e.text for e in events if isinstance(e, Note)]
    assert notes == ["MLP, seed 0: another noiseopt trains it; waiting for that", "released"]
    assert isinstance(events[-1], Ended)
    assert (folder / "curves.jsonl").exists()


def test_a_damaged_checkpoint_is_named(tiny: Recipe, tmp_path: Path) -> None:
    run(tiny, tmp_path, measuring=False)
    path = models(tmp_path)[("MLPN", 0)] / "checkpoint.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(UserError, match=f"{path.parent.name}.* is damaged.*remove it"):
        run(tiny, tmp_path)


@pytest.mark.parametrize("blocked", ["models", "models/{name}/.lock"])
def test_a_model_whose_folder_cannot_be_used_is_named(tiny: Recipe, tmp_path: Path, blocked: str) -> None:
    run(tiny, tmp_path / "whole", measuring=False)
    name = models(tmp_path / "whole")[("MLP", 0)].name
    place = tmp_path / "runs" / blocked.format(name=name)
    if place.name == ".lock":
        place.mkdir(parents=True)  # a folder where a file should be
    else:
        place.parent.mkdir()
        place.write_text("")
    outcome, _ = run(tiny, tmp_path / "runs", measuring=False)
    assert re.search(r"must be writable; got .*; fix: choose another --runs-dir", str(outcome.failures["MLP, seed 0"]))
