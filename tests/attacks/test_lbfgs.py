"""The L-BFGS attack: Szegedy's against exact distances, the paper's against a plain transcription."""

from __future__ import annotations

import foolbox
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseopt.attacks import LBFGS
from noiseopt.attacks.box_lbfgs import Objective
from noiseopt.attacks.gradient import noise_seed
from noiseopt.errors import UserError
from noiseopt.noise import draw_logits, inject

IDS = torch.arange(100, 112)


def rms(difference: Tensor) -> Tensor:
    return difference.flatten(1).square().mean(dim=1).sqrt()


@pytest.fixture
def linear() -> nn.Module:
    """Two classes: distances to the boundary are |w·x + b| / ‖w‖ as long as no pixel meets its bound."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2).double())
    with torch.no_grad():
        model[1].weight.mul_(20)
        model[1].bias.copy_(-model[1].weight.sum(dim=1) / 2)  # grey is on the boundary
    return model


@pytest.fixture
def greys() -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return 0.5 + 0.1 * torch.randn(12, 1, 6, 6, generator=generator, dtype=torch.float64).clamp(-3, 3)


def distances(linear: nn.Module, images: Tensor) -> Tensor:
    weight = linear[1].weight[0] - linear[1].weight[1]
    with torch.no_grad():
        logits = linear(images)
    return ((logits[:, 0] - logits[:, 1]).abs() / weight.norm() / 6).detach()


def test_smallest_distortion_is_the_distance_to_the_boundary(linear: nn.Module, greys: Tensor) -> None:
    labels, exact = linear(greys).argmax(1), distances(linear, greys)
    attacked = LBFGS(max_distortion=0.2)(linear, greys, labels)
    assert (linear(attacked).argmax(1) != labels).all()
    assert (rms(attacked - greys) >= exact * (1 - 1e-9)).all()
    assert (rms(attacked - greys) <= exact * 1.02).all()


def test_beyond_the_budget_it_spends_the_budget_on_the_loss(linear: nn.Module, greys: Tensor) -> None:
    labels, exact = linear(greys).argmax(1), distances(linear, greys)
    budget = exact.median().item()
    attacked = LBFGS(max_distortion=budget)(linear, greys, labels)
    fooled = linear(attacked).argmax(1) != labels
    clear = (exact - budget).abs() > 0.02 * budget
    assert torch.equal(fooled[clear], (exact < budget)[clear])
    out_of_reach = exact > 1.02 * budget
    assert out_of_reach.any()
    # The best there is: the whole budget along the weights.
    weight = linear[1].weight[0] - linear[1].weight[1]
    sign = 2.0 * labels - 1.0
    best = greys + (sign[:, None] * budget * 6 * weight / weight.norm()).view_as(greys)
    torch.testing.assert_close(attacked[out_of_reach], best[out_of_reach].detach(), rtol=0, atol=0.02 * budget)
    assert rms(attacked - greys).max() <= budget * (1 + 1e-6)


@pytest.mark.parametrize("name", ["mlp", "relu mlp", "cnn"])
def test_smallest_distortion_is_near_deepfools(name: str, build, images: Tensor) -> None:
    model = build(name)
    labels = model(images).argmax(1)
    ours = LBFGS(max_distortion=0.5)(model, images, labels)
    assert (model(ours).argmax(1) != labels).all()
    assert ours.min() >= 0
    assert ours.max() <= 1
    theirs = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    _, found, fooled = foolbox.attacks.L2DeepFoolAttack()(theirs, images, labels, epsilons=None)
    found = torch.where(fooled[:, None, None, None], found, 1 - images.round())
    assert rms(ours - images).mean() <= 1.2 * rms(found - images).mean()


def test_greatest_loss_beats_pgd_of_the_same_distortion(build, images: Tensor) -> None:
    model = build("relu mlp")
    labels = model(images).argmax(1)
    theirs = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.L2PGD(abs_stepsize=0.03, steps=40, random_start=False)
    _, found, _ = attack(theirs, images, labels, epsilons=0.05 * 6)
    ours = LBFGS(max_distortion=0.05, search_steps=0)(model, images, labels)
    with torch.no_grad():
        loss = [cross_entropy(model(x), labels).item() for x in (images, found, ours)]
    assert rms(ours - images).max() <= 0.05 * (1 + 1e-6)
    assert loss[2] - loss[0] > 0.97 * (loss[1] - loss[0])


def test_gradient_of_the_budget_is_right(
    mlp: nn.Module, images: Tensor, labels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The solver's objective scales r into the ball of the budget: its gradient must go through the scaling."""
    checked: list[Tensor] = []

    def instead(objective: Objective, start: Tensor, **settings: object) -> Tensor:
        rows = torch.arange(len(start))
        direction = torch.randn(start.shape, generator=torch.Generator().manual_seed(1), dtype=start.dtype)
        for distance in (0.2, 5.0):  # times the budget
            point = start + distance * 0.05 * torch.linspace(-1, 1, 36, dtype=start.dtype).roll(5) * 3**0.5
            _, gradient = objective(point, rows, 0)
            higher, _ = objective(point + 1e-6 * direction, rows, 0)
            lower, _ = objective(point - 1e-6 * direction, rows, 0)
            torch.testing.assert_close((gradient * direction).sum(1), (higher - lower) / 2e-6, rtol=1e-5, atol=1e-7)
            checked.append(gradient)
        return start

    monkeypatch.setattr("noiseopt.attacks.szegedy.minimise", instead)
    LBFGS(max_distortion=0.05, search_steps=0)(mlp, images, labels)
    assert len(checked) == 2


