"""What an audit and a certificate refuse to look at; each says what to pass instead."""

from __future__ import annotations

import importlib
import linecache
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from noiseopt import Auditing, Certifying, UserError, audit, certify, inject
from noiseopt.given import given, hash_of_images, hash_of_model
from noiseopt.noise import ZOO

IMAGES, LABELS = torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.zeros(6).long()
SIGMA = Certifying(sigma=0.1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 4))


@pytest.mark.parametrize("look", [lambda m, d: audit(m, d, Auditing(eps=0.1)), lambda m, d: certify(m, d, SIGMA)])
@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES * torch.nan, LABELS, r"must be in \[0, 1\]"),
        (IMAGES * 255, LABELS, r"must be in \[0, 1\]"),
        (IMAGES[:, :, 1:], LABELS, "model must take images"),
        (IMAGES.double(), LABELS, "model must take images"),
        (IMAGES, LABELS[:3], "one for each image"),
        (IMAGES, LABELS[:, None], "one for each image"),
        (IMAGES, LABELS.float(), "must be int64"),
        (IMAGES, LABELS + 4, r"classes of the model.*4 to 4"),
        (IMAGES, LABELS - 1, "classes of the model"),
        (IMAGES.numpy(), LABELS, "must be a tensor"),
        (IMAGES[:0], LABELS[:0], "at least one image"),
    ],
)
def test_what_does_not_fit_is_said_before_the_first_attack(
    look: Callable[..., Any], images: Tensor, labels: Tensor, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        look(network(), (images, labels))


def test_what_is_no_model_or_no_pair_is_refused() -> None:
    with pytest.raises(UserError, match=r"must be an nn\.Module; got str"):
        given("model", (IMAGES, LABELS))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"must be a Dataset, or images with their labels; got Tensor"):
        given(network(), IMAGES)  # type: ignore[arg-type]


def test_bytes_are_pixels_and_images_are_counted() -> None:
    images, labels, ids = given(network(), ((255 * IMAGES).to(torch.uint8), LABELS))
    assert 0.5 < images.max() <= 1
    assert torch.equal(labels, LABELS)
    assert ids.tolist() == list(range(6))


def test_hashes_are_of_the_users_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    seen = []
    for temperature in (2, 2, 30):  # a file that somebody edits
        text = "from torch import nn\n\nclass Net(nn.Module):\n    def forward(self, x):\n"
        (tmp_path / "users_net.py").write_text(f"{text}        return x / {temperature}\n")
        sys.modules.pop("users_net", None)
        importlib.invalidate_caches()
        linecache.clearcache()
        net = importlib.import_module("users_net").Net()
        seen.append((str(net), hash_of_model(net)))
    assert len({printed for printed, _ in seen}) == 1
    assert seen[0] == seen[1] != seen[2]


def test_hashes_are_of_what_a_module_keeps_besides_tensors() -> None:
    class Quantized(nn.Module):
        def __init__(self, levels: object, mean: float = 0.5) -> None:
            super().__init__()
            self.levels, self.net = levels, network()
            self.register_buffer("mean", torch.tensor(mean), persistent=False)

    kept = [2, 255, "2", (2, 255), {"a": torch.ones(2)}, {"a": torch.zeros(2)}, partial(max, 1), partial(max, 2), max]
    nets = [*map(Quantized, kept), Quantized(2, mean=0.9)]
    hashes = [hash_of_model(net) for net in nets]
    assert len(set(hashes)) == len(nets)
    assert hash_of_model(Quantized(2)) == hash_of_model(Quantized(2).eval()) == hashes[0]


def test_hashes_stay_when_noise_was_drawn() -> None:
    net = inject(network(), example_input=IMAGES, sigma=0.2)
    before = hash_of_model(net)
    net(IMAGES)
    assert hash_of_model(net) == before


def test_hashes_are_of_where_the_noise_takes_hold() -> None:
    noisy = inject(network(), example_input=IMAGES, where="linear", sigma=0.2)
    before = ZOO["rse"](network(), example_input=IMAGES, where="linear", first=0.2, inner=0.2)
    assert str(noisy) == str(inject(network(), example_input=IMAGES, where="linear", sigma=0.2))
    assert hash_of_model(noisy) == hash_of_model(inject(network(), example_input=IMAGES, where="linear", sigma=0.2))
    assert hash_of_model(noisy) != hash_of_model(before)


def test_hashes_are_of_all_that_counts() -> None:
    net, other = network(), network()
    assert hash_of_model(net) == hash_of_model(other)
    with torch.no_grad():
        other[1].bias[0] += 1  # type: ignore[index]
    assert hash_of_model(net) != hash_of_model(other) != hash_of_model(nn.Sequential(*other, nn.ReLU()))  # type: ignore[misc]
    hashes = {hash_of_images(*data) for data in ((IMAGES, LABELS), (IMAGES, LABELS + 1), (IMAGES.flip(0), LABELS))}
    assert len(hashes) == 3
