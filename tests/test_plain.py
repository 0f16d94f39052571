"""Anything as plain values: alike for what is alike, another for what does something else."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from noiseopt import inject
from noiseopt.noise import ZOO, SigmaObjective
from noiseopt.plain import parts_of, plain, tensor_digest


class Colour(Enum):
    RED, BLUE = 1, 2


class Slotted:
    __slots__ = ("eps",)

    def __init__(self, eps: float) -> None:
        self.eps = eps


class Attack:
    def __init__(self, eps: float) -> None:
        self.eps, self._calls = eps, 0

    def __call__(self, images: Any) -> Any:
        return images

    def method(self) -> None: ...


@dataclass(frozen=True)
class Priced:
    price: float


class Objective(SigmaObjective):
    name = "own"

    def __init__(self, price: float) -> None:
        self.price = price


def closing(eps: float) -> Callable[[], float]:
    return lambda: eps


def default(eps: float = 0.1) -> float:
    return eps


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (True, 1.5),
        ([1, 2], [2, 1]),
        ({"a": 1}, {"a": 2}),
        ({1, 2}, {1, 3}),
        (list(range(1000)), list(range(1, 1001))),
        (range(3), range(4)),
        (deque([1]), deque([2])),
        (b"a", b"b"),
        (1j, 2j),
        (Path("a"), Path("b")),
        (Colour.RED, Colour.BLUE),
        (torch.float32, torch.float16),
        (torch.zeros(3), torch.ones(3)),
        (torch.zeros(3), torch.zeros(3, 1)),
        (torch.zeros(3).bfloat16(), torch.ones(3).bfloat16()),
        (torch.zeros(2, dtype=torch.bool), torch.ones(2, dtype=torch.bool)),
        (torch.tensor([1j]), torch.tensor([1j]).conj()),
        (torch.eye(2).to_sparse(), torch.ones(2, 2).to_sparse()),
        (torch.empty(2, device="meta"), torch.empty(3, device="meta")),
        (np.zeros(3), np.ones(3)),
        (np.float32(0.1), np.float32(0.2)),
        (np.complex64(1j), np.complex64(2j)),
        (partial(max, 1), partial(max, 2)),
        (partial(default, eps=0.1), partial(default, eps=0.2)),
        (closing(0.1), closing(0.2)),
        (default, closing(0.1)),
        (Attack(0.1), Attack(0.2)),
        (Attack(0.1).method, Attack(0.2).method),
        (Slotted(0.1), Slotted(0.2)),
        (Priced(0.1), Priced(0.2)),
        (Objective(0.1), Objective(0.2)),
        (nn.ReLU(), nn.Tanh()),
    ],
)
def test_what_differs_is_told_apart_and_what_is_alike_is_not(one: Any, other: Any) -> None:
    said = [json.dumps(plain(value)) for value in (one, one, other)]
    assert said[0] == said[1] != said[2]
    assert max(map(len, said)) < 500


def test_defaults_are_part_of_a_function() -> None:
    before = plain(default)
    default.__defaults__ = (0.3,)  # type: ignore[attr-defined]
    try:
        assert plain(default) != before
    finally:
        default.__defaults__ = (0.1,)  # type: ignore[attr-defined]


def test_state_and_what_belongs_to_others_is_no_setting() -> None:
    attack = Attack(0.1)
    attack.log = logging.getLogger("noiseopt.a.test")  # type: ignore[attr-defined]
    before = plain(attack)
    attack._calls += 1
    logging.getLogger("noiseopt.a.test.deeper").setLevel(10)
    assert plain(attack) == before


def test_what_holds_itself_ends() -> None:
    attack = Attack(0.1)
    attack.me = attack  # type: ignore[attr-defined]
    assert json.dumps(plain(attack))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x, max_size=3)))
def test_plain_values_of_no_great_depth_stay(value: Any) -> None:
    assert json.loads(json.dumps(plain([value]))) == plain([value])
    assert plain(value) == (value if _depth(value) <= 4 else plain(value))


def _depth(value: Any) -> int:
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def test_tensors_that_are_not_there_yet_have_a_kind() -> None:
    assert tensor_digest(nn.LazyLinear(3).weight) == "torch.float32 lazy"


@pytest.mark.parametrize("kind", sorted(ZOO))
def test_a_network_is_the_same_whatever_it_has_learned(kind: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 8), nn.ReLU(), nn.Linear(8, 3))
    noisy = ZOO[kind](net, example_input=torch.rand(2, 1, 8, 8))
    before = parts_of(noisy)
    with torch.no_grad():
        for parameter in noisy.parameters():
            parameter += 0.3 if parameter.requires_grad else 0
    assert parts_of(noisy) == before


def test_a_network_is_another_where_it_was_set_otherwise() -> None:
    images = torch.rand(2, 1, 8, 8)

    def made(stride: int = 1, dropout: float = 0.1, **noise: Any) -> dict[str, str]:
        net = nn.Sequential(nn.Conv2d(1, 2, 3, stride=stride), nn.Dropout(dropout))
        return parts_of(inject(net, example_input=images, **(noise or {"sigma": 1.0})))

    several = [made(), made(stride=2), made(dropout=0.2), made(sigma=2.0), made(init=1.0)]
    assert all(one != other for i, one in enumerate(several) for other in several[:i])
    assert made(init=1.0) == made(init=0.5)  # learned: where it starts is no part of what it is
