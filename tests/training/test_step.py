"""The step of training is the paper's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiseopt.noise import SigmaAdam, SigmaObjective, sigmas, split_parameters, stream
from noiseopt.train import Training, train
from tests.training.common import Darken, digits, noisy, small


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_every_step_is_algorithm_1_of_the_paper(optimizer: str) -> None:
    data, net, expected = digits(), noisy(), noisy()
    settings = {"optimizer": optimizer, "lr": 0.01, "weight_decay": 0.1, "sigma_lr": 0.02}
    history = train(net, data, Training(epochs=1, batch_size=len(data.train), **settings), seed=5)

    weights, levels = split_parameters(expected)
    images, labels, ids = data.train.batch(torch.arange(len(data.train)))
    with stream(expected, seed=5, samples=ids, step=0):
        loss = F.cross_entropy(expected(images), labels)
    loss.backward()
    if optimizer == "adam":
        torch.optim.Adam(weights, lr=0.01, weight_decay=0.1).step()
    else:
        torch.optim.SGD(weights, lr=0.01, weight_decay=0.1, momentum=0.9).step()
    SigmaAdam(levels, lr=0.02).step()
    assert history.epochs[0].train_loss == pytest.approx(loss.item(), abs=1e-5)
    for (name, have), want in zip(net.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(have, want, rtol=1e-4, atol=1e-6, msg=name)


def test_noise_is_keyed_by_step_and_sample_and_every_image_is_seen_once_an_epoch() -> None:
    seen: list[Tensor] = []

    class Watch(SigmaObjective):
        def loss(
            self, model: nn.Module, images: Tensor, labels: Tensor, training_loss: Tensor, *, samples: Tensor
        ) -> Tensor:
            rows = model.output.noise.stream.rows  # type: ignore[union-attr]
            assert len(rows) == len(images)
            seen.append(rows)
            return training_loss

    data = digits()
    train(noisy(), data, Training(epochs=2, batch_size=16), objective=Watch())
    assert [len(rows) for rows in seen] == [16, 16, 16, 2] * 2  # 50 images, the last batch kept
    assert [int(rows[0, 1]) for rows in seen] == list(range(8))
    epochs = [torch.cat(seen[:4])[:, 0], torch.cat(seen[4:])[:, 0]]
    assert all(torch.equal(ids.sort().values, data.train.ids.sort().values) for ids in epochs)
    assert not torch.equal(*epochs)


def test_the_train_loss_is_the_mean_over_images_not_over_batches() -> None:
    data, net = digits(), small()
    images, labels, _ = data.train.batch(torch.arange(len(data.train)))
    expected = F.cross_entropy(net(images), labels).item()
    history = train(net, data, Training(epochs=1, batch_size=49, lr=1e-12))
    assert history.epochs[0].train_loss == pytest.approx(expected, rel=1e-5)


def test_another_objective_moves_sigma_and_leaves_the_weights_to_the_training_loss() -> None:
    class Small(SigmaObjective):
        name = "small"
        steps = 0

        def loss(
            self, model: nn.Module, images: Tensor, labels: Tensor, training_loss: Tensor, *, samples: Tensor
        ) -> Tensor:
            return sum(s.square().sum() for s in sigmas(model).values())  # type: ignore[return-value]

        def after_step(self, levels: Any) -> None:
            self.steps += 1
            with torch.no_grad():
                for s in levels:
                    s.clamp_(max=0.5)

    data, training, objective = digits(), Training(epochs=1, batch_size=1000), Small()
    paper, other = noisy(init=1.0), noisy(init=1.0)
    train(paper, data, training)
    train(other, data, training, objective=objective)
    assert objective.steps == 1
    for one, two in zip(split_parameters(paper)[0], split_parameters(other)[0], strict=True):
        assert torch.equal(one, two)
    assert all(bool((s == 0.5).all()) for s in sigmas(other).values())
    objective.after_step = lambda levels: None  # type: ignore[method-assign,assignment]
    unclamped = noisy(init=1.0)
    train(unclamped, data, training, objective=objective)
    # Adam's first step is lr in the direction of the gradient's sign.
    for s in sigmas(unclamped).values():
        torch.testing.assert_close(s.detach(), torch.full_like(s, 1.0 - 1e-3))


def test_an_objective_equal_to_the_training_loss_does_what_the_default_does() -> None:
    class Copy(SigmaObjective):
        def loss(
            self, model: nn.Module, images: Tensor, labels: Tensor, training_loss: Tensor, *, samples: Tensor
        ) -> Tensor:
            return training_loss * 1.0

    one, two = noisy(), noisy()
    train(one, digits(), Training(epochs=2, batch_size=16))
    train(two, digits(), Training(epochs=2, batch_size=16), objective=Copy())
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_learning_rate_decays_for_the_weights_only() -> None:
    data, net, longer = digits(), noisy(init=1.0), noisy(init=1.0)
    training = Training(epochs=2, batch_size=16, lr_decay=(1e-12, 2))
    train(net, data, training)
    train(longer, data, training.model_copy(update={"epochs": 3}))
    for a, b in zip(split_parameters(net)[0], split_parameters(longer)[0], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    assert not any(torch.equal(a, b) for a, b in zip(sigmas(net).values(), sigmas(longer).values(), strict=True))


def test_adversarial_training_trains_on_the_perturbed_images_and_the_attack_sees_eval_mode() -> None:
    data, darken = digits(), Darken(0.0)
    history = train(small(), data, Training(epochs=3, batch_size=1000, lr=0.5), perturbation=darken)
    frequencies = data.train.labels.bincount(minlength=4) / len(data.train)
    entropy = -(frequencies * frequencies.log()).sum().item()  # black images: no more than the classes' frequencies
    assert history.epochs[-1].train_loss > entropy - 1e-4
    assert [mode for mode, _ in darken.calls] == [False] * 3
    keys = [set(samples) for _, samples in darken.calls]  # an attack's random start is new in every epoch
    assert not keys[0] & keys[1]
    assert not keys[1] & keys[2]
    assert all(0 <= s < 2**32 for _, samples in darken.calls for s in samples)
