from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

import pytest
import torch

from noiseopt.attacks import FGSM
from noiseopt.data import Dataset, Split, split
from noiseopt.errors import UserError
from noiseopt.experiments.cells import Plan
from noiseopt.experiments.planning import build_network, plan, training_arguments
from noiseopt.experiments.recipe import Recipe
from noiseopt.noise import OBJECTIVES, sigmas


def dataset(seed: int = 0, *, size: int = 8) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (24, 1, size, size), generator=generator, dtype=torch.uint8)
    return Dataset(images, torch.arange(24) % 3, ("a", "b", "c"), "random", torch.arange(24))


def parts(seed: int = 0) -> Split:
    return split(dataset(seed), (4, 1, 1), seed=0)


def planned(recipe: Recipe, data: Split | None = None) -> Plan:
    data = data or parts()
    return plan(recipe, data, device=torch.device("cpu"))


def test_every_cell_comes_after_those_it_needs(tiny: Recipe) -> None:
    cells = planned(tiny)
    assert [c.title for c in cells.trainings] == ["surrogate, seed 1000", "MLP, seed 0", "MLP+, seed 0", "MLPN, seed 0"]
    # A plain row has one state of the noise, a noisy one two; five perturbations.
    assert len(cells.measurements) == 5 * (1 + 2 + 2)
    for cell in cells.measurements:
        assert all(need in cells.trainings for need in cell.needs)
        assert (cell.surrogate is not None) == (cell.column.key == "transfer")
    assert not any(c.noise for c in cells.measurements if c.row.label == "MLP")
    titles = [c.title for c in cells.measurements]
    addresses = [c.address for c in cells.measurements]
    assert len(set(titles)) == len(set(addresses)) == len(cells.measurements)


def test_seeds_multiply_the_rows_but_not_the_surrogate(changed: Callable[..., Recipe]) -> None:
    cells = planned(changed(("seeds: [0]", "seeds: [0, 5]")))
    assert len(cells.trainings) == 1 + 2 * 3
    assert len({c.folder for c in cells.trainings}) == 7
    assert len({c.address for c in cells.measurements}) == 2 * 25


WORDS = [("title: Three small networks", "title: Other"), ("title: PGD", "title: Other"), ("name: tiny", "name: other")]
WORDS += [("group: White box", "group: Black box"), ("seeds: [0]", "seeds: [0]\ntable: {paper: 3}")]


@pytest.mark.parametrize("pair", WORDS, ids=[new for _, new in WORDS])
def test_words_change_no_number(tiny: Recipe, changed: Callable[..., Recipe], pair: tuple[str, str]) -> None:
    before, after = planned(tiny), planned(changed(pair))
    assert [c.address for c in before.measurements] == [c.address for c in after.measurements]
    assert [c.hash for c in before.trainings] == [c.hash for c in after.trainings]


