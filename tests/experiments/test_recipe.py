from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from noiseopt.errors import UserError
from noiseopt.experiments.noises import Noise
from noiseopt.experiments.recipe import Recipe, bundled, from_run, load, loads
from noiseopt.experiments.rows import Row
from noiseopt.experiments.schema import slug
from noiseopt.train import Training
from tests.experiments.conftest import TINY

DEMO = bundled()["demo"].read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(bundled()))
def test_bundled_recipes_are_read_under_their_name(name: str) -> None:
    recipe = load(bundled()[name])
    assert recipe.name == name
    table = recipe.table.paper
    if table is not None:
        text = (bundled()[name].parents[1] / "paper.yaml").read_text(encoding="utf-8")
        rows = yaml.safe_load(text)[table]["rows"]
        assert {row.label for row in recipe.rows if row.shown} <= set(rows)


@pytest.mark.parametrize("name", ["demo", "table3", "table4", "figure3", "why"])
def test_bundled_recipes_ask_for_what_the_paper_states(name: str) -> None:
    recipe = load(bundled()[name])
    defaults = {"epochs": 30, "batch_size": 128, "optimizer": "adam", "lr": 1e-3, "weight_decay": 1e-4}
    for row in recipe.rows:
        assert defaults.items() <= recipe.training_of(row).model_dump().items()
    if recipe.table.paper is None:
        return
    # The paper's numbers are found by row and column, so every cell must have one.
    paper = yaml.safe_load((bundled()[name].parents[1] / "paper.yaml").read_text(encoding="utf-8"))
    rows = paper[str(recipe.table.paper)]["rows"]
    for row in recipe.rows:
        assert set(rows[row.label]) == {column.key for column in recipe.columns}
    asked = {c.key: c.perturbations for c in recipe.columns if "paper" in recipe.protocols_of(c)}
    assert [p.fingerprint() for p in asked["fgsm"]] == [{"attack": "fgsm", "eps": 0.1, "draws": 1, "seed": 0}]
    (pgd,) = (p.fingerprint() for p in asked["pgd"])
    assert pgd["eps"] == pytest.approx(25 / 255)
    assert pgd["step_size"] == pytest.approx(5 / 255)
    assert (pgd["steps"], pgd["draws"], pgd["random_start"]) == (10, 1, False)
    (lbfgs,) = (p.fingerprint() for p in asked["lbfgs"])
    assert (lbfgs["protocol"], lbfgs["lr"], lbfgs["steps"], lbfgs["draws"]) == ("paper", 0.5, 10, 1)
    for corruption in ("gaussian_noise", "impulse_noise", "glass_blur", "contrast"):
        listed = [p.fingerprint() for p in asked[corruption]]
        assert listed == [{"corruption": corruption, "severity": s} for s in (1, 2, 3, 4, 5)]
    # Beside the paper's protocol, attacks that average over 20 draws.
    for column in recipe.columns:
        if column.protocols == ["strict"] and column.group == "White box":
            assert all(p.fingerprint()["draws"] == 20 for p in column.perturbations)


RESNETS = {
    # fgsm's ε; lbfgs's steps; pgd's ε, step and steps, in pixels of 255
    "table5": ("resnet18", 0.1, 20, (8, 2, 5), {"epochs": 50, "optimizer": "adam", "lr": 1e-3, "weight_decay": 1e-4}),
    "table6": ("resnet34", 2 / 255, 10, (5, 2, 3), {"epochs": 80, "optimizer": "sgd", "momentum": 0.9, "lr": 1e-2,
                                                   "lr_decay": (0.8, 20), "weight_decay": 5e-4}),
}  # fmt: skip


