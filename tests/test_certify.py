from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from noiseopt import Certifying, UserError, certify, inject
from noiseopt.certify import ABSTAIN, input_noise, radius_of, with_noise_in_front
from noiseopt.defences import low_pass

SIGMA = 0.3


class Half(nn.Module):
    """Class 1 where the mean of the image is above a threshold: its smoothed version is known exactly."""

    def forward(self, images: Tensor) -> Tensor:
        mean = images.flatten(1).mean(dim=1) - 0.5
        return torch.stack([-mean, mean, torch.full_like(mean, -9.0)], dim=1)


def at_distance(distance: float, count: int = 20) -> tuple[Tensor, Tensor]:
    """Grey 4×4 images whose L2 distance from the boundary of `Half` is `distance`, and their class."""
    level = 0.5 + distance / math.sqrt(16)
    return torch.full((count, 1, 4, 4), level), torch.full((count,), int(distance > 0))


@pytest.mark.parametrize("distance", [-0.4, 0.1, 0.5])
def test_the_radius_of_a_half_space_is_the_distance_from_it(distance: float) -> None:
    settings = Certifying(sigma=SIGMA, draws=3000, seed=1)
    found = certify(Half(), at_distance(distance), settings)
    assert found.correct.all()
    assert (found.radius <= abs(distance)).all(), "alpha is far below one in twenty"
    assert found.radius.mean() > min(abs(distance), found.largest) - 0.04


def test_it_abstains_on_the_boundary() -> None:
    found = certify(Half(), at_distance(1e-9, 50), Certifying(sigma=SIGMA, draws=400))
    assert (found.predicted == ABSTAIN).sum() >= 48
    assert found.at(0.0).value <= 0.04
    assert found.at(0.0).parameters["abstained"] == int((found.predicted == ABSTAIN).sum())


def test_radii_are_those_of_the_paper() -> None:
    low = stats.binomtest(930, 1000, alternative="greater").proportion_ci(0.999, method="exact").low
    expected = 0.25 * stats.norm.ppf(low)
    assert radius_of(930, 1000, alpha=0.001, sigma=0.25) == pytest.approx(expected, rel=1e-9)
    assert radius_of(530, 1000, alpha=0.001, sigma=0.25) == 0
    # All votes: p = alpha^(1/n).
    every = 0.5 * NormalDist().inv_cdf(0.001 ** (1 / 1000))
    assert radius_of(1000, 1000, alpha=0.001, sigma=0.5) == pytest.approx(every, rel=1e-9)


def test_records_fall_with_the_radius() -> None:
    images = torch.cat([at_distance(d, 4)[0] for d in (-0.2, 0.1, 0.3, 0.6)])
    labels = torch.tensor([0] * 4 + [1] * 12)
    found = certify(Half(), (images, labels), Certifying(sigma=SIGMA, draws=1000))
    records = found.records()
    assert [r.parameters["radius"] for r in records] == pytest.approx([0.15 * k for k in range(len(records))])
    values = [r.value for r in records]
    assert values == sorted(values, reverse=True)
    assert values[0] == 1.0
    assert records[0].metric == "certified accuracy"
    assert found.at(found.largest + 0.01).value == 0


