"""Objectives that look inside the network or through its training: each against autograd of the written formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from noiseopt.attacks import FGSM
from noiseopt.errors import UserError
from noiseopt.noise import has_noise, inject, noise, sigmas, split_parameters, stream
from noiseopt.noise.attaching import noisy_modules
from noiseopt.noise.objective import Bilevel, Information, Learn2Perturb, WeightCovariance, nats_through
from noiseopt.noise.select import outputs
from noiseopt.noise.zoo import wca
from tests.noise.conftest import epsilon

IDS = torch.arange(16) * 3


def network(*, convolution: bool = False, smooth: bool = True, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    act = nn.Tanh if smooth else nn.ReLU
    layers: list[nn.Module] = [nn.Conv2d(1, 2, 3), act(), nn.Flatten(), nn.Linear(32, 4)]
    if not convolution:
        layers = [nn.Flatten(), nn.Linear(36, 8), act(), nn.Linear(8, 4)]
    plain = nn.Sequential(*layers).double()
    return inject(plain, example_input=torch.rand(2, 1, 6, 6).double(), **{"init": 0.7, **options}).train()


def batch(count: int = 16, *, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 1, 6, 6, generator=generator, dtype=torch.float64)
    return images, torch.randint(4, (count,), generator=generator)


def drawn(net: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """ε of every layer in the first pass of a stream of seed 5, step 2."""
    made, _ = outputs(net, {name: module for name, module, _ in noisy_modules(net)}, images)
    shapes = {name: calls[0].shape for name, calls in made.items()}
    with stream(net, seed=5, samples=IDS, step=2):
        layers = {name: layer for name, _, layer in noisy_modules(net)}
        return {
            name: epsilon(layers[name], layers[name].stream.rows, shape).double()  # type: ignore[arg-type]
            for name, shape in shapes.items()
        }


def step(net: nn.Module, objective: Any, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(training loss, the objective's) as `train` calls for them."""
    with objective.watching(net), stream(net, seed=5, samples=IDS, step=2):
        loss = F.cross_entropy(net(images), labels)
        return loss, objective.loss(net, images, labels, loss, samples=IDS)


def gradients(target: Tensor, parameters: list[Any]) -> list[Tensor]:
    return list(torch.autograd.grad(target, parameters, retain_graph=True, materialize_grads=True))


# information ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("convolution", [False, True])
@pytest.mark.parametrize("per", ["neuron", "channel", "layer"])
@pytest.mark.parametrize("to", ["sigma", "both"])
def test_information_is_the_written_formula(convolution: bool, per: str, to: Any) -> None:
    net = network(convolution=convolution, per=per)
    images, labels = batch()
    _, target = step(net, Information(price=0.3, to=to), images, labels)
    parameters = list(net.parameters())
    found = gradients(target, parameters)

    first, second = (module for module in net if isinstance(module, nn.Linear | nn.Conv2d))
    noises = drawn(net, images)
    (one, two), nats = sigmas(net).values(), torch.zeros(())
    start = images if convolution else images.flatten(1)

    def plain(module: Any, x: Tensor) -> Tensor:
        linear = isinstance(module, nn.Linear)
        return F.linear(x, module.weight, module.bias) if linear else F.conv2d(x, module.weight, module.bias)

    v1 = plain(first, start)
    h = torch.tanh(v1 + one.abs() * noises["0" if convolution else "1"])
    v2 = plain(second, h.flatten(1))
    logits = v2 + two.abs() * noises["3"]
    for v, sigma in ((v1, one), (v2, two)):
        variance = (v.detach() if to == "sigma" else v).var(0, correction=0)
        each = 0.5 * torch.log(1 + variance / sigma.square())
        nats = nats + (each.sum() if each.dim() == 1 else each.mean((1, 2)).sum())
    expected = F.cross_entropy(logits, labels) + 0.3 * nats
    assert target.item() == pytest.approx(expected.item(), rel=1e-5)
    for have, want in zip(found, gradients(expected, parameters), strict=True):
        torch.testing.assert_close(have, want, rtol=1e-4, atol=1e-6)


