"""Training: the step is the paper's, a killed run goes on bit for bit, k processes do what one does."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiseopt import checkpoint
from noiseopt.data import Dataset, Split, load, split
from noiseopt.errors import UserError
from noiseopt.models import build
from noiseopt.noise import SigmaAdam, SigmaObjective, has_noise, inject, noise, sigmas, split_parameters, stream
from noiseopt.train import Epoch, Training, train


def digits(count: int = 70, *, seed: int = 0, name: str = "stripes") -> Split:
    """Four classes of 8×8 images that a small network learns: a bright stripe on noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=generator)
    images = torch.randint(0, 120, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images[torch.arange(count), 0, 2 * labels] += 100
    return split(Dataset(images, labels, tuple("abcd"), name, torch.arange(count)), seed=seed)


def small(**options: Any) -> nn.Module:
    return build("mlp", seed=0, image_size=8, classes=4, hidden=(12,), **options)


def noisy(**options: Any) -> nn.Module:
    return inject(small(), example_input=torch.rand(1, 1, 8, 8), **options)


class Mixed(nn.Module):
    """What torch's global generator and the training mode act on."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.Dropout(0.5))
        self.output = nn.Linear(12, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.output(self.body(images))


def mixed() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return inject(Mixed(), example_input=torch.rand(2, 1, 8, 8))


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def lines(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "curves.jsonl").read_text().splitlines()]


# The step ------------------------------------------------------------------------------------------------------------


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


@dataclass(frozen=True)
class Darken:
    """A perturbation that writes down how it was called."""

    factor: float
    calls: list[tuple[bool, list[int]]] = field(default_factory=list)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, *, samples: Tensor | None = None) -> Tensor:
        assert samples is not None
        self.calls.append((model.training, samples.tolist()))
        return images * self.factor + 0 * model(images).sum()


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


# What comes out ------------------------------------------------------------------------------------------------------


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


# Interruptions -------------------------------------------------------------------------------------------------------


class Stop(BaseException):
    pass


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Stop])
@pytest.mark.parametrize("settings", [{}, {"optimizer": "sgd", "lr": 0.01, "lr_decay": (0.5, 2)}], ids=["adam", "sgd"])
def test_an_interrupted_run_ends_with_the_same_bits(
    tmp_path: Path, stop: type[BaseException], settings: dict[str, Any]
) -> None:
    training = Training(epochs=5, batch_size=16, **settings)
    whole = mixed()
    expected = train(whole, digits(), training, run_dir=tmp_path / "whole")

    def interrupt(epoch: int, epochs: int, line: Epoch) -> None:
        if epoch in (2, 3):
            raise stop

    for _ in range(3):
        net = mixed()
        try:
            history = train(net, digits(), training, run_dir=tmp_path / "parts", progress=interrupt)
        except stop:
            continue
    assert same(net, whole)
    one, two = _tensors(tmp_path / "whole"), _tensors(tmp_path / "parts")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)  # the optimisers' states too
    assert _without_seconds(history.epochs) == _without_seconds(expected.epochs)
    assert all(torch.equal(history.sigma_before[k], v) for k, v in expected.sigma_before.items())


def _tensors(run_dir: Path) -> dict[str, Tensor]:
    return checkpoint.load(run_dir / "checkpoint.safetensors")[0]


def _without_seconds(epochs: tuple[Epoch, ...]) -> list[dict[str, Any]]:
    return [line.model_dump(exclude={"seconds"}) for line in epochs]


def _forkserver() -> multiprocessing.context.ForkServerContext:
    """Processes of their own that need not import torch again."""
    processes = multiprocessing.get_context("forkserver")
    # Training itself would import the last two.
    processes.set_forkserver_preload(["noiseopt.train", "noiseopt.noise.kernels.cpu", "torch._dynamo"])
    return processes


EPOCHS = 25


def _to_be_killed(run_dir: str) -> None:
    torch.set_num_threads(1)
    train(mixed(), digits(), Training(epochs=EPOCHS, batch_size=8), run_dir=run_dir)


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def test_kill_9_at_any_moment_costs_nothing_but_time(tmp_path: Path) -> None:
    processes = _forkserver()

    def run(folder: str) -> multiprocessing.process.BaseProcess:
        process = processes.Process(target=_to_be_killed, args=(str(tmp_path / folder),))
        process.start()
        return process

    whole = run("whole")
    whole.join()
    assert whole.exitcode == 0
    epoch = sorted(line["seconds"] for line in lines(tmp_path / "whole"))[EPOCHS // 2]
    rng, state = random.Random(0), tmp_path / "killed" / "checkpoint.safetensors"
    for _ in range(3):
        process, written = run("killed"), _stamp(state)
        for _ in range(rng.randint(1, 6)):  # epochs that it may finish
            while _stamp(state) == written:
                assert process.is_alive()
                time.sleep(epoch / 20)
            written = _stamp(state)
        time.sleep(rng.random() * epoch)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        checkpoint.load(state)
    last = run("killed")
    last.join()
    assert last.exitcode == 0
    one, two = _tensors(tmp_path / "whole"), _tensors(tmp_path / "killed")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert [line["epoch"] for line in lines(tmp_path / "killed")] == list(range(1, EPOCHS + 1))


def test_a_finished_run_returns_at_once_with_its_history_and_its_weights(tmp_path: Path) -> None:
    training, told = Training(epochs=2, batch_size=16), []
    net, again = mixed(), mixed()
    history = train(net, digits(), training, run_dir=tmp_path)
    stamp = (tmp_path / "checkpoint.safetensors").stat().st_mtime_ns
    repeated = train(again, digits(), training, run_dir=tmp_path, progress=lambda *line: told.append(line))
    assert told == []
    assert repeated.epochs == history.epochs
    assert same(net, again)
    assert (tmp_path / "checkpoint.safetensors").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("left", ["", '{"epoch": 1, "train_lo', "{}\n" * 9, None])
def test_curves_are_mended_from_the_checkpoint(tmp_path: Path, left: str | None) -> None:
    training = Training(epochs=2)
    history = train(noisy(), digits(), training, run_dir=tmp_path)
    (tmp_path / "sigma.safetensors").unlink()
    if left is None:
        (tmp_path / "curves.jsonl").unlink()
    else:
        (tmp_path / "curves.jsonl").write_text(left)
    train(noisy(), digits(), training, run_dir=tmp_path)
    assert [Epoch(**line) for line in lines(tmp_path)] == list(history.epochs)
    saved, _ = checkpoint.load(tmp_path / "sigma.safetensors")
    assert torch.equal(saved["before/output"], history.sigma_before["output"])
    assert torch.equal(saved["after/output"], history.sigma_after["output"])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"training": Training(epochs=1, lr=0.5)}, r"training\.lr = 0\.001.*got training\.lr = 0\.5"),
        ({"training": Training(epochs=9)}, r"training\.epochs = 1"),
        ({"training": Training(epochs=1, lr_decay=(0.5, 1))}, r"training\.lr_decay = None"),
        ({"seed": 1}, "seed = 0"),
        ({"data": digits(seed=1)}, r"data\.train = "),
        ({"precision": "bf16"}, "precision = 'no'"),
        ({"noise_validation": True}, "noise_validation = False"),
        ({"test_curve": True}, "test_curve = None"),
        ({"perturbation": Darken(0.5)}, "perturbation = None"),
        ({"about": {"model": "cnn"}}, r"about\.model = 'mlp'.*got about\.model = 'cnn'"),
        ({"about": None}, r"about\.model = 'mlp'"),
        ({"model": small()}, "another network"),
        ({"model": noisy(where=["output"])}, "another network"),
    ],
)
def test_a_run_goes_on_only_with_what_it_began_with(tmp_path: Path, change: dict[str, Any], name: str) -> None:
    asked: dict[str, Any] = {"model": noisy(), "data": digits(), "training": Training(epochs=1)}
    asked |= {"about": {"model": "mlp"}, "run_dir": tmp_path}
    train(**asked)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(UserError, match=name):
        train(**(asked | change))
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    train(**(asked | {"model": noisy()}))


def test_another_setting_of_a_perturbation_or_another_objective_is_noticed(tmp_path: Path) -> None:
    class Other(SigmaObjective):
        name = "other"

    training = Training(epochs=1)
    train(small(), digits(), training, run_dir=tmp_path, perturbation=Darken(0.5))
    train(small(), digits(), training, run_dir=tmp_path, perturbation=Darken(0.5))
    with pytest.raises(UserError, match="perturbation"):
        train(small(), digits(), training, run_dir=tmp_path, perturbation=Darken(0.6))
    with pytest.raises(UserError, match=r"objective = \{'name': 'SigmaObjective'\}"):
        train(small(), digits(), training, run_dir=tmp_path, perturbation=Darken(0.5), objective=Other())


def test_a_damaged_checkpoint_stops_with_its_name_and_is_left_alone(tmp_path: Path) -> None:
    training, path = Training(epochs=1), tmp_path / "checkpoint.safetensors"
    train(noisy(), digits(), training, run_dir=tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"checkpoint\.safetensors is damaged"):
        train(noisy(), digits(), training, run_dir=tmp_path)
    assert path.read_bytes() == whole[:-1]
    checkpoint.save_model(path, noisy(), {"epoch": 3})
    with pytest.raises(UserError, match="not a checkpoint of training"):
        train(noisy(), digits(), training, run_dir=tmp_path)


def test_a_loss_that_is_no_number_stops_and_the_last_good_checkpoint_stays(tmp_path: Path) -> None:
    class Breaks(SigmaObjective):
        steps = 0

        def after_step(self, levels: Any) -> None:
            self.steps += 1
            if self.steps == 6:
                levels[0].data.fill_(math.inf)

    net, training = noisy(), Training(epochs=3, batch_size=16)  # 4 steps an epoch
    with pytest.raises(UserError, match=r"epoch 2, step 3 of 4.*lower lr"):
        train(net, digits(), training, run_dir=tmp_path, objective=Breaks())
    assert [line["epoch"] for line in lines(tmp_path)] == [1]
    assert all(t.isfinite().all() for t in _tensors(tmp_path).values())


def test_a_last_step_that_breaks_the_weights_is_noticed_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="epoch 1, in validation"):
        train(small(), digits(), Training(epochs=1, batch_size=1000, lr=1e38), run_dir=tmp_path)
    assert not (tmp_path / "checkpoint.safetensors").exists()


# Wrong calls ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 1.5}, "batch_size"),
        ({"lr": -1}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"momentum": 1.0}, "momentum"),
        ({"optimizer": "adamw"}, "optimizer.*adam"),
        ({"lr_decay": (0.5, 0)}, "lr_decay"),
        ({"lr_decay": (0.0, 1)}, "lr_decay"),
        ({"lr_decay": 0.5}, "lr_decay"),
        ({"sigma_lr": 0}, "sigma_lr"),
        ({"learning_rate": 0.1}, "learning_rate.*fix: the settings are epochs, steps, batch_size"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(UserError, match=f"training.{name}"):
        Training(**settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": build("mlp", seed=0, classes=4)}, r"must take images of \[1, 1, 8, 8\]"),
        ({"model": build("mlp", seed=0, image_size=8, classes=3)}, r"\[N, 4\] logits; got \[1, 3\]"),
        ({"model": nn.Identity()}, r"\[N, 4\] logits"),
        ({"model": nn.Sequential(nn.Flatten(), nn.AvgPool1d(16))}, "nothing to train"),
        ({"seed": -1}, "seed"),
        ({"device": "abacus"}, "device"),
        ({"device": "cuda:99"}, "device"),
        ({"precision": "fp8"}, "precision"),
        ({"tracker": "paper"}, "tracker"),
        ({"tracker": "tensorboard"}, "run_dir"),
        ({"about": {"model": object()}}, "about must hold plain values"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_done(change: dict[str, Any], message: str) -> None:
    asked: dict[str, Any] = {"model": small(), "data": digits(), "training": Training(epochs=1)}
    with pytest.raises(UserError, match=message):
        train(**(asked | change))


def test_a_run_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        train(small(), digits(), Training(epochs=1), run_dir=tmp_path / "file")


# Several processes, and real data ------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch is built without torch.distributed")
def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = _forkserver()
    children = [processes.Process(target=_one_of_two, args=(rank, port, tmp_path / "two")) for rank in ("0", "1")]
    for child in children:
        child.start()
    _both_ways(tmp_path / "one")
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    for name in ("default", "objective"):
        one, two = _tensors(tmp_path / "one" / name), _tensors(tmp_path / "two" / name)
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


def _one_of_two(rank: str, port: str, folder: Path) -> None:
    """What `accelerate launch` sets, and then the same call."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ.update(place | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"})
    torch.set_num_threads(1)
    _both_ways(folder)


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