@pytest.mark.parametrize("name", RESNETS)
def test_resnets_are_trained_and_attacked_as_the_paper_states(name: str) -> None:
    model, eps, lbfgs_steps, pgd_pixels, settings = RESNETS[name]
    recipe = load(bundled()[name])
    rows = yaml.safe_load((bundled()[name].parents[1] / "paper.yaml").read_text(encoding="utf-8"))[name[-1]]["rows"]
    assert recipe.table.paper == name[-1]
    assert [row.label for row in recipe.rows] == list(rows)
    assert all(set(numbers) == {column.key for column in recipe.columns} for numbers in rows.values())
    assert recipe.surrogate is not None
    for row in (*recipe.rows, recipe.surrogate):
        assert row.model == model
        assert row.options == ({"head": []} if row is recipe.surrogate else {})
        assert (settings | {"batch_size": 128, "augment": True}).items() <= recipe.training_of(row).model_dump().items()
    assert [(row.noise.where, row.noise.sigma) for row in recipe.rows[1:]] == [
        (where, sigma) for sigma in (1.0, "learned") for where in ("linear", ["layer*.conv2", "hidden*", "output"])
    ]
    assert (recipe.surrogate.seed, recipe.seeds) == (1000, [0, 1, 2])
    asked = {(c.key, p): [x.fingerprint() for x in c.perturbations] for c in recipe.columns for p in c.protocols}
    strict = {key for key, protocol in asked if protocol == "strict"}
    assert strict == {column.key for column in recipe.columns}
    assert asked["fgsm", "paper"] == [{"attack": "fgsm", "eps": pytest.approx(eps), "draws": 1, "seed": 0}]
    (lbfgs,) = asked["lbfgs", "paper"]
    assert (lbfgs["protocol"], lbfgs["lr"], lbfgs["steps"]) == ("paper", 0.05, lbfgs_steps)
    (pgd,) = asked["pgd", "paper"]
    assert (pgd["eps"] * 255, pgd["step_size"] * 255, pgd["steps"]) == pytest.approx(pgd_pixels)
    assert not pgd["random_start"]
    for key in ("fgsm", "lbfgs", "pgd"):
        (found,) = asked[key, "strict"]
        assert found["draws"] == 20
    for corruption in ("gaussian_noise", "impulse_noise", "glass_blur", "contrast"):
        assert asked[corruption, "paper"] == [{"corruption": corruption, "severity": s} for s in (1, 2, 3, 4, 5)]


@pytest.mark.parametrize("name", ["table5", "table6"])
def test_a_small_recipe_has_every_row_and_column_and_no_place_beside_the_paper(name: str) -> None:
    whole, small = (load(bundled()[file]) for file in (name, f"{name}-small"))
    assert [row.label for row in small.rows] == [row.label for row in whole.rows]
    assert [row.noise for row in small.rows] == [row.noise for row in whole.rows]
    assert [(c.key, c.protocols) for c in small.columns] == [(c.key, c.protocols) for c in whole.columns]
    assert small.table.paper is None
    assert small.data.images is not None
    assert all(row.options["width"] == 16 for row in (*small.rows, small.surrogate))
    assert "a quarter of the width" in small.title


def test_a_recipe_may_be_run_on_other_data_under_another_name() -> None:
    table5 = load(bundled()["table5"])
    other = table5.with_data("cifar10-jpeg")
    assert (other.name, other.data.name) == ("table5-cifar10-jpeg", "cifar10-jpeg")
    assert other.title == "ResNet18 on CIFAR-10, on cifar10-jpeg instead"
    assert other.data.model_copy(update={"name": "cifar10"}) == table5.data
    assert from_run(other.as_dict(), place="x") == other
    assert table5.with_data("cifar10") is table5
    with pytest.raises(UserError, match=r"table5 on other data: name must name a data set; got cifar100"):
        table5.with_data("cifar100")


def test_a_recipe_survives_run_json(tiny: Recipe) -> None:
    for recipe in (tiny, *(load(path) for path in bundled().values())):
        written = json.loads(json.dumps(recipe.as_dict(), allow_nan=False))
        again = from_run(written, place="run.json")
        assert again == recipe
        assert all(again.training_of(r) == recipe.training_of(r) for r in recipe.rows if isinstance(r, Row))


def test_the_table_is_laid_out_for_the_report() -> None:
    table = load(bundled()["demo"]).as_dict()["table"]
    assert table["title"] == "MLPs with sigmoid on 5,000 MNIST digits"
    assert table["paper"] == "3"
    assert table["rows"] == ["MLP (sigmoid)", "MLP+ (sigmoid)", "MLPN (sigmoid)"]
    assert len(table["columns"]) == 10  # one for each key, although some are measured under two protocols
    assert table["columns"][3] == {"key": "pgd", "title": "PGD", "group": "White box"}


def test_a_row_trains_as_the_recipe_says_unless_it_says_otherwise() -> None:
    text = TINY.replace("noise: {sigma: 1.0}", "noise: {sigma: 1.0}, training: {epochs: 7}")
    text = text.replace("path: images", "name: mnist-mini")
    recipe = loads(text)
    common = {"batch_size": 8, "lr": 0.01}
    assert recipe.training_of(recipe.rows[0]) == Training(epochs=2, **common)
    assert recipe.training_of(recipe.rows[1]) == Training(epochs=7, **common)
    assert recipe.surrogate is not None
    assert recipe.training_of(recipe.surrogate) == Training(epochs=1, **common)


def test_a_path_is_relative_to_the_recipe(tiny: Recipe, tiny_file: Path) -> None:
    assert tiny.data.path == str((tiny_file.parent / "images").resolve())