def test_an_image_already_taken_for_another_class_is_left_alone(mlp: nn.Module, images: Tensor, labels: Tensor) -> None:
    wrong = (labels + 1) % 4
    assert torch.equal(LBFGS()(mlp, images, wrong), images)


@pytest.mark.parametrize("name", ["mlp", "noisy mlp"])
def test_an_image_is_attacked_alike_in_any_batch(name: str, build, images: Tensor, labels: Tensor) -> None:
    model = build(name)
    attack = LBFGS(max_distortion=0.05, steps=8, search_steps=3, draws=2)
    whole = attack(model, images, labels, samples=IDS)
    for rows in (slice(0, 1), slice(3, 8)):
        part = attack(model, images[rows], labels[rows], samples=IDS[rows])
        torch.testing.assert_close(part, whole[rows], rtol=0, atol=1e-5)


def test_noise_is_met_at_full_distortion_and_stays_fooled(build, images: Tensor) -> None:
    """Success must hold under draws that the attack has not seen."""
    plain = build("mlp")
    model = inject(plain, example_input=images[:2], sigma=2.0).eval()
    labels = plain(images).argmax(1)
    attacked = LBFGS(max_distortion=0.3, draws=20, steps=10)(model, images, labels)
    assert (rms(attacked - images) > 0.29).float().mean() > 0.9
    with torch.no_grad():
        fresh = torch.cat(list(draw_logits(model, attacked, draws=100, seed=77))).softmax(-1).mean(0)
    assert (fresh.argmax(1) != labels).float().mean() > 0.9


def _as_published(model: nn.Module, images: Tensor, labels: Tensor, lr: float, steps: int) -> Tensor:
    attacked = []
    for first in range(0, len(images), 128):
        x, y = images[first : first + 128].clone().requires_grad_(), labels[first : first + 128]
        optimiser = torch.optim.LBFGS([x], lr=lr, max_iter=steps)

        def closure(x: Tensor = x, y: Tensor = y, optimiser: torch.optim.LBFGS = optimiser) -> Tensor:
            optimiser.zero_grad()
            loss = -cross_entropy(model(x), y)
            loss.backward()
            return loss

        optimiser.step(closure)
        attacked.append(x.detach().clamp(0, 1))
    return torch.cat(attacked)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_protocol_paper_is_what_was_published(name: str, build) -> None:
    model = build(name)
    images = torch.rand(150, 1, 6, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    labels = model(images).argmax(1)
    ours = LBFGS(protocol="paper", lr=0.5, steps=10)(model, images, labels)
    expected = _as_published(model, images, labels, 0.5, 10)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    assert (ours - images).abs().max() > 0.1


def test_protocol_paper_meets_fresh_noise_in_every_closure(
    noisy: nn.Module, images: Tensor, labels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, object, object]] = []

    def recorded(*args: object, **settings: object) -> object:
        asked.append((settings["draws"], settings["seed"], settings["first_draw"]))
        return draw_logits(*args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr("noiseopt.attacks.gradient.draw_logits", recorded)
    LBFGS(protocol="paper", lr=0.1, steps=5, draws=3, seed=8)(noisy, images, labels)
    assert len(asked) >= 5
    assert asked == [(3, noise_seed(8), 3 * call) for call in range(len(asked))]


def test_protocol_box_meets_fresh_noise_in_every_iteration(
    noisy: nn.Module, images: Tensor, labels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    firsts: list[int] = []

    def recorded(*args: object, **settings: object) -> object:
        firsts.append(settings["first_draw"])  # type: ignore[arg-type]
        return draw_logits(*args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr("noiseopt.attacks.gradient.draw_logits", recorded)
    LBFGS(steps=6, draws=3)(noisy, images, labels)
    assert firsts == sorted(firsts)
    assert set(firsts) == {0, 3, 6, 9, 12, 15}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"protocol": "szegedy"}, "protocol must be box or paper"),
        ({"protocol": "paper"}, "needs lr"),
        ({"protocol": "paper", "lr": 0.0}, "lr must be a positive"),
        ({"protocol": "paper", "lr": 0.5, "max_distortion": 0.2}, "max_distortion belongs to protocol box"),
        ({"lr": 0.5}, "lr belongs to protocol paper"),
        ({"max_distortion": 10}, "divide by 255"),
        ({"search_steps": -1}, "search_steps must be an integer of at least 0"),
        ({"history": 0}, "history must be an integer of at least 1"),
        ({"steps": 0}, "steps must be an integer of at least 1"),
    ],
)
def test_settings_are_checked(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LBFGS(**wrong)  # type: ignore[arg-type]
