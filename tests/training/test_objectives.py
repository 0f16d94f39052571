"""Training beyond the batch's own loss: paired losses, other papers' noise, objectives with a memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiseopt.attacks import FGSM, PGD
from noiseopt.errors import UserError
from noiseopt.noise import (
    OBJECTIVES,
    ZOO,
    SigmaAdam,
    SigmaObjective,
    draw_logits,
    inject,
    sigmas,
    split_parameters,
    stream,
)
from noiseopt.noise.objective import Bilevel, Entropy, Information, Learn2Perturb, WeightCovariance
from noiseopt.paired import PAIRED, TRADES, DivergencePGD, Mixed
from noiseopt.streams import MASK32
from noiseopt.train import Training, train
from tests.training.common import digits, mixed, noisy, same, small, tensors, with_two_processes

EPS = FGSM(eps=0.1)
START = PGD(eps=0.1, step_size=0.125, steps=1)  # FGSM with a random start


def zoo(kind: str, **options: Any) -> nn.Module:
    return ZOO[kind](small(), example_input=torch.rand(1, 1, 8, 8), **options)


def _kl(clean: Tensor, attacked: Tensor) -> Tensor:
    p, q = clean.softmax(1), attacked.softmax(1)
    return (p * (p.log() - q.log())).sum(1).mean()


class Watching:
    """Attacks nothing, and keeps what the network makes of a grey image under the first draw of an attack's noise."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, *, samples: Tensor | None = None) -> Tensor:
        assert samples is not None
        first = ((samples - len(self.seen) * 0x9E3779B1) & MASK32).argmin()  # the same image in every epoch
        grey = torch.full_like(images[:1], 0.5)
        drawn = draw_logits(model, grey, draws=1, seed=7, samples=samples[first : first + 1])
        self.seen.append(next(iter(drawn)).detach().clone())
        return images