def test_another_seed_has_a_folder_of_its_own(tiny: Recipe) -> None:
    assert tiny.with_seed(0) is tiny
    other = tiny.with_seed(7)
    assert (other.name, other.seeds) == ("tiny-seed7", [7])
    assert from_run(other.as_dict(), place="x") == other
    with pytest.raises(UserError, match="seed"):
        tiny.with_seed(-1)


def test_folders_tell_rows_apart() -> None:
    assert [slug(x) for x in ("MLP (sigmoid)", "MLP+ (sigmoid)", "  ResNet18-A+ ")] == [
        "mlp-sigmoid",
        "mlp-plus-sigmoid",
        "resnet18-a-plus",
    ]


# Each: what is replaced in demo.yaml, by what, and the error: place, rule, value and fix.
WRONG = [
    ("epochs: 30", "epoch: 30", r"demo:6: training\.epoch is not a known key; fix: did you mean 'epochs'\?"),
    ("epochs: 30", "epochs: -1", r"demo:6: training\.epochs must be greater than or equal to 0; got -1"),
    ("epochs: 30", "epochs: yes", r"demo:6: training\.epochs must not be true or false; got True"),
    ("epochs: 30", "epochs: lots", r"demo:6: training\.epochs must be a valid integer; got lots"),
    ("epochs: 30", "epochs:", r"demo:6: training\.epochs must be a valid integer; got nothing"),
    ("lr: 1e-3", "lr: .nan", r"training\.lr must be a finite number; got nan"),
    ("lr: 1e-3", "lr: 1e999", r"training\.lr must be a finite number; got inf"),
    ("sigma: 1.0", "sigma: -1", r"rows\[1\]\.noise\.sigma must be learned or a number above 0; got -1"),
    ("sigma: 1.0", "sigma: lerned", r"rows\[1\]\.noise\.sigma must be learned or a number above 0; got lerned"),
    ("sigma: 1.0", "sigma: .nan", r"rows\[1\]\.noise\.sigma must be .*; got nan"),
    ("sigma: 1.0", "where: []", r"rows\[1\]\.noise\.where must be all, linear, conv or a list"),
    ("noise: {sigma: 1.0}", "noise: true", r"rows\[1\]\.noise must be a mapping .*; got True"),
    ("eps: 0.1}", "epz: 0.1}", r"columns\[1\]\.perturbations\[0\]\.epz is not a known key; fix: did you mean 'eps'\?"),
    (
        "eps: 0.1}",
        "eps: 26}",
        r"columns\[1\]\.perturbations\[0\] is refused: eps must be at most 1; got 26; fix: .*/255",
    ),
    ("eps: 0.1}", "eps: .nan}", r"columns\[1\]\.perturbations\[0\]\.eps must be finite; got nan"),
    ("activation: sig", "hidden: [8, .inf], activation: sig", r"options\.hidden\[1\] must be finite; got inf"),
    ("eps: 0.1}", "draws: 2}", r"columns\[1\]\.perturbations\[0\] needs the setting eps; fix: add eps"),
    ("attack: pgd", "attack: pdg", r"columns\[3\].* must name an attack; got pdg; fix: did you mean 'pgd'\?"),
    ("attack: pgd", "atack: pgd", r"columns\[3\].*\.atack is not a known key; fix: did you mean 'attack'\?"),
    ("{transfer: {attack: fgsm", "{transfer: {attack: fgms", r"transfer must name an attack; got fgms"),
    (
        "severity: [1, 2, 3,",
        "severity: [1, 2, 6,",
        r"columns\[7\]\.perturbations\[2\]\.severity must be less than or equal to 5; got 6",
    ),
    ("severity: [1, 2, 3, 4, 5]", "severity: 2.5", r"severity must be a valid integer; got 2\.5"),
    (
        "corruption: contrast",
        "corruption: contrst",
        r"must name a corruption; got contrst; fix: did you mean 'contrast'",
    ),
    ("corruption: contrast", "coruption: contrast", r"coruption is not a known key; fix: did you mean 'corruption'\?"),
    ("perturbations: [clean]", "perturbations: [clear]", r"must be clean, or begin with attack:, .*; got clear"),
    ("perturbations: [clean]", "perturbations: []", r"columns\[0\]\.perturbations must have at least 1 entries"),
    ("mnist-mini", "mnist-mimi", r"demo:5: data\.name must name a data set; got mnist-mimi; .*'mnist-mini'\?"),
    ("name: mnist-mini", "name: mnist, path: x", r"data needs either name or path"),
    ("split: [5, 1, 1]", "split: [5, 1]", r"data\.split must have at least 3 entries; got \[5, 1\]"),
    ("split: [5, 1, 1]", "split: [5, 1, 0]", r"data\.split\[2\] must be greater than 0; got 0"),
    ("model: mlp,", "model: mpl,", r"rows\[0\]\.model must name a model .*; got mpl; fix: did you mean 'mlp'\?"),
    ("activation: sig", "activaton: sig", r"rows\[0\]\.options\.activaton is not .* did you mean 'activation'\?"),
    ("label: MLP+", "label: MLP", r"rows\[1\]\.label is the same as entry 0"),
    ("label: MLP+ (sigmoid)", "label: surrogate", r"rows\[1\]\.label must hold a letter .* not be surrogate"),
    ("key: pgd", "key: fgsm", r"demo:27: columns\[3\]\.key is measured twice under the protocol paper; got fgsm"),
    ("surrogate: {", "surogate: {", r"surogate is not a known key; fix: did you mean 'surrogate'\?"),
    ("surrogate: {model", "surrogate: {modle", r"surrogate\.modle is not a known key; fix: did you mean 'model'\?"),
    ("noise: [on, off]", "noise: [on, on]", r"evaluation\.noise\[1\] is the same as entry 0"),
    ("draws: 1}", "draws: 0}", r"evaluation\.paper\.draws must be greater than or equal to 1; got 0"),
    ("protocols: [paper, strict]", "protocols: [paper, strickt]", r"protocols\[1\] must be .*; got strickt"),
    ("init: published", "objective: entropi", r"noise\.objective\.objective must name an objective .*'entropy'\?"),
    ("init: published", "objective: {objective: entropy, prise: 1}", r"objective\.prise is not .* mean 'price'\?"),
    ("init: published", "objective: {objective: budget, mean_square: 0}", r"mean_square must be above 0; got 0"),
    ("sigma: 1.0", "sigma: 1.0, objective: entropy", r"rows\[1\]\.noise\.objective is of learned noise; got entropy"),
    ("init: published", "objective: adversarial", r"noise\.objective is refused: .*'examples'"),
    ("label: MLP+", "adversary: {attack: fgms, eps: 1}, label: MLP+", r"adversary.* must name an attack; got fgms"),
    ("seeds: [0]", "seeds: [0, 0]", r"seeds\[1\] is the same as entry 0"),
    ("seeds: [0]", "seeds: [-1]", r"seeds\[0\] must be greater than or equal to 0; got -1"),
    ("seeds: [0]", "seeds: 3", r"seeds must be a valid list; got 3"),
    ('paper: "3"', "paper: 2", r"table\.paper must be '3', '4', '5', '6' or 'ulicny-2'"),
    ("name: demo", "name: ../demo", r"demo:3: name must be of letters, .*; got \.\./demo"),
    ("name: demo", "nome: demo", r"nome is not a known key; fix: did you mean 'name'\?"),
    ("seeds: [0]", "seeds: [0]\nprotocol: published", r"protocol must be 'paper' or 'strict'; got published"),
]


