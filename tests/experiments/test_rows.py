"""Rows that are made of other rows: what a defence makes of them, stages of adversarial training, committees."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from noiseopt.concepts import Record
from noiseopt.data import Dataset, Split, split
from noiseopt.distortions import distortion
from noiseopt.errors import UserError
from noiseopt.evaluate import predict
from noiseopt.experiments.cells import Defended, Training
from noiseopt.experiments.planning import divided, plan
from noiseopt.experiments.pools import with_pools
from noiseopt.experiments.recipe import from_run, load
from noiseopt.experiments.run import Runner
from noiseopt.experiments.store import Store
from noiseopt.experiments.work import Setting, Worker
from tests.experiments.conftest import write_images
from tests.experiments.test_cells import parts

STAGES = """
name: stages
data: {path: images, split: [4, 1, 1], split_seed: 0}
training: {steps: 6, batch_size: 8, lr: 1e-2}
rows:
  - {label: Net, model: mlp, options: {hidden: [8]}}
  - {label: Net 2, model: mlp, options: {hidden: [8]}, member: 1, shown: false}
  - label: Coder
    model: "noiseopt.models:autoencoder"
    options: {hidden: [12], image_size: 8}
    training: {task: reconstruct}
    shown: false
  - label: Stage 1
    model: mlp
    options: {hidden: [8]}
    after: Net
    pool: {attack: sign_then_gradient, eps: 0.2, c: 1}
    shown: false
  - label: Stage 2
    model: mlp
    options: {hidden: [8]}
    after: Stage 1
    pool: {attack: sign_then_gradient, eps: 0.2, c: 1}
  - {label: Both, of: [Net, Net 2], defence: committee}
  - {label: Filtered, of: [Both], defence: {defence: low_pass, kernel: 3, noise: 0.1}}
  - {label: Cleaned, of: [Net, Coder], defence: denoise}