@pytest.mark.parametrize("kind", list(ZOO))
def test_an_attack_meets_new_noise_at_every_step(kind: str) -> None:
    watching = Watching()
    still = Training(epochs=3, batch_size=70, lr=1e-9, sigma_lr=1e-9, weight_decay=0)
    net = zoo(kind, **({"where": "linear"} if kind == "rse" else {}))
    train(net, digits(), still, seed=0, perturbation=watching)
    first, second, third = watching.seen
    for a, b in ((first, second), (second, third), (first, third)):
        assert (a - b).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("paired", "formula"),
    [
        (TRADES(beta=3.0), lambda c, a, y: F.cross_entropy(c, y) + 3 * _kl(c, a)),
        (Mixed(share=0.3), lambda c, a, y: 0.7 * F.cross_entropy(c, y) + 0.3 * F.cross_entropy(a, y)),
    ],
)
def test_a_paired_loss_is_trained_as_a_loop_of_ones_own_would(
    paired: Any, formula: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> None:
    data, net, expected = digits(), noisy(init=0.5), noisy(init=0.5)
    training = Training(epochs=2, batch_size=20, lr=0.01, weight_decay=0)
    train(net, data, training, seed=5, perturbation=START, paired=paired)

    weights, levels = split_parameters(expected)
    optimizers = [torch.optim.Adam(weights, lr=0.01), SigmaAdam(levels, lr=1e-3)]
    generators = [torch.Generator().manual_seed(s) for s in _shuffles(5, 2)]
    for epoch, generator in enumerate(generators):
        for i, index in enumerate(torch.randperm(len(data.train), generator=generator).split(20)):
            images, labels, ids = data.train.batch(index)
            place: dict[str, Any] = {"seed": 5, "samples": ids, "step": 3 * epoch + i}
            attacked = START(expected.eval(), images, labels, samples=(ids + epoch * 0x9E3779B1) & MASK32)
            expected.train()
            with stream(expected, **place):
                clean = expected(images)
            with stream(expected, **place):
                loss = formula(clean, expected(attacked), labels)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
    for (name, have), want in zip(net.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(have, want, rtol=1e-3, atol=1e-5, msg=name)


def _shuffles(seed: int, epochs: int) -> list[int]:
    from noiseopt.train import _derived

    return [_derived(seed, "shuffle", epoch) for epoch in range(epochs)]


def test_a_paired_loss_without_an_attack_or_of_an_autoencoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pairs the images with"):
        train(small(), digits(), Training(epochs=1), paired=TRADES())
    with pytest.raises(UserError, match="classifier"):
        train(small(), digits(), Training(epochs=1, task="reconstruct"), perturbation=EPS, paired=PAIRED["mixed"]())
    for make in (lambda: TRADES(beta=-1), lambda: Mixed(share=1.5)):
        with pytest.raises(UserError, match="fix: "):
            make()
    train(small(), digits(), Training(epochs=1), perturbation=EPS, paired=TRADES(), run_dir=tmp_path)
    with pytest.raises(UserError, match="paired"):
        train(small(), digits(), Training(epochs=1), perturbation=EPS, paired=TRADES(beta=1), run_dir=tmp_path)


CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "trades": (noisy, {"perturbation": START, "paired": TRADES()}),
    "trades with batch norm": (
        mixed,
        {"perturbation": DivergencePGD(eps=0.1, step_size=0.05, steps=2), "paired": TRADES()},
    ),
    "information": (noisy, {"objective": Information()}),
    "information to sigma": (noisy, {"objective": Information(to="sigma"), "perturbation": START}),
    "bilevel": (noisy, {"objective": Bilevel(examples=START)}),
    "bilevel with batch norm": (mixed, {"objective": Bilevel(examples=START)}),
    "learn2perturb": (lambda: zoo("learn2perturb"), {"objective": Learn2Perturb()}),
    "wca": (lambda: zoo("wca"), {"objective": WeightCovariance()}),
    "pni": (lambda: zoo("pni"), {"perturbation": EPS, "paired": Mixed()}),
    "rse": (lambda: zoo("rse", where="linear"), {}),
    "smoothing": (lambda: zoo("smoothing"), {}),
    "pixels": (lambda: zoo("pixels"), {"objective": Entropy(price=0.5)}),
    "bilevel on pixels": (lambda: zoo("pixels"), {"objective": Bilevel(examples=START)}),
}


@pytest.mark.parametrize("case", list(CASES))
def test_what_was_interrupted_goes_on_bit_for_bit(case: str, tmp_path: Path) -> None:
    make, options = CASES[case]
    whole, halves = make(), make()
    before = {name: s.detach().clone() for name, s in sigmas(whole).items()}
    whole_history = train(whole, digits(), Training(epochs=3, batch_size=16), **options)

    class Stop(Exception):
        pass

    def stop(epoch: int, epochs: int, line: object) -> None:
        if epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        train(halves, digits(), Training(epochs=3, batch_size=16), run_dir=tmp_path, progress=stop, **options)
    rest = make()
    history = train(rest, digits(), Training(epochs=3, batch_size=16), run_dir=tmp_path, **options)
    assert same(whole, rest)
    assert [line.train_loss for line in history.epochs] == [line.train_loss for line in whole_history.epochs]
    if case not in ("rse", "smoothing"):
        assert not all(torch.equal(s, before[name]) for name, s in sigmas(whole).items())


def test_the_weights_never_see_what_is_held_out() -> None:
    seen: list[Tensor] = []
    held: list[Tensor] = []

    class Watch(SigmaObjective):
        held_out = 0.2

        def hold(self, batch: Any, count: int) -> None:
            held.append(batch(torch.arange(count))[2])

        def loss(
            self, model: nn.Module, images: Tensor, labels: Tensor, training_loss: Tensor, *, samples: Tensor
        ) -> Tensor:
            seen.append(model.output.noise.stream.rows[:, 0])  # type: ignore[union-attr]
            return training_loss

    data = digits()
    train(noisy(), data, Training(epochs=2, batch_size=16), objective=Watch())
    (rest,) = held
    assert len(rest) == 10  # of 50
    assert sorted([*torch.cat(seen[:3]).tolist(), *rest.tolist()]) == sorted(data.train.ids.tolist())
    assert len(seen) == 6
    Watch.held_out = 0.001
    with pytest.raises(UserError, match="held_out"):
        train(noisy(), data, Training(epochs=1), objective=Watch())


def test_alternating_steps_see_the_weights_as_they_have_become() -> None:
    data, net, expected = digits(), zoo("learn2perturb"), zoo("learn2perturb")
    train(net, data, Training(epochs=1, batch_size=100, lr=0.05, weight_decay=0), objective=Learn2Perturb(gamma=0.1))
    images, labels, ids = data.train.batch(torch.arange(len(data.train)))
    weights, levels = split_parameters(expected)
    for optimizer in (torch.optim.Adam(weights, lr=0.05), SigmaAdam(levels, lr=1e-3)):
        with stream(expected, seed=0, samples=ids, step=0):
            loss = F.cross_entropy(expected(images), labels) - 0.1 * sum(s.sqrt().sum() for s in levels)
        expected.zero_grad()
        loss.backward()
        optimizer.step()
    for (name, have), want in zip(net.named_parameters(), expected.named_parameters(), strict=True):
        torch.testing.assert_close(have, want[1], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize(("kind", "strength"), [("pni", "alpha"), ("wca", "factor")])
def test_the_strength_of_noise_does_not_decay_with_the_weights(kind: str, strength: str, optimizer: str) -> None:
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 100, "lr": 0.01, "optimizer": optimizer}
    kept, decayed = zoo(kind), zoo(kind)
    train(kept, digits(), Training(**settings, weight_decay=0))
    train(decayed, digits(), Training(**settings, weight_decay=1.0))
    one, other = dict(kept.named_parameters()), dict(decayed.named_parameters())
    for name in one:
        assert torch.equal(one[name], other[name]) is name.endswith(f"noise.{strength}"), name


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch is built without torch.distributed")
def test_two_processes_train_a_pair_as_one_does(tmp_path: Path) -> None:
    with_two_processes(_each_way, tmp_path)
    for name in ("trades", "wca", "pni"):
        one, two = tensors(tmp_path / "one" / name), tensors(tmp_path / "two" / name)
        for key in one:
            torch.testing.assert_close(one[key], two[key], rtol=0, atol=1e-5, msg=f"{name}: {key}")


def _each_way(folder: Path) -> None:
    for name in ("trades", "wca", "pni"):
        make, options = CASES[name]
        train(make(), digits(), Training(epochs=2, batch_size=7), run_dir=folder / name, device="cpu", **options)


def test_an_objective_of_a_kind_of_noise_has_its_name() -> None:
    assert {"learn2perturb", "wca"} <= OBJECTIVES.keys() & ZOO.keys()


def test_bilevel_goes_through_attention() -> None:
    """torch's fast attention has no second derivative; the exact one has."""

    class Attentive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.output = nn.Linear(8, 6), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.embed(x)
            scores: Tensor = self.output(F.scaled_dot_product_attention(tokens, tokens, tokens).mean((1, 2)))
            return scores

    net = inject(Attentive(), example_input=torch.rand(2, 1, 8, 8), init=0.5)
    before = {name: level.detach().clone() for name, level in sigmas(net).items()}
    train(net, digits(), Training(epochs=1, batch_size=16), objective=Bilevel(examples=EPS))
    assert all(not torch.equal(level, before[name]) for name, level in sigmas(net).items())