@pytest.mark.parametrize(("old", "new", "error"), WRONG, ids=[new for _, new, _ in WRONG])
def test_a_slip_is_named_with_place_rule_value_and_fix(old: str, new: str, error: str) -> None:
    assert old in DEMO
    with pytest.raises(UserError, match=error) as raised:
        loads(DEMO.replace(old, new, 1), place="demo")
    assert "\n" not in str(raised.value)
    assert "; fix: " in str(raised.value)


def test_a_transfer_needs_a_surrogate(changed: Callable[..., Recipe]) -> None:
    with pytest.raises(UserError, match=r"columns\[3\]\.perturbations transfers from a surrogate.*add surrogate"):
        changed(("surrogate: {model: mlp, options: {hidden: [6]}, training: {epochs: 1}}", ""))


@pytest.mark.parametrize("values", [None, [], "x", 3, {}])
def test_what_is_no_recipe_at_all_is_refused(values: Any) -> None:
    with pytest.raises(UserError):
        loads(json.dumps(values))


def test_the_example_recipe_is_one() -> None:
    recipe = load(Path(__file__).parents[2] / "examples" / "recipe.yaml")
    assert recipe.name == "example"
    # It explains every key of the parts that most recipes need.
    text = (Path(__file__).parents[2] / "examples" / "recipe.yaml").read_text(encoding="utf-8")
    for part in (Recipe, type(recipe.data), Noise, type(recipe.evaluation), type(recipe.curves), Training):
        for key in part.model_fields:
            if key not in ("figures", "protocol", "task", "momentum"):
                assert re.search(rf"\b{key}\b", text), f"{part.__name__}.{key}"


def test_a_folder_under_name_is_sent_to_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imgs").mkdir()
    with pytest.raises(UserError, match="write path: imgs"):
        loads(DEMO.replace("name: mnist-mini", "name: imgs"))
