"""What there is to say about a network's noise is said once, as a note of the run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from noiseopt.errors import NoiseWarning
from noiseopt.experiments.events import Note
from noiseopt.experiments.recipe import Recipe
from noiseopt.experiments.warned import noise_warnings
from tests.experiments.running import run


def both() -> None:
    warnings.warn("hidden", NoiseWarning, stacklevel=1)
    warnings.warn("old", DeprecationWarning, stacklevel=1)


@pytest.mark.parametrize("listens", [True, False])
def test_others_go_their_way(listens: bool) -> None:
    said: list[str] = []
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        with noise_warnings(said.append if listens else None):
            both()
    assert said == ["hidden"] * listens
    assert [str(warning.message) for warning in found] == ["old"]


def test_a_network_with_randomness_of_its_own_is_named_once(
    changed: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "restless_net.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))\n"
        "    def forward(self, x):\n        return nn.functional.dropout(self.net(x), 0.5, training=True)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    recipe = changed(("model: mlp, options: {hidden: [8]}}", "model: 'restless_net:Net'}"))
    _, events = run(recipe, tmp_path / "runs")
    notes = [event.text for event in events if isinstance(event, Note)]
    assert sum("MLP, seed 0: two passes of this model differ" in note for note in notes) == 1
    assert len(notes) == 1
