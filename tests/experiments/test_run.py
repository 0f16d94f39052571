from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from noiseopt import checkpoint
from noiseopt.attacks import FGSM, Transfer
from noiseopt.concepts import Record
from noiseopt.errors import UserError
from noiseopt.experiments import work
from noiseopt.experiments.events import Began, Ended, EpochDone, Event, Failed, Note, Planned
from noiseopt.experiments.recipe import Recipe, from_run
from noiseopt.experiments.run import Outcome, Runner
from noiseopt.models import build
from noiseopt.train import Epoch
from tests.experiments.running import MODELS, models, records, run


def test_a_run_leaves_what_the_report_reads(done: tuple[Path, Outcome, list[Event]]) -> None:
    folder, outcome, _ = done
    assert (outcome.trained, outcome.measured, outcome.failures) == (4, 25, {})
    about = json.loads((folder / "tiny" / "run.json").read_text())
    assert about["command"] == "noiseopt evaluate tiny.yaml"
    assert (about["recipe_name"], about["seed"], about["device"]) == ("tiny", 0, "cpu")
    assert set(about["versions"]) == {"noiseopt", "python", "torch", "numpy"}
    assert about["data"]["counts"] == {"train": 32, "validation": 8, "test": 8}
    assert len(about["data"]["hash"]) == 64
    assert about["seconds"] > 0
    assert from_run(about["recipe"], place="run.json").name == "tiny"
    assert set(models(folder)) == MODELS
    assert set((folder / "models").iterdir()) == set(models(folder).values())
    for name, model in models(folder).items():
        curves = [Epoch.model_validate_json(line) for line in (model / "curves.jsonl").read_text().splitlines()]
        assert [line.epoch for line in curves] == ([1] if name[0] == "surrogate" else [1, 2])
        assert (model / "sigma.safetensors").exists() == (name[0] in {"MLP+", "MLPN"})


def test_records_say_what_was_measured(done: tuple[Path, Outcome, list[Event]]) -> None:
    found = records(done[0])
    assert len(found) == 25
    assert {r.model for r in found} == {"MLP", "MLP+", "MLPN"}
    assert {(r.noise, r.draws) for r in found if r.model != "MLP"} == {(True, 3), (False, 1)}
    assert {(r.noise, r.draws) for r in found if r.model == "MLP"} == {(False, 1)}
    assert {r.count for r in found} == {8}
    assert {r.model_seed for r in found} == {0}
    assert len({r.data_hash for r in found}) == 1
    assert all("torch" in r.code for r in found)
    assert {(r.column, r.protocol) for r in found} == {
        (column, "paper") for column in ("clean", "contrast", "pgd", "transfer")
    }
    severities = {r.parameters["severity"] for r in found if r.column == "contrast"}
    assert severities == {3, 5}
    (transfer,) = {r.parameters["attack"] for r in found if r.column == "transfer"}
    assert transfer == "fgsm"


def test_the_gallery_shows_every_perturbation_and_what_each_row_says(
    done: tuple[Path, Outcome, list[Event]],
) -> None:
    folder = done[0] / "tiny"
    about = json.loads((folder / "gallery.json").read_text())
    assert about["perturbations"] == ["clean", "PGD", "contrast 3", "transfer FGSM"]
    assert about["classes"] == ["bottom", "middle", "top"]
    assert about["rows"] == ["MLP", "MLP+", "MLPN"]
    assert about["crafted_on"] == "MLPN"
    tensors = load_file(folder / "gallery.safetensors")
    images = tensors["images"]
    assert images.shape == (4, 8, 1, 8, 8)
    assert 0 <= images.min() <= images.max() <= 1
    assert set(tensors["labels"].tolist()) == {0, 1, 2}
    for row in about["rows"]:
        assert tensors[f"predictions/{row}"].shape == tensors[f"confidence/{row}"].shape == (4, 8)
        assert bool(((tensors[f"confidence/{row}"] > 1 / 3) & (tensors[f"confidence/{row}"] <= 1)).all())
    assert float((images[1] - images[0]).abs().max()) == pytest.approx(25 / 255, abs=0.06)
    assert float((images[3] - images[0]).abs().max()) == pytest.approx(0.1, abs=1e-6)


