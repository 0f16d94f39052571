"""k processes train what one trains; real images; training by steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiseopt.data import load, split
from noiseopt.models import build
from noiseopt.noise import SigmaObjective, inject
from noiseopt.train import Epoch, Training, train
from tests.training.common import digits, lines, noisy, same, small, tensors, with_two_processes


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch is built without torch.distributed")
def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    with_two_processes(_both_ways, tmp_path)
    for name in ("default", "objective"):
        one, two = tensors(tmp_path / "one" / name), tensors(tmp_path / "two" / name)
        for key in one:
            torch.testing.assert_close(one[key], two[key], rtol=0, atol=1e-5, msg=f"{name}: {key}")
        for a, b in zip(lines(tmp_path / "one" / name), lines(tmp_path / "two" / name), strict=True):
            assert a["train_loss"] == pytest.approx(b["train_loss"], abs=1e-5)
            assert a["validation_loss"] == pytest.approx(b["validation_loss"], abs=1e-5)
            assert a["validation_accuracy"] == b["validation_accuracy"]


class Smoothed(SigmaObjective):
    """Another loss on the same noise."""

    name = "smoothed"

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, training_loss: Tensor, *, samples: Tensor
    ) -> Tensor:
        return F.cross_entropy(model(images), labels, label_smoothing=0.5)


def _both_ways(folder: Path) -> None:
    # 50 images in batches of 7: the last batch has one image, and one of two processes none.
    training = Training(epochs=3, batch_size=7)
    train(noisy(), digits(), training, run_dir=folder / "default", device="cpu")
    train(noisy(), digits(), training, run_dir=folder / "objective", device="cpu", objective=Smoothed())


def test_a_noisy_network_learns_mnist(shared_data: Path) -> None:
    data = split(load("mnist", data_dir=shared_data), seed=0)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [50_000, 10_000, 10_000]
    net = inject(build("mlp", seed=0), example_input=torch.rand(1, 1, 28, 28))
    history = train(net, data, Training(epochs=2), test_curve=True)
    line = history.epochs[-1]
    assert line.validation_accuracy > 0.94
    assert line.test_accuracy is not None
    assert line.test_accuracy > 0.94
    for name, s in history.sigma_after.items():
        assert s.min() >= 0, name
        assert s.mean() < history.sigma_before[name].abs().mean(), name


def test_training_by_steps_stops_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    data = digits()
    per_epoch = -(-len(data.train) // 16)
    steps = per_epoch + 2
    training = Training(steps=steps, batch_size=16)
    assert training.epochs_on(len(data.train)) == 2
    counted: list[float] = []

    class Count(SigmaObjective):
        def after_step(self, sigmas: Sequence[Tensor]) -> None:
            counted.append(1)

    history = train(noisy(), data, training, objective=Count(), run_dir=tmp_path)
    assert len(counted) == steps
    assert [line.epoch for line in history.epochs] == [1, 2]
    assert len(train(noisy(), data, training, objective=Count(), run_dir=tmp_path).epochs) == 2
    assert len(counted) == steps  # it was done


def test_whole_epochs_by_steps_are_those_by_epochs() -> None:
    data = digits()
    per_epoch = -(-len(data.train) // 16)
    by_epochs, by_steps = noisy(), noisy()
    train(by_epochs, data, Training(epochs=2, batch_size=16))
    train(by_steps, data, Training(steps=2 * per_epoch, batch_size=16))
    assert all(torch.equal(a, b) for a, b in zip(by_epochs.parameters(), by_steps.parameters(), strict=True))


def test_the_inverse_schedule_is_caffes() -> None:
    training = Training(lr=0.01, lr_inv=(1e-4, 0.75))
    assert [training.lr_at(0, step) for step in (0, 10_000)] == pytest.approx([0.01, 0.01 * 2**-0.75])
    assert Training(lr=0.1, lr_decay=(0.5, 2)).lr_at(5, 999) == pytest.approx(0.025)


def test_the_schedule_and_nesterov_reach_the_weights() -> None:
    def trained(**settings: Any) -> Tensor:
        net = small()
        train(net, digits(), Training(epochs=1, batch_size=16, optimizer="sgd", lr=0.1, **settings))
        return torch.cat([p.detach().flatten() for p in net.parameters()])

    plain = trained()
    assert torch.equal(plain, trained(nesterov=False))
    assert not torch.equal(plain, trained(nesterov=True))
    assert not torch.equal(plain, trained(lr_inv=(0.1, 1.0)))


def test_augmented_images_are_other_images_and_a_resumed_run_sees_the_same(tmp_path: Path) -> None:
    plain, whole, resumed = small(), small(), small()
    train(plain, digits(), Training(batch_size=16, epochs=2))
    train(whole, digits(), Training(batch_size=16, epochs=2, augment=True))
    assert not same(plain, whole)

    class Stop(Exception):
        pass

    def stop(epoch: int, epochs: int, line: Epoch) -> None:
        raise Stop

    with pytest.raises(Stop):
        train(small(), digits(), Training(batch_size=16, epochs=2, augment=True), run_dir=tmp_path, progress=stop)
    train(resumed, digits(), Training(batch_size=16, epochs=2, augment=True), run_dir=tmp_path)
    assert same(whole, resumed)
