"""What a row may say of its noise and of its adversary, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from noiseopt.attacks import PGD
from noiseopt.errors import UserError
from noiseopt.experiments.perturbations import OfAttack
from noiseopt.experiments.planning import build_network, divided, plan, training_arguments
from noiseopt.experiments.recipe import Recipe, from_run, load, loads
from noiseopt.experiments.rows import Row
from noiseopt.experiments.run import Runner
from noiseopt.noise import ZOO, sigmas
from noiseopt.noise.objective import Bilevel, Entropy, WeightCovariance
from noiseopt.paired import TRADES, DivergencePGD, Mixed
from tests.experiments.conftest import write_images

ROWS = {
    "levels": "noise: {sigma: [3, 1/2]}",
    "named": "noise: {sigma: {output: 0.5}, per: layer}",
    "pni": "noise: {kind: pni, alpha: 0.1}, adversary: {attack: fgsm, eps: 0.1, loss: mixed, share: 0.25}",
    "trades": "adversary: {attack: pgd, eps: 0.1, step_size: 0.05, steps: 2, loss: trades, beta: 3}",
    "random": "adversary: {attack: pgd, eps: 25/255, step_size: 31/255, steps: 1}",
    "wca": "noise: {kind: wca, rank: 2}",
    "bilevel": "noise: {objective: {objective: bilevel, examples: {attack: fgsm, eps: 0.1}, held_out: 0.5}}",
    "rse": "noise: {kind: rse, where: linear}",
}


def text(rows: dict[str, str], **more: str) -> str:
    lines = [f"  - {{label: {label}, model: mlp, options: {{hidden: [8]}}, {rest}}}" for label, rest in rows.items()]
    extra = "".join(f"{key}: {value}\n" for key, value in more.items())
    return (
        "name: zoo\ndata: {path: images, split: [4, 1, 1], split_seed: 0}\n"
        "training: {steps: 6, batch_size: 8, lr: 1e-2}\nrows:\n" + "\n".join(lines) + "\n"
        "columns:\n  - {key: clean, perturbations: [clean]}\n"
        "  - {key: pgd, perturbations: [{attack: pgd, eps: 0.1, step_size: 0.05, steps: 2, draws: 3}]}\n" + extra
    )


def row(rest: str) -> Row:
    (made,) = loads(text({"net": rest})).rows
    assert isinstance(made, Row)
    return made


def test_all_of_it_is_trained_and_measured_once(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    path = tmp_path / "zoo.yaml"
    path.write_text(text(ROWS, evaluation="{paper: {draws: 3}}"), encoding="utf-8")
    outcome = Runner(load(path), runs_dir=tmp_path / "runs").run()
    assert not outcome.failures
    assert outcome.trained == len(ROWS)
    again = Runner(load(path), runs_dir=tmp_path / "runs").run()
    assert (again.trained, again.measured) == (0, 0)
    recipe = load(path)
    same: Recipe = from_run(recipe.as_dict(), place="run.json")
    assert same.rows == recipe.rows
    from noiseopt.data import load as load_data

    pool = load_data(tmp_path / "images")
    hashes = [
        [cell.hash for cell in plan(r, divided(pool, r.data), device=torch.device("cpu")).trainings]
        for r in (recipe, same)
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes[0])) == len(ROWS)
    networks = {
        r.label: build_network(r, divided(pool, recipe.data).train, seed=0) for r in recipe.rows if isinstance(r, Row)
    }
    levels = {label: [s.detach().flatten()[0].item() for s in sigmas(net).values()] for label, net in networks.items()}
    assert levels["levels"] == [3, 0.5]
    assert levels["named"] == [0.5]
    assert levels["rse"] == pytest.approx([0.2, 0.1])
    assert levels["random"] == []


def test_a_row_says_what_it_is_trained_by() -> None:
    mixed = training_arguments(row(ROWS["pni"]))
    assert mixed["paired"] == Mixed(share=0.25)
    trades = training_arguments(row(ROWS["trades"]))
    assert trades["paired"] == TRADES(beta=3)
    assert trades["perturbation"] == DivergencePGD(eps=0.1, step_size=0.05, steps=2)
    random = training_arguments(row(ROWS["random"]))
    assert random["paired"] is None
    assert random["perturbation"] == PGD(eps=25 / 255, step_size=31 / 255, steps=1)
    assert isinstance(training_arguments(row(ROWS["wca"]))["objective"], WeightCovariance)
    weaker = "noise: {kind: wca, objective: {objective: wca, weight: 0.1}}"
    assert training_arguments(row(weaker))["objective"].weight == 0.1
    pixels = training_arguments(row("noise: {kind: pixels}"))["objective"]
    assert isinstance(pixels, Entropy)
    assert pixels.price == 0.3
    cheap = "noise: {kind: pixels, objective: {objective: entropy, price: 0.1}}"
    assert training_arguments(row(cheap))["objective"].price == 0.1
    bilevel = training_arguments(row(ROWS["bilevel"]))["objective"]
    assert isinstance(bilevel, Bilevel)
    assert bilevel.trained_on(10) == 5


def test_an_adversary_without_a_loss_has_the_fingerprint_that_it_always_had() -> None:
    adversary: Any = row("adversary: {attack: fgsm, eps: 0.1}").adversary
    assert adversary.fingerprint() == {"attack": "fgsm", "eps": 0.1, "draws": 1, "seed": 0}
    paired: Any = row("adversary: {attack: fgsm, eps: 0.1, loss: trades}").adversary
    assert paired.fingerprint() == {**adversary.fingerprint(), "loss": {"name": "trades", "beta": 6.0}}


def test_an_attack_has_the_seed_that_it_is_given_or_the_recipes_own() -> None:
    made: Any = OfAttack(attack="pgd", eps=0.1, step_size=0.1, steps=1)
    assert made.build(surrogate=None, seed=7).seed == 7
    assert made.fingerprint()["seed"] == 0
    own: Any = OfAttack(attack="pgd", eps=0.1, step_size=0.1, steps=1, seed=3)
    assert own.build(surrogate=None, seed=7).seed == 3


def test_all_settings_of_a_kind_are_written_out() -> None:
    noise: Any = row("noise: {kind: pni}").noise
    assert noise.model_dump(exclude_none=True) == {
        "kind": "pni",
        "where": "all",
        "alpha": 0.25,
        "objective": {"objective": "loss"},
    }
    assert {kind for kind in ZOO if row(f"noise: {{kind: {kind}}}").noise} == set(ZOO)


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("noise: {sigma: []}", "a number of at least 0 for each layer"),
        ("noise: {sigma: [1, -1]}", "a number of at least 0 for each layer"),
        ("noise: {sigma: {output: much}}", "a number of at least 0 for each layer"),
        ("noise: {sigma: [3, 1], objective: entropy}", "is of learned noise"),
        ("noise: {objective: wca}", "write kind: wca"),
        ("noise: {kind: pni, objective: entropy}", "no part in how pni is trained"),
        ("noise: {kind: smoothing, objective: information}", "no part in how smoothing is trained"),
        ("noise: {kind: wca, objective: learn2perturb}", "no part in how wca is trained"),
        ("noise: {kind: pnl}", "did you mean 'pni'"),
        ("noise: {kind: pni, alfa: 1}", "did you mean 'alpha'"),
        ("noise: {kind: 3}", "noise"),
        ("noise: {kind: pixels, init: .inf}", r"noise\.init must be finite; got inf"),
        ("noise: {objective: {objective: information, to: all}}", "to must be 'sigma' or 'both'"),
        ("adversary: {attack: fgsm, eps: 0.1, loss: trade}", "did you mean 'trades'"),
        ("adversary: {attack: fgsm, eps: 0.1, loss: trades, beta: -1}", "beta must be at least 0"),
        ("adversary: {attack: fgsm, eps: 0.1, loss: trades, share: 0.5}", "share is not a known key"),
        ("adversary: {attack: fgsm, eps: 0.1, beta: 6}", "beta is not a known key"),
        ("adversary: {attack: pgd, eps: 0.1, step_size: 1, steps: 1, random_start: true, loss: trades}", "settled"),
    ],
)
def test_what_is_wrong_is_said_when_the_recipe_is_read(rest: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        loads(text({"net": rest}))