columns:
  - {key: clean, perturbations: [clean]}
  - {key: sign, perturbations: [{noise: sign, distortion: {from: 0, to: 0.2, count: 3}}]}
  - {key: gaussian, perturbations: [{noise: gaussian, distortion: [0.05, 0.1]}]}
  - {key: pgd, perturbations: [{attack: pgd, eps: 0.1, step_size: 0.05, steps: 2}]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_images(tmp_path / "images")
    path = tmp_path / "stages.yaml"
    path.write_text(STAGES, encoding="utf-8")
    return path


def worker(file: Path, runs_dir: Path) -> Worker:
    import json

    recipe = json.dumps(load(file).as_dict())
    return Worker(Setting(recipe=recipe, runs_dir=str(runs_dir), data_dir=None, device="cpu"))


def test_the_whole_of_it_runs_and_a_second_time_nothing_does(file: Path, tmp_path: Path) -> None:
    runner = Runner(load(file), runs_dir=tmp_path / "runs")
    outcome = runner.run()
    assert not outcome.failures
    # Net, Stage 2 and Cleaned have no noise, Both neither; Filtered has two states; seven perturbations.
    assert (outcome.trained, outcome.measured) == (5, 7 * (4 + 2))
    records: list[Record] = Store(tmp_path / "runs" / "stages" / "records.jsonl").records
    assert {r.model for r in records} == {"Net", "Stage 2", "Both", "Filtered", "Cleaned"}
    assert {r.model for r in records if r.noise} == {"Filtered"}
    levels = sorted({r.parameters["distortion"] for r in records if r.column == "sign"})
    assert levels == pytest.approx([0.0, 0.1, 0.2])
    again = Runner(load(file), runs_dir=tmp_path / "runs").run()
    assert (again.trained, again.measured) == (0, 0)

    there = worker(file, tmp_path / "runs")
    images, labels, ids = there.data.test.batch(torch.arange(len(there.data.test)))
    subjects = {cell.row.label: cell.row for cell in there.cells.measurements}
    members = [there.models[cell] for cell in there.cells.trainings if cell.label in ("Net", "Net 2")]
    both = predict(there.models[subjects["Both"]], images, draws=1)
    torch.testing.assert_close(both, sum(predict(m, images, draws=1) for m in members) / 2)
    for record in records:
        if record.column == "sign" and record.model == "Both":
            (cell,) = (c for c in there.cells.measurements if c.hash == record.recipe)
            made = cell.perturbation.build(surrogate=None, seed=0, scene=_scene(there, cell.row, images, labels, ids))
            assert record.parameters["eps"] == pytest.approx(made.parameters()["eps"])
            moved = made(there.models[cell.row], images, labels, samples=ids)
            assert distortion(images, moved) == pytest.approx(record.parameters["distortion"], abs=1e-6)


def _scene(there: Worker, row: Training | Defended, *tensors: torch.Tensor) -> object:
    from noiseopt.experiments.perturbations import Scene

    return Scene(there.models[row], *tensors)


def test_a_stage_begins_where_the_one_before_ended(file: Path, tmp_path: Path) -> None:
    Runner(load(file), runs_dir=tmp_path / "runs").run(measuring=False)
    there = worker(file, tmp_path / "runs")
    stages = {cell.label: cell for cell in there.cells.trainings}
    assert [n.label for n in stages["Stage 2"].needs] == ["Net", "Stage 1"]
    model, data = there._beginning(stages["Stage 2"])
    before = there.models[stages["Stage 1"]].state_dict()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    # The images themselves, and one pool of each network before it.
    assert len(data.train) == 3 * len(there.data.train)
    assert torch.equal(data.train.images[: len(there.data.train)], there.data.train.images)
    trained = there.models[stages["Stage 2"]].state_dict()
    assert not any(torch.equal(value, before[name]) for name, value in trained.items() if "weight" in name)


def test_pools_are_the_examples_of_each_network_in_8_bits(file: Path) -> None:
    def darker(
        model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, *, samples: object = None
    ) -> torch.Tensor:
        assert torch.get_num_threads() == 1, "the same images however many workers there are"
        return images * model.weight  # type: ignore[operator]

    data = parts()
    networks = [torch.nn.Linear(1, 1, bias=False) for _ in range(2)]
    for factor, network in zip((0.5, 0.25), networks, strict=True):
        torch.nn.init.constant_(network.weight, factor)
    joined = with_pools(data, networks, darker)
    count = len(data.train)
    for k, factor in enumerate((1, 0.5, 0.25)):
        expected = (data.train.images * factor).round()
        difference = joined.train.images[k * count : (k + 1) * count].float() - expected
        assert difference.abs().max() <= 1  # halves may round either way
    assert torch.equal(joined.train.labels, data.train.labels.repeat(3))
    assert len(joined.train.ids.unique()) == 3 * count
    assert joined.test is data.test


def test_members_differ_by_seed_alone(file: Path) -> None:
    cells = plan(load(file), parts(), device=torch.device("cpu"))
    seeds = {cell.label: (cell.seed, cell.own_seed) for cell in cells.trainings}
    assert seeds["Net"] == (0, 0)
    assert seeds["Net 2"] == (0, 1_000_003)


def test_a_change_reaches_all_that_is_made_of_it_and_nothing_else(file: Path) -> None:
    def hashes(text: str) -> tuple[dict[str, str], dict[str, str]]:
        file.write_text(text, encoding="utf-8")
        cells = plan(load(file), parts(), device=torch.device("cpu"))
        measured = {c.row.label: c.row.hash for c in cells.measurements}
        return {c.label: c.hash for c in cells.trainings}, measured

    before = hashes(STAGES)
    after = hashes(STAGES.replace("eps: 0.2, c: 1}\n    shown", "eps: 0.1, c: 1}\n    shown"))
    changed = [{label for label in one if one[label] != other[label]} for one, other in zip(before, after, strict=True)]
    assert changed == [{"Stage 1", "Stage 2"}, {"Stage 2"}]
    after = hashes(STAGES.replace("kernel: 3", "kernel: 5"))
    changed = [{label for label in one if one[label] != other[label]} for one, other in zip(before, after, strict=True)]
    assert changed == [set(), {"Filtered"}]


def test_a_recipe_with_defences_survives_run_json(file: Path) -> None:
    recipe = load(file)
    assert from_run(recipe.as_dict(), place="run.json") == recipe
    assert recipe.as_dict()["table"]["rows"] == ["Net", "Stage 2", "Both", "Filtered", "Cleaned"]


WRONG = [
    (
        "of: [Net, Net 2]",
        "of: [Net, Net 3]",
        r"rows\[5\]\.of must name an earlier row; got Net 3; fix: did you mean 'Net 2'",
    ),
    ("of: [Both]", "of: [Cleaned]", r"rows\[6\]\.of must name an earlier row; got Cleaned"),
    ("defence: committee", "defence: comittee", r"must name a defence; got comittee; fix: did you mean 'committee'"),
    ("after: Net\n", "after: Nett\n", r"rows\[3\]\.after must name an earlier row; got Nett"),
    ("after: Net\n", "after: Coder\n", r"rows\[3\]\.after must name a trained row of the same network; got Coder"),
    ("kernel: 3", "kernl: 3", r"rows\[6\]\.defence\.kernl is not a known key; fix: did you mean 'kernel'"),
    ("kernel: 3", "kernel: 4", r"rows\[6\]\.defence is refused: kernel must be an odd number .*; got 4"),
    ("of: [Net, Coder]", "of: [Net]", r"rows\[7\]\.of must list 2 rows for denoise; got 1"),
    ("noise: gaussian,", "noise: gaussian, draws: 5,", r"draws is for sign noise"),
    ("after: Net\n", "\n", r"rows\[3\]\.pool needs after"),
    ("count: 3", "count: 1", r"must have numbers as from and to, and a count of 2 to 1000"),
    ("to: 0.2", "too: 0.2", r"\.too is not a known key; fix: did you mean 'to'"),
    ("noise: gaussian", "noise: gausian", r"noise must be 'sign' or 'gaussian'; got gausian"),
    ("split_seed: 0", "split_seed: 0, test: original", r"data\.test needs a data set that is divided"),
]


@pytest.mark.parametrize(("old", "new", "error"), WRONG, ids=[new for _, new, _ in WRONG])
def test_a_slip_is_named(file: Path, old: str, new: str, error: str) -> None:
    assert old in STAGES
    file.write_text(STAGES.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=error):
        load(file)


def test_the_original_test_images_stay_the_test_images() -> None:
    from noiseopt.experiments.schema import Data

    count = 30
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    pool = Dataset(images, torch.zeros(count).long(), ("a",), "x", torch.arange(count) + 60_000 - 20)
    data = divided(pool, Data(name="mnist", split=[3, 1, 1], test="original"))
    assert sorted(data.test.ids.tolist()) == list(range(60_000, 60_010))
    assert (len(data.train), len(data.validation)) == (15, 5)
    assert not set(data.train.ids.tolist()) & set(data.validation.ids.tolist())
    pooled = divided(pool, Data(name="mnist", split=[3, 1, 1]))
    assert isinstance(pooled, Split)
    assert pooled.test.ids.tolist() == split(pool, (3, 1, 1), seed=0).test.ids.tolist()
    choosing = divided(pool, Data(name="mnist", split=[3, 1, 1], test="original", measure="validation"))
    assert choosing.test.ids.tolist() == choosing.validation.ids.tolist() == data.validation.ids.tolist()
    assert choosing.train.ids.tolist() == data.train.ids.tolist()


def test_the_original_test_images_are_not_guessed_at() -> None:
    from noiseopt.experiments.planning import check_original
    from noiseopt.experiments.schema import Data

    images = torch.zeros(30, 1, 2, 2, dtype=torch.uint8)
    part = Dataset(images, torch.zeros(30).long(), ("a",), "x", torch.arange(30))
    with pytest.raises(UserError, match="test: original needs all of mnist, 70,000 images; got 30"):
        check_original(part, Data(name="mnist", split=[3, 1, 1], test="original"))
    check_original(part, Data(name="mnist", split=[3, 1, 1]))


def test_training_may_go_on_with_noise_that_was_not_there_before(file: Path, tmp_path: Path) -> None:
    noisy = "    after: Net\n    noise: {sigma: learned, init: 0.5}\n"
    file.write_text(
        STAGES.replace("    after: Net\n", noisy, 1).replace("after: Stage 1", "after: Net"), encoding="utf-8"
    )
    Runner(load(file), runs_dir=tmp_path / "runs").run(measuring=False)
    there = worker(file, tmp_path / "runs")
    stages = {cell.label: cell for cell in there.cells.trainings}
    model, _ = there._beginning(stages["Stage 1"])
    before = there.models[stages["Net"]].state_dict()
    begun = model.state_dict()
    assert all(torch.equal(begun[name], value) for name, value in before.items())
    added = {name for name in begun if name not in before}
    assert added == {"hidden1.noise.sigma", "output.noise.sigma"}
    assert all(bool((begun[name] == 0.5).all()) for name in added)


def test_a_recipe_without_columns_trains_and_that_is_all(file: Path, tmp_path: Path) -> None:
    text = STAGES[: STAGES.index("columns:")] + "columns: []\n"
    file.write_text(text, encoding="utf-8")
    outcome = Runner(load(file), runs_dir=tmp_path / "runs").run()
    assert (outcome.trained, outcome.measured, outcome.failures) == (5, 0, {})
