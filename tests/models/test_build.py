"""A model from its name or an import path: seeded, and with errors that name the way out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from noiseopt.errors import UserError
from noiseopt.models import MODELS, build, load_external

EXTERNAL = """
import torch

class Net(torch.nn.Linear):
    pass

def make(*, width=4, **rest):
    return torch.nn.Sequential(torch.nn.Flatten(), Net(width, 2))

def needs(size):
    return Net(size, 2)

def broken():
    raise RuntimeError("no weights found")

def number():
    return 5

constant = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with modules of the user's own; forgotten again afterwards."""
    (tmp_path / "own_nets.py").write_text(EXTERNAL)
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").write_text("")
    (tmp_path / "own_package" / "deep.py").write_text(EXTERNAL)
    (tmp_path / "own_needy.py").write_text("import a_module_that_nobody_has\n")
    (tmp_path / "own_faulty.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [n for n in sys.modules if n.startswith("own_")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_a_function_of_the_seed(name: str) -> None:
    one, same, other = build(name, seed=3), build(name, seed=3), build(name, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    # Biases and the scales of batch normalisation may start as constants.
    pairs = [(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True) if a.dim() > 1]
    assert pairs
    assert not any(torch.equal(a, b) for a, b in pairs)


def test_building_leaves_the_global_generator_alone(folder: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(4)
    torch.manual_seed(7)
    build("mlp", seed=1)
    load_external("own_nets:make")
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mpl", {}, "did you mean mlp"),
        ("transformer", {}, "mlp, cnn, surrogate_mlp"),
        ("mlp", {"activaton": "relu"}, "did you mean activation"),
        ("cnn", {"hidden": (3,)}, "no option of this name"),
    ],
)
def test_unknown_names_and_options_come_with_the_nearest(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(name, seed=0, **options)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, True, "0"])
def test_a_seed_is_a_63_bit_integer(seed: object) -> None:
    with pytest.raises(UserError, match="seed"):
        build("mlp", seed=seed)  # type: ignore[arg-type]


def test_own_models_by_import_path(folder: Path) -> None:
    net = build("own_package.deep:make", seed=5, width=9)
    assert net(torch.rand(2, 1, 3, 3)).shape == (2, 2)
    again = load_external("own_package.deep:make", seed=5, width=9)
    assert torch.equal(net[1].weight, again[1].weight)
    assert build("own_nets:Net", seed=0, in_features=2, out_features=1)(torch.rand(1, 2)).shape == (1, 1)


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("own_net:make", {}, "no module own_net .*run from the folder"),
        ("own_package.missing:make", {}, "no module own_package.missing"),
        ("own_nets.make:make", {}, "no module own_nets.make"),
        ("own_nets:mak", {}, "did you mean make"),
        ("own_nets:constant", {}, "no function"),
        ("own_nets:number", {}, "must return a torch.nn.Module"),
        ("own_nets:broken", {}, "RuntimeError: no weights found"),
        ("own_nets:needs", {}, "requires the option size"),
        ("own_nets:needs", {"size": 2, "sizes": 3}, "did you mean size"),
        ("own_needy:make", {}, "a_module_that_nobody_has.*fix: install a_module_that_nobody_has"),
        ("own_faulty:make", {}, "ZeroDivisionError"),
        ("own_nets:", {}, "package.module:function"),
        (":make", {}, "package.module:function"),
        ("own_nets:a.b", {}, "package.module:function"),
        ("..:make", {}, "could not be imported"),
    ],
)
def test_what_can_go_wrong_with_an_own_model(folder: Path, path: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_external(path, **options)
