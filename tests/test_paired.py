"""TRADES' own attack; the losses are held against an independent loop in test_train_objectives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from noiseopt.errors import UserError
from noiseopt.noise import stream
from noiseopt.paired import PAIRED, TRADES, DivergencePGD, Mixed
from tests.training.common import noisy, small

ATTACK = DivergencePGD(eps=0.1, step_size=0.04, steps=3)


def images() -> tuple[Tensor, Tensor]:
    return torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(6).long()


def divergence(p: Tensor, attacked: Tensor) -> Tensor:
    q = attacked.softmax(1)
    return (p * (p.log() - q.log())).sum(1)


def test_the_first_step_goes_where_the_divergence_rises() -> None:
    x, y = images()
    net, one = small(), DivergencePGD(eps=0.1, step_size=0.03, steps=1, seed=4)
    found = one(net, x, y, samples=torch.arange(6) + 9)
    start = DivergencePGD(eps=0.1, step_size=1e-30, steps=1, seed=4)(net, x, y, samples=torch.arange(6) + 9)
    assert 0 < (start - x).abs().mean() < 0.002
    leaf = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(divergence(net(x).softmax(1).detach(), net(leaf)).sum(), leaf)
    expected = (start + 0.03 * gradient.sign()).clamp(x - 0.1, x + 0.1).clamp(0, 1)
    clear = gradient.abs() > 1e-4 * gradient.abs().max()
    torch.testing.assert_close(found[clear], expected[clear])


def test_it_stays_in_its_ball_raises_the_divergence_and_does_not_look_at_labels() -> None:
    x, y = images()
    net = small()
    found = ATTACK(net, x, y)
    assert (found - x).abs().max() <= 0.1 + 1e-6
    assert 0 <= found.min() <= found.max() <= 1
    p = net(x).softmax(1)
    start = DivergencePGD(eps=0.1, step_size=1e-9, steps=1)(net, x, y)
    assert bool((divergence(p, net(found)) > 10 * divergence(p, net(start))).all())
    assert torch.equal(found, ATTACK(net, x, y + 2))


def test_an_image_is_attacked_alike_in_any_batch() -> None:
    x, y = images()
    net, ids = noisy(init=1.0), torch.arange(6) * 5
    attack = DivergencePGD(eps=0.1, step_size=0.04, steps=2, draws=3)
    whole = attack(net.eval(), x, y, samples=ids)
    torch.testing.assert_close(attack(net, x[2:4], y[2:4], samples=ids[2:4]), whole[2:4])
    assert not torch.equal(whole, attack(net, x, y, samples=ids + 1))
    with stream(net, seed=1, samples=ids):  # leaves the stream where it was
        before = net(x)
    with stream(net, seed=1, samples=ids):
        attack(net, x, y, samples=ids)
        torch.testing.assert_close(net(x), before)


def test_the_losses_are_named_and_agree_where_nothing_was_attacked() -> None:
    logits, labels = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 3, 0])
    assert set(PAIRED) == {"trades", "mixed"}
    for loss in (TRADES(), Mixed()):
        torch.testing.assert_close(loss(logits, logits, labels), F.cross_entropy(logits, labels))


def test_images_that_are_none_are_refused() -> None:
    x, y = images()
    for wrong, labels in ((x * 255, y), (x * torch.nan, y), (x, y[:3])):
        with pytest.raises(UserError, match="fix: "):
            ATTACK(small(), wrong, labels)
    assert ATTACK(small(), x[:0], y[:0]).shape == (0, 1, 8, 8)


@pytest.mark.parametrize("settings", [{"eps": 2.0}, {"steps": 0}, {"draws": 0}, {"step_size": -1.0}, {"seed": -1}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UserError, match="fix: "):
        DivergencePGD(**{"eps": 0.1, "step_size": 0.1, "steps": 1, **settings})  # type: ignore[arg-type]
