"""FGSM and PGD: the published formulas, foolbox's numbers, and the noise they meet."""

from __future__ import annotations

import foolbox
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from noiseopt.attacks import FGSM, PGD, expected_gradient
from noiseopt.attacks.gradient import noise_seed
from noiseopt.errors import UserError
from noiseopt.noise import draw_logits, inject

IDS = torch.arange(100, 112)


def test_fgsm_is_one_signed_step(noisy: nn.Module, images: Tensor, labels: Tensor) -> None:
    attack = FGSM(eps=0.1, draws=3, seed=4)
    gradient = expected_gradient(noisy, images, labels, draws=3, seed=noise_seed(4), samples=IDS)
    expected = (images + 0.1 * gradient.sign()).clamp(0, 1)
    assert torch.equal(attack(noisy, images, labels, samples=IDS), expected)


def test_a_pixel_without_gradient_stays(images: Tensor, labels: Tensor) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4).double())
    with torch.no_grad():
        model[1].weight[:, :10] = 0
    moved = (FGSM(eps=0.05)(model, images, labels) != images).flatten(1)
    assert not moved[:, :10].any()
    assert moved[:, 10:].float().mean() > 0.5


@pytest.mark.parametrize("name", ["mlp", "relu mlp", "cnn"])
def test_foolbox_agrees(name: str, build, images: Tensor, labels: Tensor) -> None:
    model = build(name)
    theirs = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    _, expected, _ = foolbox.attacks.LinfFastGradientAttack(random_start=False)(theirs, images, labels, epsilons=0.1)
    torch.testing.assert_close(FGSM(eps=0.1)(model, images, labels), expected, rtol=0, atol=1e-6)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=0.03, steps=7, random_start=False)
    _, expected, _ = attack(theirs, images, labels, epsilons=0.1)
    ours = PGD(eps=0.1, step_size=0.03, steps=7, random_start=False)(model, images, labels)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    assert (ours - images).abs().max() > 0.09, "seven steps of 0.03 must reach the ball's edge"


@settings(max_examples=25, deadline=None)
@given(
    eps=st.floats(1e-3, 1.0),
    step_size=st.floats(1e-3, 1.0),
    steps=st.integers(1, 4),
    random_start=st.booleans(),
    seed=st.integers(0, 2**63 - 1),
)
def test_ball_and_box_are_kept(eps: float, step_size: float, steps: int, random_start: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 3))
    images = (torch.rand(5, 1, 3, 3, generator=generator) * 2 - 0.5).clamp(0, 1)
    attack = PGD(eps=eps, step_size=step_size, steps=steps, random_start=random_start, seed=seed)
    attacked = attack(model, images, torch.arange(5) % 3)
    assert (attacked - images).abs().max() <= eps + 1e-6
    assert attacked.min() >= 0
    assert attacked.max() <= 1


@pytest.mark.parametrize("name", ["mlp", "noisy mlp", "noisy cnn"])
def test_an_image_is_attacked_alike_in_any_batch(name: str, build, images: Tensor, labels: Tensor) -> None:
    model = build(name)
    attack = PGD(eps=0.1, step_size=0.02, steps=5, draws=3, seed=11)
    seven = attack(model, images[:7], labels[:7], samples=IDS[:7])
    for i in range(7):
        alone = attack(model, images[i : i + 1], labels[i : i + 1], samples=IDS[i : i + 1])
        torch.testing.assert_close(alone, seven[i : i + 1], rtol=0, atol=1e-9)


def test_random_start_fills_the_ball_and_has_its_seed(mlp: nn.Module) -> None:
    images = torch.full((40, 1, 6, 6), 0.5, dtype=torch.float64)
    labels = torch.zeros(40, dtype=torch.int64)

    def start(seed: int) -> Tensor:
        # A step too small to matter shows the start.
        return PGD(eps=0.2, step_size=1e-9, steps=1, seed=seed)(mlp, images, labels) - images

    away = start(0)
    assert away.abs().max() > 0.199
    assert abs(away.mean()) < 0.01
    assert abs(away.std() - 0.2 / 3**0.5) < 0.005
    assert not torch.equal(away[0], away[1])
    assert torch.equal(away, start(0))
    assert (away - start(1)).abs().mean() > 0.05


