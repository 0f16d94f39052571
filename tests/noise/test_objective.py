"""Objectives of σ: each changes what σ walks along, and nothing else."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from noiseopt.errors import UserError
from noiseopt.noise import OBJECTIVES, SigmaAdam, SigmaObjective, inject, noise, split_parameters, stream
from noiseopt.noise.objective import Adversarial, Budget, Entropy, PublishedSign


def levels_with_gradient(*values: tuple[float, float]) -> list[nn.Parameter]:
    """One σ of these (value, gradient)."""
    sigma = nn.Parameter(torch.tensor([value for value, _ in values], dtype=torch.float64))
    sigma.grad = torch.tensor([gradient for _, gradient in values], dtype=torch.float64)
    return [sigma]


def test_every_objective_is_named_as_it_is_registered() -> None:
    assert {name: kind.name for name, kind in OBJECTIVES.items()} == {name: name for name in OBJECTIVES}
    assert set(OBJECTIVES) >= {"loss", "published-sign", "budget", "entropy", "adversarial"}


def test_the_papers_objective_is_the_training_loss_itself() -> None:
    loss, images = torch.tensor(1.0), torch.zeros(1, 1, 2, 2)
    found = SigmaObjective().loss(nn.Identity(), images, torch.zeros(1).long(), loss, samples=torch.arange(1))
    assert found is loss


def test_the_published_sign_undoes_the_sign_of_theorem_1() -> None:
    """Theorem 1 with |σ| is sign(σ) Σ δ ε; what the published code walks along is Σ δ ε."""
    torch.manual_seed(0)
    net = inject(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), example_input=torch.rand(2, 1, 2, 2), init="normal")
    _, (sigma,) = split_parameters(net)
    with torch.no_grad():
        sigma.copy_(torch.tensor([-0.5, 0.5, -2.0]))
    images, ids = torch.rand(8, 1, 2, 2), torch.arange(8)
    with noise(net, on=False):
        clean = net(images).detach()
    with stream(net, seed=1, samples=ids):
        out = net(images)
    epsilon = (out.detach() - clean) / sigma.detach().abs()
    delta = torch.randn(8, 3)
    out.backward(delta)
    expected = (delta * epsilon).sum(0)
    assert sigma.grad is not None
    torch.testing.assert_close(sigma.grad, expected * sigma.detach().sign())
    PublishedSign().after_backward([sigma])
    torch.testing.assert_close(sigma.grad, expected)


def test_the_published_sign_lets_negative_noise_grow_where_the_paper_would_shrink_it() -> None:
    sizes = {}
    for objective in (SigmaObjective(), PublishedSign()):
        (sigma,) = [nn.Parameter(torch.tensor([-1.0, 1.0]))]
        optimiser = SigmaAdam([sigma], lr=0.1, fold=objective.folds)
        for _ in range(5):
            sigma.grad = 0.3 * sigma.detach().sign()  # the loss rises with |σ|
            objective.after_backward([sigma])
            optimiser.step()
        sizes[objective.name] = sigma.detach().abs().tolist()
    assert all(size < 1 for size in sizes["loss"])
    assert sizes["published-sign"][0] > 1 > sizes["published-sign"][1]


def test_a_budget_holds_the_mean_square_and_leaves_the_shares() -> None:
    sigma = nn.Parameter(torch.tensor([1.0, 2.0, 4.0]))
    Budget(mean_square=2.5).after_step([sigma])
    assert sigma.detach().square().mean().item() == pytest.approx(2.5, rel=1e-6)
    assert (sigma[1] / sigma[0]).item() == pytest.approx(2, rel=1e-6)
    silent = nn.Parameter(torch.zeros(3))
    Budget().after_step([silent])
    assert silent.tolist() == [0, 0, 0]


def test_an_ascending_budget_turns_the_gradient_round() -> None:
    levels = levels_with_gradient((1.0, 0.25), (2.0, -3.0))
    Budget(ascend=True).after_backward(levels)
    assert levels[0].grad is not None
    assert levels[0].grad.tolist() == [-0.25, 3.0]


def test_entropy_adds_the_derivative_of_its_term() -> None:
    price, values = 0.7, [-0.4, 0.3, 2.0]
    levels = levels_with_gradient(*[(value, 0.1) for value in values])
    other = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    (-price * other.abs().log().mean() + 0.1 * other.sum()).backward()
    Entropy(price=price).after_backward(levels)
    torch.testing.assert_close(levels[0].grad, other.grad)


def test_entropy_stays_finite_at_zero() -> None:
    levels = levels_with_gradient((0.0, 0.0))
    Entropy().after_backward(levels)
    assert levels[0].grad is not None
    assert -math.inf < levels[0].grad.item() < 0


def test_the_adversarial_objective_is_the_loss_on_the_examples() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 3)).train()
    seen: dict[str, object] = {}

    def darken(model: nn.Module, images: Tensor, labels: Tensor, *, samples: Tensor | None = None) -> Tensor:
        seen.update(training=model.training, samples=samples)
        return images * 0

    images, labels, ids = torch.rand(5, 1, 2, 2), torch.zeros(5).long(), torch.arange(5) + 7
    loss = Adversarial(examples=darken).loss(net, images, labels, torch.tensor(0.0), samples=ids)
    assert seen == {"training": False, "samples": ids}
    assert net.training
    layer = net[2]
    assert isinstance(layer, nn.Linear)
    expected = nn.functional.cross_entropy(layer.bias.expand(5, -1), labels)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("make", [lambda: Budget(mean_square=0), lambda: Entropy(price=-1)])
def test_settings_out_of_range_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(UserError, match="fix: "):
        make()
