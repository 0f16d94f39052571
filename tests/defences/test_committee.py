"""A committee predicts the average, is attacked as a whole, and its members share no noise."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from noiseopt.attacks import expected_gradient
from noiseopt.defences import committee
from noiseopt.errors import UserError
from noiseopt.evaluate import predict
from noiseopt.noise import draw_logits, inject


def _member(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def test_it_averages_probabilities() -> None:
    members = [_member(s) for s in range(3)]
    images = torch.rand(4, 1, 2, 3, requires_grad=True)
    logits = committee(members)(images)
    expected = torch.stack([m(images).softmax(-1) for m in members]).mean(0)
    torch.testing.assert_close(logits.softmax(-1), expected)
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), images)
    assert gradient.abs().sum() > 0


def test_it_copies_its_members_and_stays_finite_when_they_are_certain() -> None:
    member = _member(0)
    joint = committee([member, member])
    with torch.no_grad():
        next(member.parameters()).zero_()
        for p in joint.parameters():
            p.mul_(1e4)
    assert next(joint.parameters()).abs().sum() > 0
    assert joint(torch.rand(4, 1, 2, 3)).isfinite().all()


def test_noisy_members_have_draws_of_their_own_and_may_be_mixed_with_plain_ones() -> None:
    example = torch.rand(2, 1, 2, 3)
    noisy = inject(_member(0), example_input=example, init=0.5)
    twins = committee([noisy, noisy]).eval()
    images = torch.rand(4, 1, 2, 3)
    single = torch.cat(list(draw_logits(noisy.eval(), images, draws=200, seed=0))).softmax(-1)
    double = torch.cat(list(draw_logits(twins, images, draws=200, seed=0))).softmax(-1)
    assert 0.5 < (double.std(0) / single.std(0)).mean() < 0.9  # 1/√2 where the draws are independent
    mixed = committee([noisy, _member(1)]).eval()
    assert predict(mixed, images, draws=8).shape == (4, 3)


def test_an_empty_committee_is_refused() -> None:
    with pytest.raises(UserError, match="at least one member"):
        committee([])


def test_members_injected_with_one_seed_draw_apart_outside_a_stream_too() -> None:
    example = torch.rand(2, 1, 2, 3)
    noisy = inject(_member(0), example_input=example, sigma=0.5, seed=0)
    twins = committee([noisy, noisy], seed=1)
    images = torch.rand(4, 1, 2, 3)
    twins(images)
    first, second = (member(images) for member in twins.members)  # type: ignore[union-attr]
    assert not torch.allclose(first, second, atol=1e-2)
    assert torch.equal(committee([noisy, noisy], seed=1)(images), committee([noisy, noisy], seed=1)(images))
    assert not torch.equal(committee([noisy, noisy], seed=1)(images), committee([noisy, noisy], seed=2)(images))


def test_an_attack_on_noisy_members_averages_over_the_noise_of_all() -> None:
    example = torch.rand(2, 1, 2, 3)
    joint = committee([inject(_member(s), example_input=example, sigma=0.5) for s in (0, 1)]).eval()
    images, labels = torch.rand(4, 1, 2, 3), torch.tensor([0, 1, 2, 0])
    single = [expected_gradient(joint, images, labels, draws=1, seed=0, first_draw=k) for k in range(6)]
    assert not torch.allclose(single[0], single[1], rtol=1e-2)
    mean = expected_gradient(joint, images, labels, draws=6, seed=0)
    torch.testing.assert_close(mean, torch.stack(single).mean(0), rtol=1e-4, atol=1e-6)


def test_it_is_in_the_mode_of_its_members() -> None:
    assert not committee([_member(0).eval(), _member(1).eval()]).training
    assert committee([_member(0).eval(), _member(1).train()]).training