# Autoencoders --------------------------------------------------------------------------------------------------------


def test_an_autoencoder_learns_to_give_the_images_back(tmp_path: Path) -> None:
    net = build("noiseopt.models:autoencoder", seed=0, hidden=(24, 8), image_size=8, dropout=0.1)
    training = Training(epochs=20, batch_size=16, lr=1e-2, task="reconstruct")
    history = train(net, digits(), training, run_dir=tmp_path)
    first, last = history.epochs[0], history.epochs[-1]
    assert last.validation_loss < first.validation_loss
    assert 0 <= first.validation_accuracy < last.validation_accuracy <= 1
    data = digits().validation
    images, _, _ = data.batch(torch.arange(len(data)))
    net.eval()
    with torch.no_grad():
        out = net(images)
    assert last.validation_accuracy == pytest.approx(1 - (out - images).abs().mean().item(), abs=1e-6)
    expected = F.binary_cross_entropy(out, images, reduction="sum").item() / len(images)
    assert last.validation_loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("net", "rule"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), r"must give images of \[1, 8, 8\]; got \[1, 4\]"),
        (nn.Sequential(nn.Conv2d(1, 1, 1), nn.Hardtanh(-9.0, -1.0)), r"must give pixels in \[0, 1\]; got -"),
    ],
)
def test_what_is_no_autoencoder_is_refused(net: nn.Module, rule: str) -> None:
    with pytest.raises(UserError, match=rule):
        train(net, digits(), Training(epochs=1, task="reconstruct"))


def test_a_pair_of_tensors_is_no_split() -> None:
    pair: Any = (torch.rand(2, 1, 4, 4), torch.zeros(2).long())
    with pytest.raises(UserError, match="data must be a Split"):
        train(nn.Flatten(), pair, Training(epochs=1))
