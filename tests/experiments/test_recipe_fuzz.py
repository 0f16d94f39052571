"""Whatever a recipe file holds, it is a recipe or a UserError of one line: never another exception, never a hang."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from noiseopt.errors import UserError
from noiseopt.experiments.recipe import Recipe, bundled, from_dict, load, loads

DEMO = bundled()["demo"].read_text(encoding="utf-8")
VALUES = yaml.safe_load(DEMO)
HOSTILE: list[Any] = [None, True, -1, 0, 2.5, float("nan"), float("inf"), 10**400, "", "x" * 10_000, [], {}, [[]]]
HOSTILE += [{"a": 1}, {1: 2}, b"bytes", "1/0", "\ud800", [None], {"attack": None}, {"transfer": {"transfer": 1}}]


def outcome(read: Any) -> Recipe | str:
    try:
        recipe = read()
    except UserError as error:
        message = str(error)
    else:
        assert isinstance(recipe, Recipe)
        recipe.as_dict()
        return recipe
    assert "\n" not in message
    assert len(message) < 2000
    return message


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in the plain values; of a list, the first four entries."""
    yield at
    pairs = value.items() if isinstance(value, dict) else enumerate(value[:4]) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from places(inner, (*at, key))


def put(values: Any, at: tuple[Any, ...], new: Any) -> Any:
    values = copy.deepcopy(values)
    inner = values
    for step in at[:-1]:
        inner = inner[step]
    inner[at[-1]] = new
    return values


PLACES = [at for at in places(VALUES) if at]


@pytest.mark.parametrize("hostile", HOSTILE, ids=[repr(h)[:20] for h in HOSTILE])
def test_any_value_at_any_place(hostile: Any) -> None:
    assert len(PLACES) > 60
    for at in PLACES:
        outcome(lambda at=at: from_dict(put(VALUES, at, hostile), place="recipe"))


def test_a_misspelt_key_at_any_place_is_named() -> None:
    for at in PLACES:
        if isinstance(at[-1], str) and "options" not in at[:-1]:
            values = copy.deepcopy(VALUES)
            inner = values
            for step in at[:-1]:
                inner = inner[step]
            inner[at[-1] + "x"] = inner.pop(at[-1])
            message = outcome(lambda values=values: from_dict(values, place="recipe"))
            assert f"{at[-1]}x is not a known key" in str(message)
            assert f"did you mean '{at[-1]}'?" in str(message)


def test_a_file_cut_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "cut.yaml"
    for end in range(0, len(DEMO), 61):
        path.write_text(DEMO[:end], encoding="utf-8")
        outcome(lambda: load(path))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_bytes_changed_anywhere(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    raw = bytearray(DEMO.encode())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"*a", b"&a ", b"!!int ", b"[", b"{", b": "])
        )
    path = tmp_path_factory.getbasetemp() / "changed.yaml"
    path.write_bytes(bytes(raw))
    outcome(lambda: load(path))


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_text(text: str) -> None:
    assert isinstance(outcome(lambda: loads(text)), str)
