"""What comes out of training: history, curves, weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiseopt import checkpoint
from noiseopt.noise import has_noise, noise, sigmas, split_parameters
from noiseopt.train import Epoch, Training, train
from tests.training.common import Darken, digits, lines, mixed, noisy, same, small


def test_history_and_run_folder_say_the_same(tmp_path: Path) -> None:
    net, told = noisy(), []
    before = {name: s.detach().clone() for name, s in sigmas(net).items()}
    history = train(
        net,
        digits(),
        Training(epochs=3, batch_size=16, lr=0.01),
        run_dir=tmp_path / "new" / "run",
        test_curve=True,
        progress=lambda epoch, epochs, line: told.append((epoch, epochs, line)),
    )
    run_dir = tmp_path / "new" / "run"
    assert sorted(p.name for p in run_dir.iterdir()) == ["checkpoint.safetensors", "curves.jsonl", "sigma.safetensors"]
    assert told == [(i + 1, 3, line) for i, line in enumerate(history.epochs)]
    assert [Epoch(**line) for line in lines(run_dir)] == list(history.epochs)
    assert history.epochs[2].train_loss < history.epochs[0].train_loss
    first = lines(run_dir)[0]
    assert first["validation_noise"] is False
    assert 0 <= first["test_accuracy"] <= 1
    for name, s in history.sigma_after.items():
        stats = lines(run_dir)[-1]["sigma"][name]
        assert stats["mean"] == pytest.approx(s.mean().item())
        assert stats["rms"] == pytest.approx(s.square().mean().sqrt().item())
        assert (stats["min"], stats["max"]) == (s.min().item(), s.max().item())
    saved, _ = checkpoint.load(run_dir / "sigma.safetensors")
    for name, s in sigmas(net).items():
        assert torch.equal(saved[f"before/{name}"], before[name])
        assert torch.equal(saved[f"after/{name}"], s)
        assert torch.equal(history.sigma_before[name], before[name])
    fresh = noisy(seed=3)
    checkpoint.load_model(run_dir / "checkpoint.safetensors", fresh)
    assert same(fresh, net)


def test_a_plain_model_has_no_sigma(tmp_path: Path) -> None:
    history = train(small(), digits(), Training(epochs=1), run_dir=tmp_path)
    assert history.epochs[0].sigma == history.sigma_before == history.sigma_after == {}
    assert not (tmp_path / "sigma.safetensors").exists()
    assert "test_accuracy" not in lines(tmp_path)[0]


def test_fixed_sigma_stays() -> None:
    net = noisy(sigma=1.0)
    history = train(net, digits(), Training(epochs=1, lr=0.1))
    assert all(bool((s == 1).all()) for s in history.sigma_after.values())
    assert history.epochs[0].sigma["output"]["rms"] == 1.0


def test_noise_that_is_switched_off_stays_off_and_sigma_with_it() -> None:
    net, plain = noisy(), small()
    with noise(net, on=False):
        history = train(net, digits(), Training(epochs=2, batch_size=16))
    train(plain, digits(), Training(epochs=2, batch_size=16))
    assert all(torch.equal(history.sigma_before[name], s) for name, s in history.sigma_after.items())
    for one, two in zip(split_parameters(net)[0], plain.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def test_validation_has_the_noise_that_was_asked_for() -> None:
    data, training = digits(), Training(epochs=1, lr=1e-12, sigma_lr=1e-12)
    net = noisy(init=30.0)
    off = train(net, data, training).epochs[0]
    on = train(net, data, training, noise_validation=True).epochs[0]
    images, labels, _ = data.validation.batch(torch.arange(len(data.validation)))
    with noise(net, on=False):
        expected = F.cross_entropy(net(images), labels).item()
    assert off.validation_loss == pytest.approx(expected, rel=1e-4)
    assert on.validation_loss > 2 * expected
    assert (off.validation_noise, on.validation_noise) == (False, True)
    assert has_noise(net)


def test_accuracy_is_counted_over_all_validation_images(monkeypatch: pytest.MonkeyPatch) -> None:
    # By its full name: the package exports the function `train` too, under the module's name.
    monkeypatch.setattr(sys.modules["noiseopt.train"], "_MEASURED_AT_ONCE", 3)
    data, net = digits(140), small()
    line = train(net, data, Training(epochs=4, batch_size=8, lr=0.01), test_curve=True).epochs[-1]
    for part, value in ((data.validation, line.validation_accuracy), (data.test, line.test_accuracy)):
        images, labels, _ = part.batch(torch.arange(len(part)))
        assert value == pytest.approx((net(images).argmax(1) == labels).float().mean().item())
        assert value > 0.5


@pytest.mark.parametrize("training", [True, False])
def test_the_callers_random_numbers_and_mode_are_kept(training: bool) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    net = mixed().train(training)
    train(net, digits(), Training(epochs=1))
    assert torch.equal(torch.rand(3), expected)
    assert net.training is training


def test_the_seed_decides_everything() -> None:
    nets = [mixed() for _ in range(3)]
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        torch.rand(seed)  # the state of the global generator must not matter
        train(net, digits(), Training(epochs=2, batch_size=16), seed=seed)
    assert same(nets[0], nets[1])
    assert not same(nets[0], nets[2])


def test_bfloat16_runs_the_model_and_keeps_float32_parameters() -> None:
    seen: list[torch.dtype] = []
    net = noisy()
    net.output.register_forward_hook(lambda module, args, output: seen.append(output.dtype))  # type: ignore[union-attr]
    line = train(net, digits(), Training(epochs=3, batch_size=16, lr=0.01), precision="bf16").epochs[-1]
    assert torch.bfloat16 in seen
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    exact = train(noisy(), digits(), Training(epochs=3, batch_size=16, lr=0.01)).epochs[-1]
    assert line.train_loss == pytest.approx(exact.train_loss, rel=0.05)


def test_tensorboard_gets_the_curves(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    history = train(noisy(), digits(), Training(epochs=2), run_dir=tmp_path, tracker="tensorboard")
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    found = [(e.step, e.value) for e in events.Scalars("validation_loss")]
    assert found == [(line.epoch, pytest.approx(line.validation_loss)) for line in history.epochs]
    assert "sigma/output/rms" in events.Tags()["scalars"]


def test_parameters_that_are_frozen_stay() -> None:
    net = noisy()
    weights, _ = split_parameters(net)
    before = [w.detach().clone() for w in weights]
    for w in weights:
        w.requires_grad_(False)
    history = train(net, digits(), Training(epochs=1))
    assert all(torch.equal(a, b) for a, b in zip(weights, before, strict=True))
    assert not torch.equal(history.sigma_before["output"], history.sigma_after["output"])


@pytest.mark.parametrize("part", ["model", "norm", "none"])
def test_all_of_a_model_is_trained_and_every_part_has_its_mode_back(part: str) -> None:
    net = mixed()
    (norm,) = (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm1d))
    {"model": net.eval, "norm": norm.eval, "none": net.train}[part]()
    modes = [m.training for m in net.modules()]
    train(net, digits(), Training(epochs=2, batch_size=16))
    assert norm.num_batches_tracked == 2 * 4  # type: ignore[comparison-overlap]
    assert [m.training for m in net.modules()] == modes


def test_a_plain_function_is_an_adversary() -> None:
    def dim(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return images.mul_(0.5)

    nets, training = [small(), small()], Training(epochs=1)
    histories = [
        train(nets[0], digits(), training, perturbation=dim),  # type: ignore[arg-type]
        train(nets[1], digits(), training, perturbation=Darken(0.5)),
    ]
    assert histories[0].epochs[0].train_loss == histories[1].epochs[0].train_loss
    assert same(*nets)


def test_no_epochs_leave_a_network_as_it_comes(tmp_path: Path) -> None:
    net = small().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for _ in range(2):
        history = train(net, digits(), Training(epochs=0, steps=5), run_dir=tmp_path)  # the steps of a recipe, perhaps
        assert history.epochs == ()
        assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert checkpoint.load(tmp_path / "checkpoint.safetensors")[1]["curves"] == []
    assert lines(tmp_path) == []
