from __future__ import annotations

import torch
from torch import Tensor, nn

from noiseopt.corruptions import Corruption
from noiseopt.evaluate import describe, evaluate
from noiseopt.experiments.planning import plan
from noiseopt.experiments.recipe import Recipe
from noiseopt.experiments.shared import Remembered, Workbench
from tests.experiments.test_cells import dataset, parts


class Counting:
    name = "counting"

    def __init__(self) -> None:
        self.calls = 0

    def parameters(self) -> dict[str, int]:
        return {"depth": 3}

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, *, samples: Tensor | None = None) -> Tensor:
        self.calls += 1
        return 1 - images


def test_images_are_made_once_for_all_models() -> None:
    counting = Counting()
    remembered = Remembered(counting)
    images, labels = torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64)
    for _ in range(3):
        for ids in (torch.arange(4), torch.arange(4, 8)):
            assert torch.equal(remembered(nn.Identity(), images, labels, samples=ids), 1 - images)
    assert counting.calls == 2  # one for each batch
    assert describe(remembered) == ("counting", {"depth": 3})


def test_a_record_is_the_same_as_without_the_memory() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    corruption = Corruption("gaussian_noise", severity=5, seed=3)
    records = [evaluate(model, dataset(), p, batch_size=7) for p in (corruption, Remembered(corruption))]
    assert records[0] == records[1]


def test_white_box_attacks_are_never_shared(tiny: Recipe) -> None:
    bench, surrogate = Workbench(), nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    data = parts()
    seen: dict[str, list[object]] = {}
    for cell in plan(tiny, data, device=torch.device("cpu")).measurements:
        made = bench.perturbation(cell, nn.Identity(), data.test, surrogate if cell.surrogate else None, seed=0)
        seen.setdefault(cell.perturbation.title, []).append(made)
    assert not any(isinstance(p, Remembered) for p in seen["PGD"])
    for title in ("clean", "contrast 3", "contrast 5", "transfer FGSM"):
        assert isinstance(seen[title][0], Remembered)
        assert len({id(p) for p in seen[title]}) == 1