def test_information_to_sigma_leaves_the_weights_the_training_loss() -> None:
    net = network()
    weights, levels = split_parameters(net)
    loss, target = step(net, Information(price=0.3, to="sigma"), *batch())
    for have, want in zip(gradients(target, weights), gradients(loss, weights), strict=True):
        torch.testing.assert_close(have, want, rtol=1e-12, atol=0)
    pulls = [a - b for a, b in zip(gradients(target, levels), gradients(loss, levels), strict=True)]
    assert all(bool((pull < 0).all()) for pull in pulls)  # noise is cheap where it is strong


def test_information_watches_training_passes_only_and_takes_its_hooks_out() -> None:
    net, objective = network(), Information(price=1.0)
    images, labels = batch()
    loss = torch.zeros(())
    hooks = [len(m._forward_pre_hooks) for m in net.modules()]
    with objective.watching(net):
        with noise(net, on=False):
            net(images)
        assert objective.loss(net, images, labels, loss, samples=IDS) is loss
        net.eval()(images)
        assert objective.loss(net, images, labels, loss, samples=IDS) is loss
        net.train()(images)
        once = objective.loss(net, images, labels, loss, samples=IDS)
        net(images), net(images)  # the latest pass counts, not all of them
        torch.testing.assert_close(objective.loss(net, images, labels, loss, samples=IDS), once, rtol=0.5, atol=0)
    assert [len(m._forward_pre_hooks) for m in net.modules()] == hooks


def test_nats_are_finite_where_there_is_no_noise_and_nothing_where_nothing_varies() -> None:
    sigma = torch.zeros(3, requires_grad=True)
    nats = nats_through(torch.rand(5, 3), sigma)
    nats.backward()
    assert nats.isfinite()
    assert sigma.grad is not None
    assert bool(sigma.grad.isfinite().all())
    assert nats_through(torch.ones(5, 3), torch.ones(3)).item() == 0


def test_nats_count_tokens_as_images_and_positions_by_their_mean() -> None:
    v, sigma = torch.rand(4, 7, 3), torch.tensor([0.5, 1.0, 2.0])
    assert nats_through(v, sigma).item() == pytest.approx(nats_through(v.flatten(0, 1), sigma).item(), rel=1e-6)
    maps = torch.rand(9, 3, 1, 1).repeat(1, 1, 5, 6)
    assert nats_through(maps, sigma.view(3, 1, 1)).item() == pytest.approx(
        nats_through(maps[:, :, 0, 0], sigma).item(), rel=1e-6
    )


# bilevel -------------------------------------------------------------------------------------------------------------


def held(net: nn.Module, **options: Any) -> tuple[Bilevel, Tensor, Tensor]:
    images, labels = batch(40, seed=9)
    seen: list[Tensor] = []

    def give(index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen.append(index)
        return images[index], labels[index], index

    objective = Bilevel(examples=FGSM(eps=0.1), **options)
    objective.hold(give, len(images))
    objective.seen = seen  # type: ignore[attr-defined]
    return objective, images, labels


def test_bilevel_is_the_derivative_through_the_step() -> None:
    """Against central differences in σ of the whole thing: step, then held-out loss, on the same draws."""
    net = network()
    objective, everything, truths = held(net, step_size=0.8)
    images, labels = batch()
    weights, levels = split_parameters(net)
    _, target = step(net, objective, images, labels)
    found = gradients(target, levels)
    (index,) = objective.seen  # type: ignore[attr-defined]
    with stream(net, seed=5, samples=IDS, step=2):
        attacked = FGSM(eps=0.1)(net.eval(), everything[index], truths[index], samples=IDS)
    net.train()
    names = {id(p): name for name, p in net.named_parameters()}

    def whole() -> float:
        with stream(net, seed=5, samples=IDS, step=2):
            loss = F.cross_entropy(net(images), labels)
            new = dict(zip((names[id(p)] for p in weights), weights, strict=True))
            steps = torch.autograd.grad(loss, weights)
            new = {name: (p - 0.8 * g).detach() for (name, p), g in zip(new.items(), steps, strict=True)}
            new |= before
            return F.cross_entropy(functional_call(net, new, (attacked,)), truths[index]).item()

    before = {names[id(s)]: s.detach().clone() for s in levels}
    assert target.item() == pytest.approx(whole(), rel=1e-6)
    for level, gradient in zip(levels, found, strict=True):
        for j in (0, 3):
            ends = []
            for h in (1e-4, -1e-4):
                with torch.no_grad():
                    level[j] += h
                ends.append(whole())
                with torch.no_grad():
                    level[j] -= h
            assert gradient[j].item() == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-3, abs=1e-8)


