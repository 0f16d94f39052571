"""A training that was interrupted, or killed, goes on bit for bit."""

from __future__ import annotations

import math
import multiprocessing
import random
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from noiseopt import checkpoint
from noiseopt.errors import UserError
from noiseopt.noise import SigmaObjective
from noiseopt.train import Epoch, Training, train
from tests.training.common import Darken, digits, forkserver, lines, mixed, noisy, same, small, tensors, without_seconds


class Stop(BaseException):
    pass


def dimmed(
    model: nn.Module, images: Tensor, labels: Tensor, *, samples: Tensor | None = None, by: float = 0.1
) -> Tensor:
    return images * (1 - by)


class Dimmed:
    """An attack of one's own that is no data class."""

    def __init__(self, by: float) -> None:
        self.by = by

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, *, samples: Tensor | None = None) -> Tensor:
        return dimmed(model, images, labels, by=self.by)


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
    one, two = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)  # the optimisers' states too
    assert without_seconds(history.epochs) == without_seconds(expected.epochs)
    assert all(torch.equal(history.sigma_before[k], v) for k, v in expected.sigma_before.items())


EPOCHS = 25


def _to_be_killed(run_dir: str) -> None:
    torch.set_num_threads(1)
    train(mixed(), digits(), Training(epochs=EPOCHS, batch_size=8), run_dir=run_dir)


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def test_kill_9_at_any_moment_costs_nothing_but_time(tmp_path: Path) -> None:
    processes = forkserver()

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
    one, two = tensors(tmp_path / "whole"), tensors(tmp_path / "killed")
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
        ({"model": noisy(sigma=0.5)}, r"another network, hidden1\.noise = GaussianNoise.*learned"),
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


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ({"model": noisy(sigma=0.5)}, {"model": noisy(sigma=2.0)}, r"σ. 0\.5\); got GaussianNoise.*σ. 2\)"),
        ({"model": small(activation="relu")}, {"model": small(activation="sigmoid")}, r"ReLU\(\); got Sigmoid\(\)"),
        ({"perturbation": Dimmed(0.1)}, {"perturbation": Dimmed(0.3)}, r"'by': 0\.1.*'by': 0\.3"),
        ({"perturbation": partial(dimmed, by=0.1)}, {"perturbation": partial(dimmed, by=0.3)}, "'by': 0.3"),
        ({"perturbation": dimmed}, {"perturbation": Dimmed(0.1)}, "perturbation = {'name': 'dimmed"),
    ],
)
def test_a_network_and_an_attack_of_ones_own_are_told_by_their_settings(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any], named: str
) -> None:
    asked: dict[str, Any] = {"model": small(), "data": digits(), "training": Training(epochs=1), "run_dir": tmp_path}
    model = (asked | before)["model"]
    train(**(asked | before))
    assert len(train(**(asked | before | {"model": model})).epochs) == 1  # the same network again, trained by now
    with pytest.raises(UserError, match=named):
        train(**(asked | after))


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
    assert all(t.isfinite().all() for t in tensors(tmp_path).values())


def test_a_last_step_that_breaks_the_weights_is_noticed_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="epoch 1, in validation"):
        train(small(), digits(), Training(epochs=1, batch_size=1000, lr=1e38), run_dir=tmp_path)
    assert not (tmp_path / "checkpoint.safetensors").exists()