def test_a_fix_of_the_training_trains_anew(tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {cell.hash for cell in planned(tiny).trainings}
    monkeypatch.setattr("noiseopt.experiments.planning.TRAINING_REVISION", 2)
    assert not before & {cell.hash for cell in planned(tiny).trainings}


# What is changed, and which of the trainings, and of the columns of every row, are then others.
ROWS, COLUMNS = ("surrogate", "MLP", "MLP+", "MLPN"), ("clean", "pgd", "contrast", "transfer")
CHANGES = [
    (("epochs: 2", "epochs: 3"), ROWS[1:], COLUMNS),  # the surrogate has its own
    (("training: {epochs: 1}", "training: {epochs: 4}"), ("surrogate",), ("transfer",)),
    (("lr: 1e-2", "lr: 1e-3"), ROWS, COLUMNS),
    (("seeds: [0]", "seeds: [1]"), ROWS[1:], COLUMNS),
    (("hidden: [6]", "hidden: [5]"), ("surrogate",), ("transfer",)),
    (("steps: 2", "steps: 3"), (), ("pgd",)),
    (("steps: 2", "steps: 2, draws: 2"), (), ("pgd",)),
    (("eps: 0.1}", "eps: 0.2}"), (), ("transfer",)),
    (("draws: 3", "draws: 4"), (), COLUMNS),
    (("seeds: [0]", "seeds: [0]\nprotocol: strict"), (), COLUMNS),
    (("draws: 3}", "draws: 3, images: 2}"), (), COLUMNS),
    (("draws: 3}", "draws: 3, images: 900}"), (), ()),
    (("evaluation: {", "evaluation: {seed: 9, "), (), COLUMNS),
    (("seeds: [0]", "seeds: [0]\ncurves: {noise: on}"), ROWS, COLUMNS),
]


@pytest.mark.parametrize(("pair", "rows", "columns"), CHANGES, ids=[pair[1] for pair, _, _ in CHANGES])
def test_what_makes_a_number_is_in_its_address_and_nothing_else(
    tiny: Recipe,
    changed: Callable[..., Recipe],
    pair: tuple[str, str],
    rows: tuple[str, ...],
    columns: tuple[str, ...],
) -> None:
    before, after = planned(tiny), planned(changed(pair))
    now = {c.hash for c in after.trainings}
    assert tuple(c.label for c in before.trainings if c.hash not in now) == rows
    there = {c.address for c in after.measurements}
    # A draw count says nothing about a model without noise, or with its noise off.
    gone = {
        c.column.key for c in before.measurements if c.address not in there and (c.noise or "draws: 4" not in pair[1])
    }
    assert gone == set(columns)


def test_a_protocol_may_take_fewer_images_without_a_gpu(changed: Callable[..., Recipe]) -> None:
    recipe = changed(
        ("seeds: [0]", "seeds: [0]\nprotocol: strict"), ("draws: 3}", "draws: 3}, strict: {images_on_cpu: 3}")
    )
    data = parts()
    counts = {
        name: {c.images for c in plan(recipe, data, device=torch.device(name)).measurements} for name in ("cpu", "cuda")
    }
    assert counts == {"cpu": {3}, "cuda": {4}}
    cell = planned(recipe).measurements[0]
    assert torch.equal(cell.measured(data).images, data.test.images[:3])
    assert cell.draws == 1 or cell.noise


def test_a_column_stands_under_each_of_its_protocols(changed: Callable[..., Recipe]) -> None:
    cells = planned(changed(("{key: clean,", "{key: clean, protocols: [paper, strict],")))
    found = [(c.protocol, c.draws) for c in cells.measurements if c.column.key == "clean" and c.row.label == "MLP+"]
    assert sorted(found) == [("paper", 1), ("paper", 3), ("strict", 1), ("strict", 20)]


def test_what_is_not_asked_for_leaves_the_hash_as_it_was(tiny: Recipe, changed: Callable[..., Recipe]) -> None:
    """An objective or an adversary is part of the training; the paper's objective goes without saying."""
    before = {c.label: c.hash for c in planned(tiny).trainings}
    said = changed(("sigma: learned,", "sigma: learned, objective: loss,"))
    assert {c.label: c.hash for c in planned(said).trainings} == before
    for piece in (
        "sigma: learned, objective: entropy,",
        "sigma: learned, objective: {objective: budget, mean_square: 2},",
    ):
        after = {c.label: c.hash for c in planned(changed(("sigma: learned,", piece))).trainings}
        assert {label for label in after if after[label] != before[label]} == {"MLPN"}
    attacked = changed(("{label: MLP+,", "{label: MLP+, adversary: {attack: fgsm, eps: 0.1},"))
    after = {c.label: c.hash for c in planned(attacked).trainings}
    assert {label for label in after if after[label] != before[label]} == {"MLP+"}


def test_training_is_told_the_objective_and_the_adversary(changed: Callable[..., Recipe]) -> None:
    recipe = changed(
        ("{label: MLP+,", "{label: MLP+, adversary: {attack: fgsm, eps: 0.1},"),
        ("sigma: learned,", "sigma: learned, objective: {objective: adversarial, examples: {attack: fgsm, eps: 0.2}},"),
    )
    plain, attacked, learned = (training_arguments(row) for row in recipe.rows)
    assert plain == {"objective": None, "perturbation": None, "paired": None}
    assert attacked["perturbation"] == FGSM(eps=0.1)
    assert learned["objective"] == OBJECTIVES["adversarial"](examples=FGSM(eps=0.2))
    assert learned["perturbation"] is None


def test_other_images_make_other_numbers(tiny: Recipe) -> None:
    before, after = planned(tiny), planned(tiny, parts(seed=1))
    assert not {c.address for c in before.measurements} & {c.address for c in after.measurements}
    assert not {c.hash for c in before.trainings} & {c.hash for c in after.trainings}


def test_one_row_does_not_touch_the_others(tiny: Recipe, changed: Callable[..., Recipe]) -> None:
    before, after = planned(tiny), planned(changed(("noise: {sigma: 1.0}", "noise: {sigma: 2.0}")))
    there = {c.address for c in after.measurements}
    assert {c.row.label for c in before.measurements if c.address not in there} == {"MLP+"}


def test_networks_fit_the_images(tiny: Recipe) -> None:
    images = dataset(size=10)
    for cell in planned(tiny).trainings:
        model = build_network(cell.network, images, seed=cell.seed)
        assert model(torch.zeros(2, 1, 10, 10)).shape == (2, 3)
        expected = {"MLP+": 1.0, "MLPN": 0.5}.get(cell.label)
        levels = sigmas(model)
        assert bool(levels) == (expected is not None)
        assert all(bool((s == expected).all()) for s in levels.values())


def test_seeds_decide_the_weights(tiny: Recipe) -> None:
    images = dataset()
    row = tiny.rows[0]
    first, same, other = (build_network(row, images, seed=s).state_dict()["output.weight"] for s in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def hashes_with(changed: Callable[..., Recipe], net: str, *helpers: str) -> dict[str, str]:
    """Label → hash, the first row's network being that of `net:make`, whose files were just written."""
    for name in (net, *helpers):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    cells = planned(changed(("model: mlp, options: {hidden: [8]}}", f"model: '{net}:make'}}")))
    return {c.label: c.hash for c in cells.trainings}


def test_an_edited_model_of_the_users_own_is_another_network(
    changed: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("edited")
    text = "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.ReLU())\n"
    monkeypatch.syspath_prepend(str(folder))
    hashes = []
    for activation in ("ReLU", "Tanh", "ReLU"):
        (folder / "edited_net.py").write_text(text.replace("ReLU", activation))
        hashes.append(hashes_with(changed, "edited_net"))
    assert hashes[0] == hashes[2]
    assert {label for label in hashes[0] if hashes[0][label] != hashes[1][label]} == {"MLP"}


def test_a_helper_or_a_file_of_weights_makes_another_network(
    changed: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("helped")
    (folder / "helped_net.py").write_text(
        "from pathlib import Path\nimport torch\nfrom torch import nn\nfrom helper_of_net import Act\n"
        "def make():\n    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), Act())\n"
        "    net[1].bias.data.fill_(float((Path(__file__).parent / 'weights.txt').read_text()))\n    return net\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    hashes = []
    for inside, weights in (("x", "0.5"), ("x * 0", "0.5"), ("x", "0.6"), ("x", "0.5")):
        text = f"from torch import nn\nclass Act(nn.Module):\n    def forward(self, x):\n        return {inside}\n"
        (folder / "helper_of_net.py").write_text(text)
        (folder / "weights.txt").write_text(weights)
        hashes.append(hashes_with(changed, "helped_net", "helper_of_net")["MLP"])
    assert hashes[0] == hashes[3]
    assert len(set(hashes)) == 3


def test_a_model_of_the_users_own(
    changed: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_net.py").write_text(
        "from torch import nn\ndef make(*, width):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 3))\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    recipe = changed(("model: mlp, options: {hidden: [8]}}", "model: 'own_net:make', options: {width: 4}}"))
    model = build_network(recipe.rows[0], dataset(), seed=0)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    with pytest.raises(UserError, match="widht"):
        build_network(recipe.rows[0].model_copy(update={"options": {"widht": 4}}), dataset(), seed=0)