def test_the_batch_does_not_matter_and_a_stop_goes_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = torch.rand(12, 1, 4, 4), torch.ones(12, dtype=torch.int64)
    settings = Certifying(sigma=SIGMA, guess=20, draws=200)
    whole = certify(Half(), data, settings)

    def stop(done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        certify(Half(), data, settings, folder=tmp_path, batch_size=3, progress=stop)
    (journal,) = tmp_path.glob("*.jsonl")
    journal.write_bytes(journal.read_bytes()[:-5])  # killed in the middle of a line
    seen: list[int] = []
    again = certify(Half(), data, settings, folder=tmp_path, batch_size=4, progress=lambda done, _: seen.append(done))
    assert seen == [3, 7, 11, 12]
    assert torch.equal(again.radius, whole.radius)
    assert torch.equal(again.predicted, whole.predicted)
    certify(Half(), data, Certifying(sigma=0.2, guess=20, draws=200), folder=tmp_path)
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


def test_a_models_own_input_noise_is_certified_by() -> None:
    images = torch.rand(4, 1, 4, 4)
    own = with_noise_in_front(network(), 0.2, like=images)
    assert input_noise(own, images) == pytest.approx(0.2)
    assert certify(own, (images, torch.zeros(4, dtype=torch.int64)), Certifying(draws=50)).sigma == pytest.approx(0.2)
    assert input_noise(low_pass(network(), noise=0.1), images) == pytest.approx(0.1)
    # Noise that is further inside is none on the images.
    inside = inject(network(), example_input=images, sigma=0.5)
    assert input_noise(inside, images) is None
    with pytest.raises(UserError, match=r"needs noise on the images.*sigma=0\.25"):
        certify(inside, (images, torch.zeros(4, dtype=torch.int64)), Certifying(draws=50))


class Members(nn.Module):
    """The sum of some models' logits."""

    def __init__(self, *models: nn.Module) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([model(images) for model in self.models]).sum(dim=0)


def test_a_committee_is_certified_by_less_than_each_of_its_members() -> None:
    images = torch.rand(4, 1, 4, 4)
    one, two = (with_noise_in_front(Half(), sigma, like=images) for sigma in (0.3, 0.4))
    assert input_noise(Members(one, two), images) == pytest.approx(0.24)
    # Moving the images moves the noise of both: the radius of two like members is that of one over √2.
    pair = Members(*(with_noise_in_front(Half(), SIGMA, like=images) for _ in range(2)))
    found = certify(pair, at_distance(0.1), Certifying(draws=3000, seed=1))
    assert (found.radius <= 0.1).all()
    assert found.radius.mean() > 0.06


def test_a_layer_that_is_called_twice_draws_twice() -> None:
    images = torch.rand(4, 1, 4, 4)
    noisy = with_noise_in_front(Half(), 0.3, like=images)
    assert input_noise(Members(noisy, noisy), images) == pytest.approx(0.3 / math.sqrt(2))


def test_images_that_go_past_the_noise_get_no_certificate() -> None:
    images = torch.rand(4, 1, 4, 4)
    model = Members(with_noise_in_front(Half(), 0.3, like=images), Half())
    with pytest.raises(UserError, match="go past its noise"):
        certify(model, (images, torch.zeros(4, dtype=torch.int64)), Certifying(draws=50))
    sigma = Certifying(sigma=0.2, draws=50)
    assert certify(model, (images, torch.zeros(4, dtype=torch.int64)), sigma).sigma == 0.2


@pytest.mark.parametrize("glimpse", [lambda x: x.std(), lambda x: (x - 0.5).square().mean(), lambda x: x.max()])
def test_a_glimpse_past_the_noise_is_enough(glimpse: Callable[[Tensor], Tensor]) -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = with_noise_in_front(Half(), 0.3, like=images)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) + glimpse(x)

    images = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    with pytest.raises(UserError, match="go past its noise"):
        input_noise(Gate(), images)


def test_noise_inside_is_part_of_what_is_smoothed() -> None:
    images = torch.rand(6, 1, 4, 4)
    model = inject(network(), example_input=images, sigma=3.0).eval()
    labels = torch.zeros(6, dtype=torch.int64)
    quiet, loud = (certify(net, (images, labels), Certifying(sigma=0.1, draws=500)) for net in (network(), model))
    assert loud.radius.mean() < quiet.radius.mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0.0}, "sigma must be a positive"),
        ({"sigma": float("nan")}, "sigma must be a positive"),
        ({"draws": 0}, "draws must be a whole number"),
        ({"guess": 1.5}, "guess must be a whole number"),
        ({"alpha": 0.5}, "alpha must lie between"),
    ],
)
def test_wrong_settings_get_an_error_that_helps(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Certifying(**options)


def test_no_images_and_no_numbers_get_an_error_that_helps() -> None:
    with pytest.raises(UserError, match="at least one image"):
        certify(Half(), (torch.rand(0, 1, 4, 4), torch.zeros(0, dtype=torch.int64)), Certifying(sigma=0.1))
    broken = network()
    with torch.no_grad():
        broken[1].weight[0, 0] = math.nan
    with pytest.raises(UserError, match="finite"):
        certify(broken, (torch.rand(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64)), Certifying(sigma=0.1))