def test_the_run_tells_what_it_does(done: tuple[Path, Outcome, list[Event]]) -> None:
    events = done[2]
    assert isinstance(events[0], Planned)
    assert (events[0].trainings, events[0].trained, events[0].epochs) == (4, 0, 7)
    assert (events[0].measurements, events[0].measured) == (25, 0)
    assert sum(isinstance(e, EpochDone) for e in events) == 7
    for kind, count in (("train", 4), ("measure", 25), ("gallery", 1)):
        began = [e.title for e in events if isinstance(e, Began) and e.kind == kind]
        ended = [e.title for e in events if isinstance(e, Ended) and e.kind == kind]
        assert began == ended
        assert len(ended) == count


def test_one_failure_leaves_the_others(changed: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = changed(("noise: {sigma: 1.0}", "noise: {sigma: 1.0}, training: {lr: 1e+30, optimizer: sgd}"))
    outcome, events = run(recipe, tmp_path)
    assert list(outcome.failures) == ["MLP+, seed 0"]
    assert "finite" in str(outcome.failures["MLP+, seed 0"])
    assert {r.model for r in records(tmp_path)} == {"MLP", "MLPN"}
    assert len(records(tmp_path)) == 15
    assert sum(isinstance(e, Failed) for e in events) == 11
    assert "MLP+, seed 0" in json.loads((tmp_path / "tiny" / "run.json").read_text())["failures"]


def test_a_bug_in_one_measurement_leaves_the_others(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = work.evaluate

    def broken(model: Any, data: Any, perturbation: Any, **options: Any) -> Record:
        if getattr(perturbation, "name", "") == "pgd":
            raise ZeroDivisionError("oops")
        return genuine(model, data, perturbation, **options)

    monkeypatch.setattr(work, "evaluate", broken)
    outcome, _ = run(tiny, tmp_path)
    assert len(outcome.failures) == 5
    for error in outcome.failures.values():
        assert str(error) == "ZeroDivisionError: oops"
        assert "in broken" in "".join(error.__notes__)  # the traceback, for --debug
    assert len(records(tmp_path)) == 20
    monkeypatch.undo()
    outcome, _ = run(tiny, tmp_path)
    assert (outcome.trained, outcome.measured, outcome.failures) == (0, 5, {})


def test_what_is_wrong_with_a_network_is_said_before_anything_is_trained(
    changed: Callable[..., Recipe], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="hidden"):
        run(changed(("init: 0.5}}", "init: 0.5}}\n  - {label: X, model: mlp, options: {hidden: [0]}}")), tmp_path)
    assert not (tmp_path / "models").exists()


OWN = """
from torch import nn

class Refusing(nn.Linear):
    def forward(self, x):
        raise ValueError("not this")

class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Linear(8, 8), nn.Linear(8, 3)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        x = self.embed(x.squeeze(1))
        return self.out(self.attend(x, x, x)[0].mean(1))

def refusing():
    return Refusing(64, 3)
"""


def test_what_noise_finds_in_a_network_of_ones_own_is_said_of_its_row(
    changed: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "noted_net.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))

    def with_row(label: str, model: str) -> Recipe:
        row = f"  - {{label: {label}, model: 'noted_net:{model}', noise: {{sigma: 1.0}}}}\n"
        return changed(("surrogate:", f"{row}surrogate:"), ("seeds: [0]", "seeds: [0, 1]"))

    with pytest.raises(UserError, match=r"^Mine: the model must take its example input, .*; got ValueError: not this"):
        run(with_row("Mine", "refusing"), tmp_path / "refused")
    _, told = run(with_row("Seen", "Attentive"), tmp_path / "noted", measuring=False)
    (note,) = [e.text for e in told if isinstance(e, Note)]
    assert note.startswith("Seen: no noise on attend.out_proj: never called")


def test_only_so_many_images(changed: Callable[..., Recipe], tmp_path: Path) -> None:
    run(changed(("draws: 3}", "draws: 3, images: 5}")), tmp_path)
    assert {r.count for r in records(tmp_path)} == {5}


def test_a_folder_is_used_by_one_process_at_a_time(tiny: Recipe, tmp_path: Path) -> None:
    first = Runner(tiny, runs_dir=tmp_path, device="cpu")
    with first.folder.open(), pytest.raises(UserError, match="another noiseopt is at work"):
        run(tiny, tmp_path)
    run(tiny, tmp_path, measuring=False)


def test_a_folder_that_cannot_be_made_is_named(tiny: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"must be writable.*--runs-dir"):
        run(tiny, tmp_path / "file")


def test_only_what_a_run_wrote_is_removed(tiny: Recipe, changed: Callable[..., Recipe], tmp_path: Path) -> None:
    run(tiny, tmp_path)
    other = changed(("name: tiny", "name: other"), ("noise: {sigma: 1.0}", "noise: {sigma: 2.0}"))
    run(other, tmp_path, measuring=False)
    runner = Runner(tiny, runs_dir=tmp_path, device="cpu")
    (runner.folder.path / "notes.txt").write_text("mine")
    ours = models(tmp_path)
    runner.folder.remove()
    assert {p.name for p in runner.folder.path.iterdir()} == {".lock", "notes.txt"}  # the lock stays a lock
    # The other recipe has the same networks, but for one.
    assert [name for name, path in ours.items() if not path.exists()] == [("MLP+", 0)]


def test_a_run_json_cannot_have_other_folders_removed(tiny: Recipe, tmp_path: Path) -> None:
    run(tiny, tmp_path, measuring=False)
    (tmp_path / "precious").mkdir()
    path = tmp_path / "tiny" / "run.json"
    wrong = [{"label": "X", "seed": 0, "folder": name} for name in ("../precious", "..", "../models/..", "/", "")]
    path.write_text(json.dumps({**json.loads(path.read_text()), "models": wrong}))
    Runner(tiny, runs_dir=tmp_path, device="cpu").folder.remove()
    assert (tmp_path / "precious").is_dir()
    assert len(list((tmp_path / "models").iterdir())) == 4


def test_recipes_share_the_networks_that_they_both_train(
    tiny: Recipe, changed: Callable[..., Recipe], tmp_path: Path
) -> None:
    run(tiny, tmp_path, measuring=False)
    outcome, _ = run(changed(("name: tiny", "name: other"), ("sigma: learned", "sigma: 3.0")), tmp_path)
    assert (outcome.trained, outcome.measured) == (1, 25)


def test_a_surrogate_with_batch_normalisation_stays_as_it_was_trained(
    changed: Callable[..., Recipe], tmp_path: Path
) -> None:
    fgsm = "{transfer: {attack: fgsm, eps: 0.1}}"
    recipe = changed(
        (
            "{model: mlp, options: {hidden: [6]}",
            "{model: resnet18, options: {width: 16, head: [], mean: 0.5, std: 0.25}",
        ),
        (fgsm, f"{fgsm}, {fgsm.replace('0.1', '0.2')}"),
    )
    assert run(recipe, tmp_path)[0].failures == {}
    network = build("resnet18", seed=0, width=16, head=[], mean=0.5, std=0.25, in_channels=1, image_size=8, classes=3)
    checkpoint.load_model(models(tmp_path)["surrogate", 1000] / "checkpoint.safetensors", network)
    trained = Transfer(FGSM(eps=0.1), network).parameters()["surrogate"]
    found = [record.parameters["surrogate"] for record in records(tmp_path) if record.column == "transfer"]
    # The second attack is crafted on what the first has left.
    assert found == [trained] * 10


def test_a_recipe_is_not_named_as_the_folder_of_models(changed: Callable[..., Recipe], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="rename it"):
        run(changed(("name: tiny", "name: models")), tmp_path)


@pytest.mark.parametrize("device", ["cuda:77", "gpu", "meta", ""])
def test_a_device_is_tried_before_anything_else(tiny: Recipe, tmp_path: Path, device: str) -> None:
    with pytest.raises(UserError, match="--device"):
        Runner(tiny, runs_dir=tmp_path, device=device)