def _pure_noise(images: Tensor, record: list[Tensor]) -> nn.Module:
    """Its logits are its noise: gradient 0, so that PGD asks again and again for the same images."""
    plain = nn.Sequential(nn.Flatten(), nn.Linear(36, 4).double())
    with torch.no_grad():
        plain[1].weight.zero_(), plain[1].bias.zero_()
    model = inject(plain, example_input=images[:2], sigma=1.0).eval()

    def keep(module: nn.Module, args: object, output: Tensor) -> None:
        if torch.is_grad_enabled():  # draw_logits first tries things out without gradients
            record.append(output.detach().clone())

    model.register_forward_hook(keep)
    return model


def test_every_iteration_draw_and_sample_meets_its_own_noise(images: Tensor, labels: Tensor) -> None:
    record: list[Tensor] = []
    model = _pure_noise(images, record)
    attack = PGD(eps=0.1, step_size=0.02, steps=4, draws=5, random_start=False, seed=9)
    assert torch.equal(attack(model, images, labels, samples=IDS), images)
    met = torch.cat(record)
    assert len(met) == 4 * 5 * 12
    assert len(met.unique(dim=0)) == len(met), "EOT copies that share a draw make the attack deterministic"
    record.clear()
    attack(model, images, labels, samples=IDS)
    assert torch.equal(torch.cat(record), met), "but the seed decides all of it"


def test_the_attackers_noise_is_not_the_evaluators(images: Tensor, labels: Tensor) -> None:
    record: list[Tensor] = []
    model = _pure_noise(images, record)
    FGSM(eps=0.1, draws=20, seed=6)(model, images, labels, samples=IDS)
    with torch.no_grad():
        evaluated = torch.cat(list(draw_logits(model, images, draws=20, seed=6, samples=IDS))).flatten(0, 1)
    both = torch.cat([*record, evaluated])
    assert len(both.unique(dim=0)) == len(both) == 2 * 20 * 12


def test_more_draws_make_a_stronger_attack(build, images: Tensor) -> None:
    """On a model whose noise hides the gradient, EOT must find what one draw misses."""
    plain = build("mlp")
    model = inject(plain, example_input=images[:2], sigma=4.0).eval()
    images = images.repeat(20, 1, 1, 1)
    labels = plain(images).argmax(1)

    def loss(draws: int) -> float:
        attacked = FGSM(eps=0.2, draws=draws)(model, images, labels)
        with torch.no_grad():
            drawn = torch.cat(list(draw_logits(model, attacked, draws=50, seed=123)))
        return -drawn.log_softmax(-1).gather(2, labels.expand(50, -1)[..., None]).mean().item()

    assert loss(50) > loss(1) + 0.05


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"eps": 8}, "divide by 255"),
        ({"eps": 0.0}, "eps must be a positive"),
        ({"eps": float("nan")}, "eps must be a positive"),
        ({"eps": "8/255"}, "eps must be a positive"),
        ({"step_size": 2}, "divide by 255"),
        ({"step_size": -0.1}, "step_size must be a positive"),
        ({"steps": 0}, "steps must be an integer of at least 1"),
        ({"steps": 2.0}, "steps must be an integer of at least 1"),
        ({"draws": 0}, "draws must be an integer of at least 1"),
        ({"draws": True}, "draws must be an integer of at least 1"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_settings_are_checked(wrong: dict[str, object], message: str) -> None:
    right: dict[str, object] = {"eps": 0.1, "step_size": 0.02, "steps": 5}
    PGD(**right)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        PGD(**(right | wrong))  # type: ignore[arg-type]