def test_bilevel_chooses_held_out_images_by_sample_alone_and_leaves_no_trace() -> None:
    net = network(smooth=False)
    objective, _, _ = held(net)
    images, labels = batch()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    step(net, objective, images, labels)
    with stream(net, seed=5, samples=IDS[:5], step=2):
        loss = F.cross_entropy(net(images[:5]), labels[:5])
        objective.loss(net, images[:5], labels[:5], loss, samples=IDS[:5])
    first, second = objective.seen  # type: ignore[attr-defined]
    assert torch.equal(first[:5], second)
    assert len(first.unique()) > 8
    assert net.training
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in net.named_parameters())
    with pytest.raises(UserError, match="do not see"):
        Bilevel(examples=FGSM(eps=0.1)).loss(net, images, labels, loss, samples=IDS)


# learn2perturb and wca -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [0, 3])
def test_learn2perturb_adds_the_derivative_of_its_term(epoch: int) -> None:
    objective = Learn2Perturb(gamma=0.3)
    objective.begin_epoch(epoch)
    sigma = nn.Parameter(torch.tensor([0.04, 0.5, 2.0], dtype=torch.float64))
    (0.1 * sigma.sum()).backward()
    objective.after_backward([sigma])
    other = sigma.detach().clone().requires_grad_()
    harmonic = {0: 1.0, 3: 1 + 1 / 2 + 1 / 3 + 1 / 4}[epoch]
    (0.1 * other.sum() - 0.3 / harmonic * other.sqrt().sum()).backward()
    torch.testing.assert_close(sigma.grad, other.grad)
    with torch.no_grad():
        sigma[0] = -3.0
    objective.after_step([sigma])
    assert sigma.tolist() == [0.01, 0.5, 2.0]


@pytest.mark.parametrize("rank", [None, 3])
def test_wca_is_the_written_formula(rank: int | None) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 4)).double()
    net = wca(plain, example_input=torch.rand(2, 1, 6, 6).double(), rank=rank, init=0.5)
    assert has_noise(net)
    factor: Any = net[3].noise.factor  # type: ignore[index,union-attr]
    with torch.no_grad():
        factor.add_(torch.randn(factor.shape, generator=torch.Generator().manual_seed(1)).double())
    loss, target = step(net, WeightCovariance(weight=0.6, decay=0.1), *batch())
    used = factor.tril() if rank is None else factor
    covariance, weights = used @ used.T, net[3].weight  # type: ignore[index]
    assert isinstance(weights, Tensor)
    expected = loss - 0.6 * sum((w @ covariance @ w).log() for w in weights) + 0.1 * weights.square().sum()
    assert target.item() == pytest.approx(expected.item(), rel=1e-9)
    for have, want in zip(gradients(target, [weights, factor]), gradients(expected, [weights, factor]), strict=True):
        torch.testing.assert_close(have, want)


def test_wca_without_its_noise_is_refused() -> None:
    net = inject(nn.Sequential(nn.Flatten(), nn.Linear(36, 4)), example_input=torch.rand(2, 1, 6, 6))
    with pytest.raises(UserError, match="the objective wca is of the noise of that name"):
        step(net.double(), WeightCovariance(), *batch())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Information(price=-1),
        lambda: Information(to="weights"),  # type: ignore[arg-type]
        lambda: Bilevel(examples=FGSM(eps=0.1), held_out=0),
        lambda: Bilevel(examples=FGSM(eps=0.1), step_size=0),
        lambda: Learn2Perturb(floor=0),
        lambda: WeightCovariance(weight=-1),
    ],
)
def test_settings_out_of_range_are_refused(make: Any) -> None:
    with pytest.raises(UserError, match="fix: "):
        make()
